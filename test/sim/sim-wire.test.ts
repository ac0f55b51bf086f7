/** The production codec between simulated nodes: what is damaged on its way ends the session and is nothing else (W10). */
import test from 'ava';
import type { Packet, Payload } from '../../replicator/core/packet.ts';
import { runHistory } from './run.ts';
import { Prng } from './prng.ts';
import { SimDigests, SimPayload } from './sim-disk.ts';
import { inPieces, tamper, WireEnd } from './sim-wire.ts';
import type { Frame } from './sim-wire.ts';

const write: Packet = {
  ...{ kind: 'write', seq: 7, op: 'write', offset: 8192, length: 1024, fua: true, noHole: false },
};

interface Line {
  readonly heard: { readonly packet: Packet; readonly payload: Payload | null }[];
  send(
    packet: Packet,
    payload: Payload | null,
    damage?: (frame: Frame) => Frame,
  ): ReturnType<WireEnd['receive']>;
}

function makeLine(): Line {
  const heard: { packet: Packet; payload: Payload | null }[] = [];
  const [from, to] = [
    new WireEnd(() => undefined),
    new WireEnd((packet, payload) => heard.push({ packet, payload })),
  ];
  return {
    heard,
    send: (packet, payload, damage = (frame) => frame) => to.receive(damage(from.encode(packet, payload))),
  };
}

test('wire: packets and what they carry arrive as they were sent, in pieces of any size', (t) => {
  const prng = new Prng(1n);
  const line = makeLine();
  const sent: readonly (readonly [Packet, Payload | null])[] = [
    [write, new SimPayload(Uint32Array.of(5, 6))],
    [{ kind: 'resyncData', id: 1, offset: 4096, length: 4096, zero: true }, null],
    [{ kind: 'read', id: 2, offset: 512, length: 1536 }, null],
    [{ kind: 'readData', id: 2 }, SimPayload.of(3, 9)],
    [
      { kind: 'digestRequest', id: 3, offset: 0, length: 8192, coarse: false },
      SimDigests.of(new Uint32Array(16).fill(4), false),
    ],
    [
      { kind: 'digestRequest', id: 4, offset: 0, length: 33 * 4096, coarse: true },
      SimDigests.of(new Uint32Array(33 * 8).fill(4), true),
    ],
  ];
  for (const [packet, payload] of sent)
    t.deepEqual(
      line.send(packet, payload, (frame) => inPieces(frame, prng)),
      { error: null, complaint: null },
    );
  t.deepEqual(
    line.heard.map(({ packet }) => packet),
    sent.map(([packet]) => packet),
  );
  for (const [index, [, payload]] of sent.entries()) {
    const { payload: got } = line.heard[index] ?? { payload: null };
    t.is(got?.byteLength, payload?.byteLength);
    if (payload instanceof SimPayload && got instanceof SimPayload) t.deepEqual(got.sectors, payload.sectors);
  }
});

test('wire: one flipped bit, wherever it is, is an error, and nothing of the frame arrives', (t) => {
  const bits = makeFrameBytes() * 8;
  for (let bit = 0; bit < bits; bit++) {
    const line = makeLine();
    const { error, complaint } = line.send(write, SimPayload.of(2, 5), (frame) => flipped(frame, bit));
    t.is(complaint, null);
    t.not(error, null, `bit ${bit}`);
    t.is(line.heard.length, 0);
  }
});

test('wire: a frame that comes twice arrives once, and one cut short not at all', (t) => {
  const twice = makeLine();
  t.not(
    twice.send(write, SimPayload.of(2, 5), (frame) => tamper(frame, 'duplicate', new Prng(1n))).error,
    null,
  );
  t.is(twice.heard.length, 1);
  for (let seed = 1n; seed < 50n; seed++) {
    const short = makeLine();
    t.is(
      short.send(write, SimPayload.of(2, 5), (frame) => tamper(frame, 'truncate', new Prng(seed))).complaint,
      null,
    );
    short.send({ kind: 'ping' }, null);
    short.send(write, SimPayload.of(2, 5));
    // Nothing was on its way at all if the first byte was missing; else what follows cannot be told apart any more.
    t.true(short.heard.length === 0);
  }
});

test('wire: histories in which frames are damaged end well, and the damage shows', (t) => {
  let ended = 0;
  for (let seed = 1n; seed <= 6n; seed++) {
    const { failure } = runHistory(seed, {
      adapt: (plan) => ({
        ...plan,
        kind: 'pair',
        cluster: {
          ...plan.cluster,
          extraBytes: 0,
          wire: 'bytes',
          cores: [plan.cluster.cores[0], plan.cluster.cores[0]],
        },
        fate: { ...plan.fate, actions: ['corrupt'], intervalMs: 400 },
      }),
      trace: (line) => {
        if (/linkDown .*why=ProtocolError/.test(line)) ended++;
      },
    });
    t.is(failure, null, `seed ${seed}`);
  }
  t.true(ended > 20, `${ended} sessions ended by a frame that does not parse`);
});

function makeFrameBytes(): number {
  const { chunks } = new WireEnd(() => undefined).encode(write, SimPayload.of(2, 5));
  return chunks.reduce((sum, { length }) => sum + length, 0);
}

function flipped(frame: Frame, bit: number): Frame {
  const whole = Uint8Array.from(frame.chunks.flatMap((chunk) => [...chunk]));
  const at = bit >> 3;
  whole[at] = (whole[at] ?? 0) ^ (1 << (bit & 7));
  return { chunks: [whole], tampering: 'flip' };
}
