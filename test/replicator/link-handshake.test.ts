/** The authentication of two nodes against wrong, replayed, reflected and slow words (W10). */
import { inspect } from 'node:util';
import test from 'ava';
import { alwaysDisconnect } from '../../replicator/core/after-split-brain.ts';
import type { PeerState } from '../../replicator/core/packet.ts';
import { PeerAuth } from '../../replicator/shell/auth.ts';
import * as handshake from '../../replicator/shell/handshake.ts';
import type { DialOutcome, Identity, ListenOutcome } from '../../replicator/shell/handshake.ts';
import { headerBytes, maxAnswerBytes, maxHandshakeBytes } from '../../replicator/wire/constants.ts';
import { maxHelloBytes, proofBytes } from '../../replicator/wire/constants.ts';
import { FrameDecoder } from '../../replicator/wire/frame-decoder.ts';
import type { FramePhase } from '../../replicator/wire/frame-decoder.ts';
import { FrameEncoder } from '../../replicator/wire/frame-encoder.ts';
import type { Intent, Verdict } from '../../replicator/wire/handshake-codec.ts';
import { seal } from '../support/bitwise-crc32c.ts';

const state: PeerState = {
  sizeBytes: 1 << 30,
  protocol: 'C',
  role: 'Primary',
  disk: 'UpToDate',
  origin: 'settled',
  current: 5n,
  bitmap: [],
  history: [4n],
  exposed: 5n,
  writer: true,
  crashedPrimary: false,
  linked: true,
  peerExcluded: false,
  dirtyBlocks: 0,
  discardMyData: false,
  partedAsPrimary: false,
  ...alwaysDisconnect,
};

/** One end of a connection without a network: what it sends is kept, what it gets is fed by the test. */
class End implements handshake.HandshakeConnection {
  readonly frames = new FrameEncoder();
  readonly decoder = new FrameDecoder({ bounds: new Map(), deliver: () => undefined });
  outcome: DialOutcome | ListenOutcome | null = null;
  #sent: Buffer[] = [];

  become(phase: FramePhase): void {
    this.decoder.become(phase);
  }

  flush(): void {
    this.#sent.push(Buffer.concat(this.frames.take()));
  }

  /** What was sent since the last call. */
  sent(): Buffer {
    const sent = Buffer.concat(this.#sent);
    this.#sent = [];
    return sent;
  }

  /** The field of the error, or '' when the bytes were fine. */
  feed(bytes: Uint8Array): string {
    return this.decoder.feed(bytes)?.field ?? '';
  }
}

interface Side extends Partial<Identity> {
  readonly secret?: string;
  readonly nonce?: Uint8Array;
}

const alpha: Identity = {
  resourceName: 'r0',
  nodeName: 'alpha',
  peerName: 'beta',
  versions: { min: 1, max: 1 },
};
const beta: Identity = { ...alpha, nodeName: 'beta', peerName: 'alpha' };
let nonces = 0;

function options(end: End, identity: Identity, side: Side): handshake.HandshakeOptions {
  const { secret = 'sesame', nonce = Buffer.alloc(32, ++nonces), ...rest } = side;
  return { connection: end, identity: { ...identity, ...rest }, auth: new PeerAuth(secret), nonce };
}

function dialler(side: Side = {}, intent: Intent = 'session'): End {
  const end = new End();
  handshake.dial(options(end, alpha, side), intent, (outcome) => {
    end.outcome = outcome;
    end.decoder.stop();
  });
  return end;
}

const acceptAll = (intent: Intent): Verdict =>
  intent === 'probe' ? { kind: 'state', state } : { kind: 'accepted' };

function listener(side: Side = {}, judge: (intent: Intent) => Verdict = acceptAll): End {
  const end = new End();
  end.become(
    handshake.listen(options(end, beta, side), judge, (outcome) => {
      end.outcome = outcome;
      end.decoder.stop();
    }),
  );
  return end;
}

/** Carries bytes to and fro until both are silent. */
function converse(a: End, b: End): void {
  for (;;) {
    const fromA = a.sent();
    const fromB = b.sent();
    if (fromA.length + fromB.length === 0) return;
    b.feed(fromA);
    a.feed(fromB);
  }
}

function reasonOf(end: End): string {
  return end.outcome?.kind === 'failed' ? end.outcome.reason : (end.outcome?.kind ?? 'none');
}

test('two nodes with the same secret accept each other, in the highest version both know', (t) => {
  const a = dialler({ versions: { min: 1, max: 7 } });
  const b = listener({ versions: { min: 2, max: 5 } });
  converse(a, b);
  t.like(a.outcome, { kind: 'accepted', version: 5 });
  t.like(b.outcome, { kind: 'accepted', version: 5 });
});

test('both sides of a session hash alike, and no other session of theirs hashes so', (t) => {
  const hashOf = ({ outcome }: End): string => {
    const into = Buffer.alloc(32);
    if (outcome?.kind === 'accepted') outcome.coarseHash.write(Buffer.from('data'), into, 0);
    return into.toString('hex');
  };
  const seen = new Set<string>();
  const nonce = Buffer.alloc(32, 200);
  for (const [one, other] of [
    [{ nonce }, { nonce }],
    [{ nonce }, {}],
    [{}, { nonce }],
    [
      { nonce, secret: 'simsalabim' },
      { nonce, secret: 'simsalabim' },
    ],
  ] as const) {
    const a = dialler(one);
    const b = listener(other);
    converse(a, b);
    t.is(reasonOf(a), 'accepted');
    t.is(hashOf(a), hashOf(b));
    seen.add(hashOf(a));
  }
  t.is(seen.size, 4);
});

test('a probe is answered with the state, and with a refusal while there is none', (t) => {
  const a = dialler({}, 'probe');
  const b = listener();
  converse(a, b);
  t.deepEqual(a.outcome, { kind: 'state', state });
  t.deepEqual(b.outcome, { kind: 'answered' });

  const c = dialler({}, 'probe');
  converse(
    c,
    listener({}, () => ({ kind: 'refused', reason: 'no-state' })),
  );
  t.is(reasonOf(c), 'no-state');
});

const mismatch = test.macro({
  title: (_, what: string) => `refused on both sides: ${what}`,
  exec(t, _what: string, a: Side, b: Side, reason: string) {
    const one = dialler(a);
    const other = listener(b);
    let judged = false;
    const third = listener(b, () => {
      judged = true;
      return { kind: 'accepted' };
    });
    converse(one, other);
    t.is(reasonOf(one), reason);
    t.is(reasonOf(other), reason);
    converse(dialler(a), third);
    t.false(judged);
  },
});
test(mismatch, 'another secret', { secret: 'simsalabim' }, {}, 'authentication-failed');
test(mismatch, 'a dialler that is too old', {}, { versions: { min: 2, max: 3 } }, 'version-mismatch');
test(mismatch, 'a dialler that is too new', { versions: { min: 2, max: 3 } }, {}, 'version-mismatch');
test(mismatch, 'another resource', { resourceName: 'r1' }, {}, 'wrong-resource');
test(mismatch, 'a dialler with another name', { nodeName: 'gamma' }, {}, 'wrong-peer');
test(mismatch, 'a dialler looking for another', { peerName: 'gamma' }, {}, 'wrong-peer');
test(mismatch, 'a listener that expects another', {}, { peerName: 'gamma' }, 'wrong-peer');

test('a version mismatch names both ranges on both sides', (t) => {
  const a = dialler({ versions: { min: 2, max: 3 } });
  const b = listener();
  converse(a, b);
  for (const [end, ours, theirs] of [
    [a, '2 to 3', '1 to 1'],
    [b, '1 to 1', '2 to 3'],
  ] as const) {
    t.is(
      end.outcome?.kind === 'failed' ? end.outcome.detail : '',
      `version-mismatch: this node speaks versions ${ours}, the other side ${theirs}`,
    );
  }
});

test('a hello of a later version is told the versions even if nothing else of it can be understood', (t) => {
  const hello = Buffer.concat([
    dialler().sent().subarray(0, headerBytes),
    Buffer.from('00020009cafe', 'hex'),
  ]);
  hello.writeUInt32BE(6, 8);
  const b = listener();
  t.is(b.feed(seal(hello)), '');
  t.is(reasonOf(b), 'version-mismatch');
  t.true(b.sent().length > 0);
});

test('an empty range of versions, reserved bits and unknown intents are protocol errors', (t) => {
  const hello = dialler().sent();
  for (const [at, byte, field] of [
    [1, 2, 'hello.versions'],
    [4, 3, 'hello.intent'],
    [5, 1, 'hello.reserved'],
  ] as const) {
    const changed = Buffer.from(hello);
    changed.writeUInt8(byte, headerBytes + at);
    const b = listener();
    t.is(b.feed(seal(changed)), field);
    t.is(b.outcome, null);
    t.is(b.sent().length, 0);
  }
});

test('a listener says nothing but its hello before the dialler has proved itself', (t) => {
  const a = dialler({ secret: 'wrong' });
  const b = listener();
  b.feed(a.sent());
  const hello = b.sent();
  t.is(hello[4], 0xe0);
  a.feed(hello);
  b.feed(a.sent());
  const answer = b.sent();
  t.is(answer[4], 0xe3);
  t.is(answer.length, headerBytes + 5);
});

test('replay: the proof of an earlier connection is worth nothing', (t) => {
  const a = dialler();
  const b = listener();
  const hello = a.sent();
  b.feed(hello);
  a.feed(b.sent());
  const proof = a.sent();
  b.feed(proof);
  t.is(reasonOf(b), 'accepted');

  const again = listener();
  again.feed(hello);
  again.feed(proof);
  t.is(reasonOf(again), 'authentication-failed');
});

test('replay: the answer of an earlier connection is worth nothing', (t) => {
  const a = dialler({}, 'probe');
  const b = listener();
  b.feed(a.sent());
  const hello = b.sent();
  a.feed(hello);
  b.feed(a.sent());
  const answer = b.sent();

  const again = dialler({}, 'probe');
  again.sent();
  again.feed(hello);
  again.feed(answer);
  t.is(reasonOf(again), 'authentication-failed');
});

test('reflection: a dialler that gets its own words back does not believe them', (t) => {
  const a = dialler();
  a.feed(a.sent());
  t.is(reasonOf(a), 'wrong-peer');
});

test('reflection: the proof of the dialler does not pass for that of the listener', (t) => {
  // Even if names did not tell: an impostor repeats nonce and all, and sends the proof back as its own.
  const a = dialler({}, 'session');
  const b = listener();
  b.feed(a.sent());
  a.feed(b.sent());
  const proof = a.sent().subarray(headerBytes);
  const answer = Buffer.concat([Buffer.alloc(headerBytes), proof, Buffer.from([1])]);
  answer.write('4c4b5350e1', 'hex');
  answer.writeUInt8(0xe2, 4);
  answer.writeUInt32BE(proofBytes + 1, 8);
  answer.writeUInt32BE(1, 20);
  t.is(a.feed(seal(answer)), '');
  t.is(reasonOf(a), 'authentication-failed');
});

test('the answer of a probe cannot be changed on the way', (t) => {
  const a = dialler({}, 'probe');
  const b = listener();
  b.feed(a.sent());
  a.feed(b.sent());
  b.feed(a.sent());
  const answer = b.sent();
  const role = headerBytes + proofBytes + 2;
  t.is(answer[role], 1);
  answer.writeUInt8(2, role);
  a.feed(seal(answer));
  t.is(reasonOf(a), 'authentication-failed');
});

test('frames out of turn are protocol errors: a proof first, a second hello, packets', (t) => {
  const a = dialler();
  const hello = a.sent();
  const proof = new FrameEncoder();
  proof.begin(proofBytes).raw(new Uint8Array(proofBytes));
  proof.end(0xe1, null);
  t.is(listener().feed(Buffer.concat(proof.take())), 'type');

  const second = Buffer.from(hello);
  second.writeUInt32BE(1, 20);
  const b = listener();
  t.is(b.feed(hello), '');
  t.is(b.feed(seal(second)), 'type');

  const ping = new FrameEncoder();
  ping.begin(0);
  ping.end(0x08, null);
  t.is(listener().feed(Buffer.concat(ping.take())), 'type');
});

test('all an unauthenticated peer can make a node take stays below the bound', (t) => {
  const listenerBound = headerBytes + maxHelloBytes + headerBytes + proofBytes;
  const diallerBound = headerBytes + maxHelloBytes + headerBytes + maxAnswerBytes;
  t.true(Math.max(listenerBound, diallerBound) <= maxHandshakeBytes);
  const hello = dialler().sent().subarray(0, headerBytes);
  hello.writeUInt32BE(maxHelloBytes + 1, 8);
  t.is(listener().feed(seal(hello)), 'bodyLength');
  hello.writeUInt32BE(100, 8);
  hello.writeUInt32BE(1, 12);
  t.is(listener().feed(seal(hello)), 'payloadLength');
});

test('names of 255 bytes are fine', (t) => {
  const name = 'n'.repeat(255);
  const a = dialler({ resourceName: name, nodeName: name });
  const b = listener({ resourceName: name, peerName: name });
  converse(a, b);
  t.is(reasonOf(a), 'accepted');
  t.is(reasonOf(b), 'accepted');
});

test('the secret is nowhere to be seen', (t) => {
  const auth = new PeerAuth('open sesame');
  t.notRegex(inspect(auth, { depth: 9, showHidden: true }) + JSON.stringify(auth), /sesame/);
  const a = dialler({ secret: 'open sesame' });
  const b = listener({ secret: 'close sesame' });
  const bytes = a.sent();
  b.feed(bytes);
  converse(a, b);
  t.notRegex(inspect([a.outcome, b.outcome], { depth: 9 }) + bytes.toString('latin1'), /sesame/);
});

test('a secret that is empty or endless is refused', (t) => {
  t.throws(() => new PeerAuth(''), { instanceOf: RangeError });
  t.throws(() => new PeerAuth('x'.repeat(1025)), { instanceOf: RangeError });
});
