/** Two links over loopback: sessions, probes, supersession, damage on the way. */
import { createCipheriv, createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import test from 'ava';
import { alwaysDisconnect } from '../../replicator/core/after-split-brain.ts';
import type { PeerState } from '../../replicator/core/packet.ts';
import { maxUnauthenticated, PeerLink, stableSessionMs } from '../../replicator/shell/link.ts';
import type { PeerLinkHooks } from '../../replicator/shell/link.ts';
import { seal } from '../support/bitwise-crc32c.ts';
import { LinkRecorder } from '../support/link-recorder.ts';
import { connectPair, linkTimes, startPair, startSide } from '../support/link-pair.ts';

const state: PeerState = {
  sizeBytes: 1 << 30,
  protocol: 'C',
  role: 'Primary',
  disk: 'UpToDate',
  origin: 'settled',
  current: 5n,
  bitmap: [],
  history: [],
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

const write = (seq: number, payload: Uint8Array) =>
  ({
    kind: 'write',
    seq,
    op: 'write',
    offset: 0,
    length: payload.length,
    fua: false,
    noHole: false,
  }) as const;

test('a session comes up, packets and payloads go both ways in order', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.alpha.link.send(session.alpha, write(1, Buffer.from('hello')), Buffer.from('hello'));
  pair.alpha.link.send(session.alpha, { kind: 'flush', epoch: 1 }, null);
  pair.beta.link.send(session.beta, { kind: 'written', seq: 1 }, null);
  const [first, second] = [await pair.beta.seen.expect('packet'), await pair.beta.seen.expect('packet')];
  t.deepEqual(
    [first.packet, first.payload, first.session],
    [write(1, Buffer.from('hello')), 'hello', session.beta],
  );
  t.deepEqual(second.packet, { kind: 'flush', epoch: 1 });
  t.deepEqual((await pair.alpha.seen.expect('packet')).packet, { kind: 'written', seq: 1 });
});

test('a payload of many segments arrives whole, and the sender sees its buffer fill and drain', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  const payload = Buffer.alloc(8 * 1024 * 1024);
  for (let at = 0; at < payload.length; at += 4) payload.writeUInt32BE(at, at);
  const left = new Promise<void>((resolve) => {
    pair.alpha.link.send(session.alpha, write(1, payload), payload, resolve);
  });
  t.true(pair.alpha.link.bufferedBytes > payload.length);
  pair.alpha.link.flush();
  const got = await pair.beta.seen.expect('packet');
  // Not `is`: should they differ, its comparison of such strings takes for ever.
  t.true(got.payload === payload.toString('latin1'));
  await left;
  t.is(pair.alpha.link.bufferedBytes, 0);
});

test('a sender may write over its payloads once it is told that they have left, long and short', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  // More than the sockets on the way take, so that most of it waits in this process.
  const lengths = [100, 8 * 1024 * 1024, 4096, 300_000, 16 * 1024 * 1024];
  const left: number[] = [];
  const all = new Promise<void>((resolve) => {
    for (const [seq, length] of lengths.entries()) {
      const payload = Buffer.alloc(length, seq + 1);
      pair.alpha.link.send(session.alpha, write(seq, payload), payload, () => {
        payload.fill(0xff);
        if (left.push(seq) === lengths.length) resolve();
      });
    }
  });
  pair.alpha.link.flush();
  for (const [seq, length] of lengths.entries()) {
    const { packet, payload } = await pair.beta.seen.expect('packet');
    t.like(packet, { seq });
    t.true(payload === String.fromCharCode(seq + 1).repeat(length), `payload ${seq}`);
  }
  await all;
  t.deepEqual(left, [0, 1, 2, 3, 4]);
});

test('of a payload that has not left when the session ends, its sender is not told that it has', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.toBeta.freeze();
  const payload = Buffer.alloc(32 * 1024 * 1024);
  let told = 0;
  pair.alpha.link.send(session.alpha, write(1, payload), payload, () => told++);
  pair.alpha.link.flush();
  pair.alpha.link.send(session.alpha, write(2, payload), payload, () => told++);
  pair.toBeta.cut();
  await pair.alpha.seen.expect('down');
  pair.alpha.link.send(session.alpha, write(3, payload), payload, () => told++);
  await pair.alpha.link.stop();
  t.is(told, 0);
});

test('what came in one piece with others stays as it was delivered, though their memory is received into again', async (t) => {
  const kept: Uint8Array[] = [];
  // Alpha: who dials receives into memory of its own.
  const seen = new LinkRecorder();
  const hooks: PeerLinkHooks = {
    ...seen.hooks,
    arePayloadsSettled: () => true,
    onPacket: (number, packet, payload) => {
      if (payload !== null) kept.push(payload);
      seen.hooks.onPacket(number, packet, payload);
    },
  };
  const pair = await startPair(t, { alpha: { hooks } });
  pair.beta.link.setWanted(true);
  pair.alpha.link.setWanted(true);
  await seen.expect('up');
  const { session } = await pair.beta.seen.expect('up');
  const payloads = Array.from({ length: 40 }, (_, at) => Buffer.alloc(at % 6 < 3 ? 8192 : 50_000, at + 1));
  for (const [id, payload] of payloads.entries()) {
    pair.beta.link.send(session, { kind: 'readData', id }, payload);
    // One after the other: each arrives in the memory of the one before, if that is used again.
    if (id % 3 === 2) pair.beta.link.flush();
    if (id % 3 === 2) for (let got = 0; got < 3; got++) await seen.expect('packet');
  }
  await seen.expect('packet');
  t.deepEqual(
    kept.map((payload) => Buffer.from(payload)),
    payloads,
  );
});

test('all packets of one turn leave together, in order, without a flush being asked for', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  for (let seq = 0; seq < 500; seq++) pair.alpha.link.send(session.alpha, { kind: 'written', seq }, null);
  t.is(pair.alpha.link.bufferedBytes, 500 * 40);
  for (let seq = 0; seq < 500; seq++) {
    t.deepEqual((await pair.beta.seen.expect('packet')).packet, { kind: 'written', seq });
  }
});

test('what several callbacks send leaves when its owner says that the turn is over', async (t) => {
  let end = (): void => undefined;
  const atTurnEnd = (then: () => void): void => void (end = then);
  const pair = await startPair(t, { alpha: { atTurnEnd } });
  const session = await connectPair(pair);
  const { link } = pair.alpha;
  link.send(session.alpha, { kind: 'written', seq: 0 }, null);
  await new Promise((resolve) => setImmediate(resolve));
  link.send(session.alpha, { kind: 'written', seq: 1 }, null);
  t.is(link.bufferedBytes, 2 * 40);
  end();
  for (const seq of [0, 1])
    t.deepEqual((await pair.beta.seen.expect('packet')).packet, { kind: 'written', seq });
});

test('what is sent from within onPacket leaves as well', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.beta.seen.onEvent = (event) => {
    if (event.kind === 'packet') pair.beta.link.send(event.session, { kind: 'pong' }, null);
  };
  pair.alpha.link.send(session.alpha, { kind: 'ping' }, null);
  t.deepEqual((await pair.alpha.seen.expect('packet')).packet, { kind: 'pong' });
});

test('a cut connection is reported on both sides and dialled again', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.alpha.clock.advance(stableSessionMs);
  pair.toBeta.cut();
  t.is((await pair.alpha.seen.expect('down')).session, session.alpha);
  t.is((await pair.beta.seen.expect('down')).session, session.beta);
  // The session had lasted, so the first attempt is made at once; the proxy refuses it.
  await pair.alpha.seen.expect('refused');
  pair.toBeta.heal();
  t.deepEqual(pair.alpha.clock.waiting, [100]);
  pair.alpha.clock.advance(100);
  t.is((await pair.alpha.seen.expect('up')).session, session.alpha + 1);
  t.is((await pair.beta.seen.expect('up')).session, session.beta + 1);
});

test('attempts become rarer, up to the connect interval', async (t) => {
  const pair = await startPair(t);
  pair.toBeta.cut();
  pair.alpha.link.setWanted(true);
  for (const waitMs of [100, 200, 400, 800, 1000, 1000]) {
    await pair.alpha.seen.expect('refused');
    t.deepEqual(pair.alpha.clock.waiting, [waitMs]);
    pair.alpha.clock.advance(waitMs);
  }
  await pair.alpha.seen.expect('refused');
});

test('a session that fails at once is not dialled again at once', async (t) => {
  const pair = await startPair(t);
  await connectPair(pair);
  pair.toBeta.cut();
  await pair.alpha.seen.expect('down');
  t.deepEqual(pair.alpha.clock.waiting, [100]);
});

test('a new session supersedes one the other side still believes in, which ends first', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.toBeta.freeze();
  pair.alpha.link.closeSession(session.alpha, 'Timeout');
  pair.alpha.clock.advance(100);
  t.is((await pair.alpha.seen.expect('up')).session, session.alpha + 1);
  const down = await pair.beta.seen.expect('down');
  t.deepEqual([down.session, down.why], [session.beta, 'NetworkFailure']);
  t.is((await pair.beta.seen.expect('up')).session, session.beta + 1);
  // The new one works, and packets for the old one go nowhere.
  pair.beta.link.send(session.beta, { kind: 'ping' }, null);
  pair.beta.link.send(session.beta + 1, { kind: 'pong' }, null);
  const got = await pair.alpha.seen.expect('packet');
  t.deepEqual([got.session, got.packet], [session.alpha + 1, { kind: 'pong' }]);
});

test('a flipped byte ends the session on the side that sees it, and nothing from it on is delivered', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.alpha.link.send(session.alpha, { kind: 'written', seq: 1 }, null);
  await pair.beta.seen.expect('packet');
  // The second packet of the next three is hit in its body.
  pair.toBeta.corrupt('toTarget', 40 + 35);
  for (const seq of [2, 3, 4]) pair.alpha.link.send(session.alpha, { kind: 'written', seq }, null);
  t.deepEqual((await pair.beta.seen.expect('packet')).packet, { kind: 'written', seq: 2 });
  const down = await pair.beta.seen.expect('down');
  t.deepEqual([down.session, down.why], [session.beta, 'ProtocolError']);
  t.regex(down.detail, /contentCrc/);
  t.is((await pair.alpha.seen.expect('down')).session, session.alpha);
  t.deepEqual(pair.beta.seen.events, []);
});

test('closeSession: what was sent before arrives, then the end; nothing is heard of the session here', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.alpha.link.setWanted(false);
  const payload = Buffer.alloc(4 * 1024 * 1024, 'x');
  pair.alpha.link.send(session.alpha, write(1, payload), payload);
  pair.alpha.link.send(session.alpha, { kind: 'goodbye', reason: 'disconnect', outdate: false }, null);
  pair.alpha.link.closeSession(session.alpha, 'TearDown');
  // Whatever beta says from now on is not heard, and a send goes nowhere.
  pair.beta.link.send(session.beta, { kind: 'ping' }, null);
  pair.alpha.link.send(session.alpha, { kind: 'ping' }, null);
  t.is((await pair.beta.seen.expect('packet')).payload?.length, payload.length);
  t.is((await pair.beta.seen.expect('packet')).packet.kind, 'goodbye');
  const down = await pair.beta.seen.expect('down');
  t.is(down.why, 'BrokenPipe');
  await pair.alpha.link.stop();
  t.deepEqual(pair.alpha.seen.events, []);
});

test('closeSession does not wait forever for a peer that takes nothing', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.alpha.link.setWanted(false);
  pair.toBeta.freeze();
  pair.alpha.link.send(session.alpha, { kind: 'goodbye', reason: 'shutdown', outdate: false }, null);
  pair.alpha.link.closeSession(session.alpha, 'TearDown');
  t.deepEqual(pair.alpha.clock.waiting, [2000]);
  const stopped = pair.alpha.link.stop();
  pair.alpha.clock.advance(2000);
  await stopped;
  t.pass();
});

test('a session closed while packets are being delivered delivers no more of them', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  pair.beta.seen.onEvent = (event) => {
    if (event.kind === 'packet') pair.beta.link.closeSession(event.session, 'TearDown');
  };
  for (let seq = 0; seq < 100; seq++) pair.alpha.link.send(session.alpha, { kind: 'written', seq }, null);
  t.deepEqual((await pair.beta.seen.expect('packet')).packet, { kind: 'written', seq: 0 });
  await pair.alpha.seen.expect('down');
  t.deepEqual(pair.beta.seen.events, []);
});

test('a peer that leaves too much unread is lost', async (t) => {
  const pair = await startPair(t, { alpha: { maxBufferedBytes: 1024 * 1024 } });
  const session = await connectPair(pair);
  const payload = Buffer.alloc(2 * 1024 * 1024);
  pair.alpha.link.send(session.alpha, write(1, payload), payload);
  t.deepEqual(pair.alpha.seen.events, []);
  const down = await pair.alpha.seen.expect('down');
  t.is(down.why, 'NetworkFailure');
  t.regex(down.detail, /unread/);
});

test('probe: answered from either side, with and without a session, with the state published last', async (t) => {
  const pair = await startPair(t);
  pair.alpha.link.publishState({ ...state, role: 'Secondary' });
  pair.beta.link.publishState(state);
  t.deepEqual(await pair.alpha.link.probe(), { kind: 'answered', state });
  await connectPair(pair);
  t.deepEqual(await pair.alpha.link.probe(), { kind: 'answered', state });
  t.deepEqual(await pair.beta.link.probe(), { kind: 'answered', state: { ...state, role: 'Secondary' } });
  pair.beta.link.publishState({ ...state, dirtyBlocks: 9 });
  t.deepEqual(await pair.alpha.link.probe(), { kind: 'answered', state: { ...state, dirtyBlocks: 9 } });
  t.deepEqual(pair.alpha.seen.events, []);
  t.deepEqual(pair.beta.seen.events, []);
});

test('probe: unreachable while nothing was published, when refused, cut off or silent', async (t) => {
  const pair = await startPair(t);
  const early = await pair.alpha.link.probe();
  t.regex(early.kind === 'unreachable' ? early.detail : '', /no-state/);
  pair.beta.link.publishState(state);

  pair.toBeta.cut();
  t.is((await pair.alpha.link.probe()).kind, 'unreachable');
  pair.toBeta.heal();

  pair.toBeta.freeze({ includeNew: true });
  const silent = pair.alpha.link.probe();
  pair.alpha.clock.advance(linkTimes.probeTimeoutMs);
  const outcome = await silent;
  t.regex(outcome.kind === 'unreachable' ? outcome.detail : '', /within 300 ms/);
  pair.toBeta.heal();
  t.is((await pair.alpha.link.probe()).kind, 'answered');
});

test('probe: a link that stops ends it', async (t) => {
  const pair = await startPair(t);
  pair.toBeta.freeze({ includeNew: true });
  const probe = pair.alpha.link.probe();
  await pair.alpha.link.stop();
  t.deepEqual(await probe, { kind: 'unreachable', detail: 'this node is stopping' });
});

test('stand-alone: sessions are refused, probes are answered, a session later is possible', async (t) => {
  const pair = await startPair(t);
  pair.beta.link.publishState(state);
  pair.alpha.link.setWanted(true);
  t.regex((await pair.alpha.seen.expect('refused')).detail, /^stand-alone: beta is StandAlone/);
  t.is((await pair.alpha.link.probe()).kind, 'answered');
  pair.beta.link.setWanted(true);
  pair.alpha.clock.advance(100);
  await pair.alpha.seen.expect('up');
  await pair.beta.seen.expect('up');
  t.deepEqual(pair.beta.seen.events, []);
});

test('setWanted(false) gives up an attempt to connect, and an existing session is not touched', async (t) => {
  const pair = await startPair(t);
  pair.toBeta.cut();
  pair.alpha.link.setWanted(true);
  await pair.alpha.seen.expect('refused');
  pair.alpha.link.setWanted(false);
  t.deepEqual(pair.alpha.clock.waiting, []);
  pair.toBeta.heal();
  const session = await connectPair(pair);
  pair.alpha.link.setWanted(false);
  pair.beta.link.setWanted(false);
  pair.alpha.link.send(session.alpha, { kind: 'ping' }, null);
  await pair.beta.seen.expect('packet');
});

test('another secret: both sides say so, and the dialler tries again', async (t) => {
  const pair = await startPair(t, { beta: { secret: 'simsalabim' } });
  pair.beta.link.setWanted(true);
  pair.beta.link.publishState(state);
  pair.alpha.link.setWanted(true);
  const here = await pair.alpha.seen.expect('refused');
  const there = await pair.beta.seen.expect('refused');
  t.regex(here.detail, /^authentication-failed/);
  t.regex(there.detail, /authentication-failed/);
  t.notRegex(here.detail + there.detail, /sesame|simsalabim/);
  const probe = await pair.alpha.link.probe();
  t.regex(probe.kind === 'unreachable' ? probe.detail : '', /^authentication-failed/);
  t.true(pair.alpha.clock.waiting.includes(100));
});

test('the node whose name sorts last does not dial, and the one that dials accepts no session', async (t) => {
  const pair = await startPair(t);
  pair.beta.link.setWanted(true);
  t.deepEqual(pair.beta.clock.waiting, []);

  pair.alpha.link.setWanted(false);
  const { socket, answer, accepted } = await dialByHand(pair.alpha.port, 'beta', 'alpha');
  t.notDeepEqual(answer, accepted);
  t.is(answer.subarray(32).toString('hex'), '0303', 'refused, wrong-direction');
  socket.destroy();
});

test('start: an address in use is a value', async (t) => {
  const pair = await startPair(t);
  const second = new PeerLink({
    resourceName: 'r1',
    nodeName: 'alpha',
    peerName: 'beta',
    secret: 'sesame',
    listen: { host: '127.0.0.1', port: pair.alpha.port },
    peerAddress: { host: '127.0.0.1', port: 1 },
    ...linkTimes,
    hooks: pair.alpha.seen.hooks,
  });
  const result = await second.start();
  t.like(result, { ok: false, reason: 'address-in-use' });
  await second.stop();
});

test('stop: every socket and timer is gone, and no hook is called any more', async (t) => {
  const pair = await startPair(t);
  await connectPair(pair);
  await pair.beta.link.stop();
  await pair.alpha.seen.expect('down');
  t.deepEqual(pair.beta.clock.waiting, []);
  t.deepEqual(pair.beta.seen.events, []);
  const refused = connect(pair.beta.port, '127.0.0.1');
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
  t.is(error.code, 'ECONNREFUSED');
});

test('an incoming connection that sends its bytes too slowly is ended at the deadline', async (t) => {
  const { link, clock, seen, port } = await startSide(t, 'beta', 'alpha', 1);
  link.setWanted(true);
  const slow = connect(port, '127.0.0.1');
  slow.write(Buffer.from('4c4b5350e0', 'hex'));
  await until(() => clock.waiting.length === 1);
  clock.advance(linkTimes.handshakeTimeoutMs - 1);
  slow.write(Buffer.from('00', 'hex'));
  clock.advance(1);
  await closed(slow);
  t.regex((await seen.expect('refused')).detail, /did not prove itself within 700 ms/);
  t.deepEqual(clock.waiting, []);
});

test('a dialler whose peer accepts and then says nothing gives up at the deadline', async (t) => {
  const silent = createServer((socket) => socket.resume().on('error', () => undefined)).listen(
    0,
    '127.0.0.1',
  );
  await once(silent, 'listening');
  const address = silent.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const { link, clock, seen } = await startSide(t, 'alpha', 'beta', port);
  const connected = once(silent, 'connection');
  link.setWanted(true);
  await connected;
  clock.advance(linkTimes.handshakeTimeoutMs);
  t.regex((await seen.expect('refused')).detail, /did not answer within 700 ms/);
  t.deepEqual(clock.waiting, [100]);
  silent.close();
});

test('garbage closes its connection and nothing else', async (t) => {
  const pair = await startPair(t);
  const session = await connectPair(pair);
  const garbage = connect(pair.beta.port, '127.0.0.1');
  garbage.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await closed(garbage);
  t.regex((await pair.beta.seen.expect('refused')).detail, /magic/);
  pair.alpha.link.send(session.alpha, { kind: 'ping' }, null);
  t.is((await pair.beta.seen.expect('packet')).session, session.beta);
});

test('connections that prove nothing are bounded, and do not keep the peer out', async (t) => {
  const pair = await startPair(t);
  const idle = Array.from({ length: maxUnauthenticated }, () => connect(pair.beta.port, '127.0.0.1'));
  const firstOut = Promise.race(idle.map(closed));
  // One deadline runs for each connection that has arrived.
  await until(() => pair.beta.clock.waiting.length === maxUnauthenticated);
  await connectPair(pair);
  await firstOut;
  await until(() => pair.beta.clock.waiting.length === maxUnauthenticated - 1);
  for (const socket of idle) socket.destroy();
  t.pass();
});

test('a dialler made by hand from the protocol page is accepted', async (t) => {
  const { link, seen, port } = await startSide(t, 'beta', 'alpha', 1);
  link.setWanted(true);
  const { socket, answer, accepted, hashByHand } = await dialByHand(port, 'alpha', 'beta');
  t.deepEqual(answer, accepted);
  const { session } = await seen.expect('up');

  socket.write(frame(0x12, 2, Buffer.from('0000000000000009', 'hex')));
  t.deepEqual(await seen.expect('packet'), {
    kind: 'packet',
    session,
    packet: { kind: 'written', seq: 9 },
    payload: null,
  });
  const into = Buffer.alloc(32);
  link.coarseHash?.write(Buffer.alloc(131072, 3), into, 0);
  t.deepEqual(into, hashByHand(Buffer.alloc(131072, 3)));
  socket.destroy();
  await seen.expect('down');
});

/** A dialler written from the protocol page, with nothing of ours in it. */
async function dialByHand(port: number, nodeName: string, peerName: string) {
  const name = (text: string) => Buffer.concat([Buffer.from([0, text.length]), Buffer.from(text)]);
  const fixed = Buffer.from('00020002' + '01' + '00' + '00000000', 'hex');
  const hello = Buffer.concat([fixed, Buffer.alloc(32, 7), name('r0'), name(nodeName), name(peerName)]);
  const socket = connect(port, '127.0.0.1');
  socket.write(frame(0xe0, 0, hello));
  const theirs = await readFrame(socket, 0xe0);
  if (!theirs.subarray(0, 10).equals(fixed)) throw new Error(`hello ${theirs.toString('hex')}`);
  if (!theirs.subarray(42).equals(Buffer.concat([name('r0'), name(peerName), name(nodeName)]))) {
    throw new Error(`names ${theirs.subarray(42).toString('latin1')}`);
  }
  const transcript = Buffer.concat([u32(hello.length), hello, u32(theirs.length), theirs]);
  const prove = (label: string, bytes: Uint8Array) =>
    createHmac('sha256', createHmac('sha256', 'sesame').update(label).digest()).update(bytes).digest();
  socket.write(frame(0xe1, 1, prove('lockstep peer 1: dialler', transcript)));
  const answer = await readFrame(socket, 0xe2);
  const verdict = Buffer.from('01', 'hex');
  const proof = prove('lockstep peer 1: listener', Buffer.concat([transcript, u32(1), verdict]));
  const hashByHand = (data: Uint8Array): Buffer => {
    const mac = createCipheriv(
      'aes-256-gcm',
      prove('lockstep peer 1: coarse hash mac', transcript),
      Buffer.alloc(12),
    );
    mac.setAAD(data).final();
    return createHash('sha256')
      .update(prove('lockstep peer 1: coarse hash function', transcript))
      .update(mac.getAuthTag())
      .digest();
  };
  return { socket, answer, accepted: Buffer.concat([proof, verdict]), hashByHand };
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function frame(type: number, sequence: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(32);
  header.write('LKSP');
  header.writeUInt8(type, 4);
  header.writeUInt32BE(body.length, 8);
  header.writeUInt32BE(sequence, 20);
  return seal(Buffer.concat([header, body]));
}

/** Resolves when the socket is gone, by an end or by a reset. */
async function closed(socket: Socket): Promise<void> {
  socket.resume().on('error', () => undefined);
  await new Promise<void>((resolve) => socket.once('close', () => resolve()));
}

/** Reads one frame of this type, without payload; returns its body. */
async function readFrame(socket: Socket, type: number): Promise<Buffer> {
  const take = async (count: number): Promise<Buffer> => {
    for (;;) {
      const bytes: unknown = socket.read(count);
      if (Buffer.isBuffer(bytes) && bytes.length === count) return bytes;
      if (socket.readableEnded || socket.destroyed) throw new Error('the connection was closed');
      await once(socket, 'readable');
    }
  };
  const header = await take(32);
  if (header.readUInt8(4) !== type) throw new Error(`a frame of type ${header.readUInt8(4)}`);
  return take(header.readUInt32BE(8));
}

/** Lets the event loop turn until something has happened in this process; what is awaited is not a matter of time. */
async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await new Promise((resolve) => setImmediate(resolve));
}
