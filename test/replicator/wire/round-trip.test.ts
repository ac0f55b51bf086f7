/** Any packet survives encoding and decoding, whatever the chunks. */
import test from 'ava';
import fc from 'fast-check';
import { afterSb1priWords, afterSb2priWords } from '../../../replicator/core/after-split-brain.ts';
import { refusalCodes } from '../../../replicator/core/refusal.ts';
import { limitReasons } from '../../../replicator/core/resync-rate.ts';
import type { Packet, PacketKind } from '../../../replicator/core/packet.ts';
import { diskStates, protocols, roles } from '../../../replicator/core/vocabulary.ts';
import { PacketDecoder, PacketEncoder } from '../../../replicator/wire/codec.ts';

type Arbitraries = {
  readonly [Kind in PacketKind]: fc.Arbitrary<Extract<Packet, { readonly kind: Kind }>>;
};

const number = fc.maxSafeNat();
const generation = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const history = fc.array(generation, { maxLength: 32 });
const offset = fc.nat({ max: 2 ** 31 - 1 }).map((blocks) => blocks * 4096 + (blocks % 7) * 512);
const length = fc.integer({ min: 1, max: 3000 });
const bool = fc.boolean();
const kind = <Kind extends PacketKind>(name: Kind) => fc.constant(name);
const text = fc.string({ unit: 'grapheme', maxLength: 20 });

const run = fc.record({ first: fc.nat({ max: 2 ** 31 - 1 }), count: fc.integer({ min: 1, max: 1 << 20 }) });
const ascendingRuns = fc
  .array(fc.record({ gap: fc.nat({ max: 1 << 30 }), count: fc.integer({ min: 1, max: 1 << 20 }) }), {
    maxLength: 50,
  })
  .map(ascending);

/** Of no more blocks than a payload has room for. */
const scatteredRuns = fc
  .array(fc.record({ gap: fc.nat({ max: 1 << 20 }), count: fc.integer({ min: 1, max: 100 }) }), {
    minLength: 1,
    maxLength: 80,
  })
  .map(ascending);

const arbitraries: Arbitraries = {
  state: fc.record({
    kind: kind('state'),
    state: fc.record({
      sizeBytes: number,
      protocol: fc.constantFrom(...protocols),
      role: fc.constantFrom(...roles),
      disk: fc.constantFrom(...diskStates),
      origin: fc.constantFrom('created-empty', 'created-with-data', 'settled'),
      current: generation,
      bitmap: fc.array(generation, { maxLength: 8 }),
      history,
      exposed: generation,
      writer: bool,
      crashedPrimary: bool,
      linked: bool,
      peerExcluded: bool,
      dirtyBlocks: fc.nat(),
      discardMyData: bool,
      partedAsPrimary: bool,
      'after-sb-0pri': fc.constantFrom('disconnect', 'discard-least-changes', 'discard-sorts-last'),
      'after-sb-1pri': fc.constantFrom(...afterSb1priWords),
      'after-sb-2pri': fc.constantFrom(...afterSb2priWords),
    }),
  }),
  bitmap: fc.record({ kind: kind('bitmap'), runs: ascendingRuns, last: bool }),
  syncStart: fc.record({ kind: kind('syncStart'), current: generation, history }),
  syncReady: fc.record({ kind: kind('syncReady') }),
  resyncRequest: fc.record({ kind: kind('resyncRequest'), id: number, offset, length }),
  resyncData: fc.record({ kind: kind('resyncData'), id: number, offset, length, zero: bool }),
  scatteredRequest: fc.record({ kind: kind('scatteredRequest'), id: number, runs: scatteredRuns }),
  scatteredData: fc.record({
    ...{ kind: kind('scatteredData'), id: number, runs: scatteredRuns, length, zero: bool },
  }),
  digestRequest: fc.record({ kind: kind('digestRequest'), id: number, offset, length, coarse: bool }),
  resyncSame: fc.record({ kind: kind('resyncSame'), id: number, runs: ascendingRuns }),
  verifyStart: fc.record({ kind: kind('verifyStart') }),
  verifyRequest: fc.record({
    ...{ kind: kind('verifyRequest'), id: number, offset, length, mark: bool, coarse: bool },
  }),
  verifyPoint: fc.record({ kind: kind('verifyPoint'), id: number }),
  verifyDigests: fc.record({ kind: kind('verifyDigests'), id: number }),
  verifyFailed: fc.record({ kind: kind('verifyFailed'), id: number }),
  verifyFound: fc.record({ kind: kind('verifyFound'), runs: ascendingRuns, last: bool }),
  verifyStop: fc.record({ kind: kind('verifyStop') }),
  verifyEnd: fc.record({ kind: kind('verifyEnd') }),
  resyncFailed: fc.record({ kind: kind('resyncFailed'), id: number }),
  resyncStable: fc.record({ kind: kind('resyncStable'), runs: fc.array(run, { maxLength: 50 }) }),
  syncFinished: fc.record({ kind: kind('syncFinished'), current: generation }),
  write: fc.record({
    kind: kind('write'),
    seq: number,
    op: fc.constantFrom('write', 'trim', 'zeroes'),
    offset,
    length,
    fua: bool,
    noHole: bool,
  }),
  received: fc.record({ kind: kind('received'), seq: number }),
  written: fc.record({ kind: kind('written'), seq: number }),
  writeFailed: fc.record({ kind: kind('writeFailed'), seq: number }),
  flush: fc.record({ kind: kind('flush'), epoch: number }),
  flushed: fc.record({ kind: kind('flushed'), epoch: number }),
  flushFailed: fc.record({ kind: kind('flushFailed'), epoch: number }),
  read: fc.record({ kind: kind('read'), id: number, offset, length }),
  readData: fc.record({ kind: kind('readData'), id: number }),
  readFailed: fc.record({ kind: kind('readFailed'), id: number }),
  newGeneration: fc.record({ kind: kind('newGeneration'), current: generation, history }),
  newGenerationDone: fc.record({ kind: kind('newGenerationDone'), current: generation }),
  peerDiskGone: fc.record({ kind: kind('peerDiskGone'), current: generation, history }),
  peerDiskGoneDone: fc.record({ kind: kind('peerDiskGoneDone'), current: generation }),
  diskState: fc.record({
    kind: kind('diskState'),
    disk: fc.constantFrom(...diskStates),
    role: fc.constantFrom(...roles),
  }),
  promoteRequest: fc.record({ kind: kind('promoteRequest'), id: number }),
  promoteReply: fc.record({ kind: kind('promoteReply'), id: number, granted: bool }),
  giveUpRequest: fc.record({ kind: kind('giveUpRequest'), id: number }),
  giveUpReply: fc.record({ kind: kind('giveUpReply'), id: number, granted: bool }),
  giveUpEnded: fc.record({ kind: kind('giveUpEnded') }),
  handoverRequest: fc.record({ kind: kind('handoverRequest'), id: number, force: bool, dryRun: bool }),
  handoverReply: fc.record({
    kind: kind('handoverReply'),
    id: number,
    refusal: fc.option(fc.record({ code: fc.constantFrom(...refusalCodes), reason: text, nextStep: text })),
  }),
  grow: fc.record({ kind: kind('grow'), id: number, sizeBytes: number }),
  grown: fc.record({
    kind: kind('grown'),
    id: number,
    refusal: fc.option(fc.record({ code: fc.constantFrom(...refusalCodes), reason: text, nextStep: text })),
  }),
  goodbye: fc.record({
    kind: kind('goodbye'),
    reason: fc.constantFrom('disconnect', 'shutdown', 'split-brain', 'reattach'),
    outdate: bool,
  }),
  refused: fc.record({ kind: kind('refused'), rule: text }),
  resyncPause: fc.record({ kind: kind('resyncPause'), paused: bool }),
  resyncLimit: fc.record({
    kind: kind('resyncLimit'),
    windowBytes: fc.integer({ min: 1 }),
    bytesPerSecond: fc.option(fc.integer({ min: 1 })),
    reason: fc.constantFrom(...limitReasons),
  }),
  invalidate: fc.record({ kind: kind('invalidate') }),
  ping: fc.record({ kind: kind('ping') }),
  pong: fc.record({ kind: kind('pong') }),
};

const packet: fc.Arbitrary<Packet> = fc.oneof(...Object.values<fc.Arbitrary<Packet>>(arbitraries));

function ascending(pairs: readonly { gap: number; count: number }[]): { first: number; count: number }[] {
  let end = 0;
  return pairs.map(({ gap, count }) => {
    const first = end + gap;
    end = first + count;
    return { first, count };
  });
}

function payloadOf(of: Packet, byte: number): Buffer | null {
  switch (of.kind) {
    case 'write':
      return of.op === 'write' ? Buffer.alloc(of.length, byte) : null;
    case 'resyncData':
    case 'scatteredData':
      return of.zero ? null : Buffer.alloc(of.length, byte);
    case 'readData':
      return Buffer.alloc(1 + byte, byte);
    case 'digestRequest':
      return Buffer.alloc(Math.ceil(of.length / (of.coarse ? 131072 : 4096)) * 32, byte);
    case 'verifyDigests':
      return Buffer.alloc((1 + (byte % 7)) * 32, byte);
    default:
      return null;
  }
}

test('any stream of packets, cut into any chunks, comes back as it was', (t) => {
  const cases = fc.tuple(
    fc.array(fc.tuple(packet, fc.nat({ max: 255 })), { maxLength: 20 }),
    fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 20 }),
  );
  fc.assert(
    fc.property(cases, ([packets, sizes]) => {
      const encoder = new PacketEncoder();
      const sent = packets.map(([of, byte]) => ({ packet: of, payload: payloadOf(of, byte) }));
      for (const { packet: of, payload } of sent) encoder.encode(of, payload);
      const stream = Buffer.concat(encoder.take());
      const got: unknown[] = [];
      const decoder = new PacketDecoder((of, payload) =>
        got.push({ packet: of, payload: payload === null ? null : Buffer.from(payload) }),
      );
      for (let at = 0, chunk = 0; at < stream.length; chunk++) {
        const size = sizes[chunk % sizes.length] ?? 1;
        if (decoder.feed(stream.subarray(at, at + size)) !== null) return false;
        at += size;
      }
      t.deepEqual(got, sent);
      return true;
    }),
    { numRuns: 150 },
  );
  t.pass();
});

test('garbage is an error or nothing, never an exception', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const decoder = new PacketDecoder(() => t.fail('something was delivered'));
      const error = decoder.feed(bytes);
      return bytes.length < 32 ? error === null : error?.field === 'magic';
    }),
    { numRuns: 200 },
  );
  t.pass();
});
