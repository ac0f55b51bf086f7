/** The body of every packet kind: its bounds, how it is written, how it is read. One entry per kind, none missing. */
import { maxHistory } from '../core/metadata.ts';
import type { BlockRun, Packet, PacketKind } from '../core/packet.ts';
import { blocksIn, digestsBytes } from '../core/blocks.ts';
import { blockBytes, digestBytes, maxPayloadBytes } from '../core/vocabulary.ts';
import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import { maxRuleBytes, maxRunsPerPacket } from './constants.ts';
import * as fields from './fields.ts';

export type PacketOf<Kind extends PacketKind> = Extract<Packet, { readonly kind: Kind }>;

export interface PacketBody<Kind extends PacketKind> {
  readonly bodyBytesMin: number;
  readonly bodyBytesMax: number;
  readonly payloadBytesMax: number;
  /** Bytes to reserve for this packet's body; absent: `bodyBytesMax`. */
  readonly bodyBytes?: (packet: PacketOf<Kind>) => number;
  /** Bytes of payload that belong to this packet; absent: none. */
  readonly payloadBytes?: (packet: PacketOf<Kind>) => number;
  write(writer: ByteWriter, packet: PacketOf<Kind>): void;
  read(reader: ByteReader, payloadLength: number): PacketOf<Kind>;
}

const fuaFlag = 1;
const noHoleFlag = 2;

/** A kind that says all by itself. */
type BareKind =
  'syncReady' | 'invalidate' | 'giveUpEnded' | 'verifyStart' | 'verifyStop' | 'verifyEnd' | 'ping' | 'pong';
function bare<Kind extends BareKind>(packet: PacketOf<Kind>): PacketBody<Kind> {
  return { ...exactly(0), write: () => undefined, read: () => packet };
}

function exactly(bytes: number): { bodyBytesMin: number; bodyBytesMax: number; payloadBytesMax: number } {
  return { bodyBytesMin: bytes, bodyBytesMax: bytes, payloadBytesMax: 0 };
}

const maxDigestsBytes = digestsBytes(maxPayloadBytes, false);
const bitmapBytesMax = 1 + fields.runsBytesMax(maxRunsPerPacket);
/** Of the runs in one packet that lie apart: no more than their data has room for in a payload. */
const maxScatteredBlocks = maxPayloadBytes / blockBytes;
const scatteredBounds = {
  bodyBytesMin: 9,
  bodyBytesMax: 8 + fields.runsBytesMax(maxScatteredBlocks),
  payloadBytesMax: 0,
};
const lineageBounds = {
  bodyBytesMin: 8 + fields.generationsBytesMax(0),
  bodyBytesMax: 8 + fields.generationsBytesMax(maxHistory),
  payloadBytesMax: 0,
};

export const packetBodies: { readonly [Kind in PacketKind]: PacketBody<Kind> } = {
  state: {
    bodyBytesMin: fields.peerStateBytesMin,
    bodyBytesMax: fields.peerStateBytesMax,
    payloadBytesMax: 0,
    write: (writer, packet) => fields.writePeerState(writer, packet.state),
    read: (reader) => ({ kind: 'state', state: fields.readPeerState(reader) }),
  },
  bitmap: {
    bodyBytesMin: 2,
    bodyBytesMax: bitmapBytesMax,
    payloadBytesMax: 0,
    bodyBytes: (packet) => 1 + fields.runsBytesMax(packet.runs.length),
    write(writer, packet) {
      writer.bool(packet.last);
      fields.writeAscendingRuns(writer, packet.runs);
    },
    read(reader) {
      const last = reader.bool('last');
      return { kind: 'bitmap', runs: fields.readAscendingRuns(reader), last };
    },
  },
  syncStart: {
    ...lineageBounds,
    write: writeLineage,
    read: (reader) => ({ kind: 'syncStart', ...readLineage(reader) }),
  },
  syncReady: bare({ kind: 'syncReady' }),
  resyncRequest: {
    ...exactly(24),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.offset);
      writer.u64(packet.length);
    },
    read(reader) {
      const id = reader.u64('id');
      const offset = reader.u64('offset');
      return { kind: 'resyncRequest', id, offset, length: readLength(reader, offset, maxPayloadBytes) };
    },
  },
  resyncData: {
    ...exactly(25),
    payloadBytesMax: maxPayloadBytes,
    payloadBytes: (packet) => (packet.zero ? 0 : packet.length),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.offset);
      writer.u64(packet.length);
      writer.bool(packet.zero);
    },
    read(reader, payloadLength) {
      const id = reader.u64('id');
      const offset = reader.u64('offset');
      const length = readLength(reader, offset, maxPayloadBytes);
      const zero = reader.bool('zero');
      checkPayload(reader, zero ? 0 : length, payloadLength);
      return { kind: 'resyncData', id, offset, length, zero };
    },
  },
  scatteredRequest: {
    ...scatteredBounds,
    bodyBytes: (packet) => 8 + fields.runsBytesMax(packet.runs.length),
    write(writer, packet) {
      writer.u64(packet.id);
      fields.writeAscendingRuns(writer, packet.runs);
    },
    read(reader) {
      const id = reader.u64('id');
      return { kind: 'scatteredRequest', id, runs: readScattered(reader) };
    },
  },
  scatteredData: {
    bodyBytesMin: scatteredBounds.bodyBytesMin + 9,
    bodyBytesMax: scatteredBounds.bodyBytesMax + 9,
    payloadBytesMax: maxPayloadBytes,
    bodyBytes: (packet) => 17 + fields.runsBytesMax(packet.runs.length),
    payloadBytes: (packet) => (packet.zero ? 0 : packet.length),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.length);
      writer.bool(packet.zero);
      fields.writeAscendingRuns(writer, packet.runs);
    },
    read(reader, payloadLength) {
      const id = reader.u64('id');
      const length = readLength(reader, 0, maxPayloadBytes);
      const zero = reader.bool('zero');
      checkPayload(reader, zero ? 0 : length, payloadLength);
      return { kind: 'scatteredData', id, runs: readScattered(reader), length, zero };
    },
  },
  digestRequest: {
    ...exactly(25),
    payloadBytesMax: maxDigestsBytes,
    payloadBytes: (packet) => digestsBytes(packet.length, packet.coarse),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.offset);
      writer.u64(packet.length);
      writer.bool(packet.coarse);
    },
    read(reader, payloadLength) {
      const id = reader.u64('id');
      const offset = reader.u64('offset');
      const length = readLength(reader, offset, maxPayloadBytes);
      const coarse = reader.bool('coarse');
      checkPayload(reader, digestsBytes(length, coarse), payloadLength);
      return { kind: 'digestRequest', id, offset, length, coarse };
    },
  },
  resyncSame: {
    bodyBytesMin: 9,
    bodyBytesMax: 8 + fields.runsBytesMax(maxRunsPerPacket),
    payloadBytesMax: 0,
    bodyBytes: (packet) => 8 + fields.runsBytesMax(packet.runs.length),
    write(writer, packet) {
      writer.u64(packet.id);
      fields.writeAscendingRuns(writer, packet.runs);
    },
    read(reader) {
      const id = reader.u64('id');
      return { kind: 'resyncSame', id, runs: fields.readAscendingRuns(reader) };
    },
  },
  resyncFailed: numbered(
    'resyncFailed',
    'id',
    (id) => ({ kind: 'resyncFailed', id }),
    (packet) => packet.id,
  ),
  resyncStable: {
    bodyBytesMin: 1,
    bodyBytesMax: fields.runsBytesMax(maxRunsPerPacket),
    payloadBytesMax: 0,
    bodyBytes: (packet) => fields.runsBytesMax(packet.runs.length),
    write: (writer, packet) => fields.writeRuns(writer, packet.runs),
    read: (reader) => ({ kind: 'resyncStable', runs: fields.readRuns(reader) }),
  },
  syncFinished: {
    ...exactly(8),
    write: (writer, packet) => writer.generation(packet.current),
    read: (reader) => ({ kind: 'syncFinished', current: reader.generation('current') }),
  },
  write: {
    ...exactly(26),
    payloadBytesMax: maxPayloadBytes,
    payloadBytes: (packet) => (packet.op === 'write' ? packet.length : 0),
    write(writer, packet) {
      writer.u64(packet.seq);
      writer.u64(packet.offset);
      writer.u64(packet.length);
      fields.mirrorOpCodes.write(writer, packet.op);
      writer.u8((packet.fua ? fuaFlag : 0) | (packet.noHole ? noHoleFlag : 0));
    },
    read(reader, payloadLength) {
      const seq = reader.u64('seq');
      const offset = reader.u64('offset');
      const length = readLength(reader, offset, Number.MAX_SAFE_INTEGER);
      const op = fields.mirrorOpCodes.read(reader, 'op');
      const flags = reader.flags('flags', fuaFlag | noHoleFlag);
      checkPayload(reader, op === 'write' ? length : 0, payloadLength);
      return {
        kind: 'write',
        seq,
        op,
        offset,
        length,
        fua: (flags & fuaFlag) !== 0,
        noHole: (flags & noHoleFlag) !== 0,
      };
    },
  },
  received: numbered(
    'received',
    'seq',
    (seq) => ({ kind: 'received', seq }),
    (packet) => packet.seq,
  ),
  written: numbered(
    'written',
    'seq',
    (seq) => ({ kind: 'written', seq }),
    (packet) => packet.seq,
  ),
  writeFailed: numbered(
    'writeFailed',
    'seq',
    (seq) => ({ kind: 'writeFailed', seq }),
    (packet) => packet.seq,
  ),
  flush: numbered(
    'flush',
    'epoch',
    (epoch) => ({ kind: 'flush', epoch }),
    (packet) => packet.epoch,
  ),
  flushed: numbered(
    'flushed',
    'epoch',
    (epoch) => ({ kind: 'flushed', epoch }),
    (packet) => packet.epoch,
  ),
  flushFailed: numbered(
    'flushFailed',
    'epoch',
    (epoch) => ({ kind: 'flushFailed', epoch }),
    (packet) => packet.epoch,
  ),
  read: {
    ...exactly(24),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.offset);
      writer.u64(packet.length);
    },
    read(reader) {
      const id = reader.u64('id');
      const offset = reader.u64('offset');
      return { kind: 'read', id, offset, length: readLength(reader, offset, maxPayloadBytes) };
    },
  },
  readData: {
    ...exactly(8),
    payloadBytesMax: maxPayloadBytes,
    write: (writer, packet) => writer.u64(packet.id),
    read(reader, payloadLength) {
      if (payloadLength === 0) throw reader.error('payload', 'is missing');
      return { kind: 'readData', id: reader.u64('id') };
    },
  },
  readFailed: numbered(
    'readFailed',
    'id',
    (id) => ({ kind: 'readFailed', id }),
    (packet) => packet.id,
  ),
  newGeneration: {
    ...lineageBounds,
    write: writeLineage,
    read: (reader) => ({ kind: 'newGeneration', ...readLineage(reader) }),
  },
  newGenerationDone: {
    ...exactly(8),
    write: (writer, packet) => writer.generation(packet.current),
    read: (reader) => ({ kind: 'newGenerationDone', current: reader.generation('current') }),
  },
  peerDiskGone: {
    ...lineageBounds,
    write: writeLineage,
    read: (reader) => ({ kind: 'peerDiskGone', ...readLineage(reader) }),
  },
  peerDiskGoneDone: {
    ...exactly(8),
    write: (writer, packet) => writer.generation(packet.current),
    read: (reader) => ({ kind: 'peerDiskGoneDone', current: reader.generation('current') }),
  },
  diskState: {
    ...exactly(2),
    write(writer, packet) {
      fields.diskCodes.write(writer, packet.disk);
      fields.roleCodes.write(writer, packet.role);
    },
    read(reader) {
      const disk = fields.diskCodes.read(reader, 'disk');
      return { kind: 'diskState', disk, role: fields.roleCodes.read(reader, 'role') };
    },
  },
  promoteRequest: numbered(
    'promoteRequest',
    'id',
    (id) => ({ kind: 'promoteRequest', id }),
    (packet) => packet.id,
  ),
  promoteReply: {
    ...exactly(9),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.bool(packet.granted);
    },
    read(reader) {
      const id = reader.u64('id');
      return { kind: 'promoteReply', id, granted: reader.bool('granted') };
    },
  },
  handoverRequest: {
    ...exactly(10),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.bool(packet.force);
      writer.bool(packet.dryRun);
    },
    read(reader) {
      const id = reader.u64('id');
      const force = reader.bool('force');
      return { kind: 'handoverRequest', id, force, dryRun: reader.bool('dryRun') };
    },
  },
  handoverReply: {
    bodyBytesMin: 9,
    bodyBytesMax: 9 + fields.refusalBytesMax,
    payloadBytesMax: 0,
    write(writer, packet) {
      writer.u64(packet.id);
      writer.bool(packet.refusal !== null);
      if (packet.refusal !== null) fields.writeRefusal(writer, packet.refusal);
    },
    read(reader) {
      const id = reader.u64('id');
      const isRefused = reader.bool('refused');
      return { kind: 'handoverReply', id, refusal: isRefused ? fields.readRefusal(reader) : null };
    },
  },
  giveUpRequest: numbered(
    'giveUpRequest',
    'id',
    (id) => ({ kind: 'giveUpRequest', id }),
    (packet) => packet.id,
  ),
  giveUpReply: {
    ...exactly(9),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.bool(packet.granted);
    },
    read(reader) {
      const id = reader.u64('id');
      return { kind: 'giveUpReply', id, granted: reader.bool('granted') };
    },
  },
  giveUpEnded: bare({ kind: 'giveUpEnded' }),
  goodbye: {
    ...exactly(2),
    write(writer, packet) {
      fields.goodbyeCodes.write(writer, packet.reason);
      writer.bool(packet.outdate);
    },
    read(reader) {
      const reason = fields.goodbyeCodes.read(reader, 'reason');
      return { kind: 'goodbye', reason, outdate: reader.bool('outdate') };
    },
  },
  refused: {
    bodyBytesMin: 2,
    bodyBytesMax: 2 + maxRuleBytes,
    payloadBytesMax: 0,
    write: (writer, packet) => writer.text(packet.rule, maxRuleBytes),
    read: (reader) => ({ kind: 'refused', rule: reader.text('rule', maxRuleBytes) }),
  },
  resyncPause: {
    ...exactly(1),
    write: (writer, packet) => writer.bool(packet.paused),
    read: (reader) => ({ kind: 'resyncPause', paused: reader.bool('paused') }),
  },
  grow: {
    ...exactly(16),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.sizeBytes);
    },
    read(reader) {
      const id = reader.u64('id');
      return { kind: 'grow', id, sizeBytes: reader.u64('sizeBytes') };
    },
  },
  grown: {
    bodyBytesMin: 9,
    bodyBytesMax: 9 + fields.refusalBytesMax,
    payloadBytesMax: 0,
    write(writer, packet) {
      writer.u64(packet.id);
      writer.bool(packet.refusal !== null);
      if (packet.refusal !== null) fields.writeRefusal(writer, packet.refusal);
    },
    read(reader) {
      const id = reader.u64('id');
      const isRefused = reader.bool('refused');
      return { kind: 'grown', id, refusal: isRefused ? fields.readRefusal(reader) : null };
    },
  },
  resyncLimit: {
    ...exactly(17),
    write(writer, packet) {
      writer.u64(packet.windowBytes);
      writer.u64(packet.bytesPerSecond ?? 0);
      fields.limitReasonCodes.write(writer, packet.reason);
    },
    read(reader) {
      const windowBytes = reader.u64('windowBytes');
      if (windowBytes === 0) throw reader.error('windowBytes', 'is 0: nothing would ever be copied');
      const rate = reader.u64('bytesPerSecond');
      const reason = fields.limitReasonCodes.read(reader, 'reason');
      return { kind: 'resyncLimit', windowBytes, bytesPerSecond: rate === 0 ? null : rate, reason };
    },
  },
  invalidate: bare({ kind: 'invalidate' }),
  verifyStart: bare({ kind: 'verifyStart' }),
  verifyRequest: {
    ...exactly(26),
    write(writer, packet) {
      writer.u64(packet.id);
      writer.u64(packet.offset);
      writer.u64(packet.length);
      writer.bool(packet.mark);
      writer.bool(packet.coarse);
    },
    read(reader) {
      const id = reader.u64('id');
      const offset = reader.u64('offset');
      const length = readLength(reader, offset, maxPayloadBytes);
      const mark = reader.bool('mark');
      return { kind: 'verifyRequest', id, offset, length, mark, coarse: reader.bool('coarse') };
    },
  },
  verifyPoint: numbered(
    'verifyPoint',
    'id',
    (id) => ({ kind: 'verifyPoint', id }),
    (packet) => packet.id,
  ),
  verifyDigests: {
    ...exactly(8),
    payloadBytesMax: maxDigestsBytes,
    write: (writer, packet) => writer.u64(packet.id),
    read(reader, payloadLength) {
      if (payloadLength === 0 || payloadLength % digestBytes !== 0)
        throw reader.error('payload', `has ${payloadLength} bytes, which is no number of hashes`);
      return { kind: 'verifyDigests', id: reader.u64('id') };
    },
  },
  verifyFailed: numbered(
    'verifyFailed',
    'id',
    (id) => ({ kind: 'verifyFailed', id }),
    (packet) => packet.id,
  ),
  verifyFound: {
    bodyBytesMin: 2,
    bodyBytesMax: bitmapBytesMax,
    payloadBytesMax: 0,
    bodyBytes: (packet) => 1 + fields.runsBytesMax(packet.runs.length),
    write(writer, packet) {
      writer.bool(packet.last);
      fields.writeAscendingRuns(writer, packet.runs);
    },
    read(reader) {
      const last = reader.bool('last');
      return { kind: 'verifyFound', runs: fields.readAscendingRuns(reader), last };
    },
  },
  verifyStop: bare({ kind: 'verifyStop' }),
  verifyEnd: bare({ kind: 'verifyEnd' }),
  ping: bare({ kind: 'ping' }),
  pong: bare({ kind: 'pong' }),
};

/** A kind whose body is one number. */
function numbered<Kind extends PacketKind>(
  _kind: Kind,
  field: string,
  packet: (value: number) => PacketOf<Kind>,
  value: (packet: PacketOf<Kind>) => number,
): PacketBody<Kind> {
  return {
    ...exactly(8),
    write: (writer, from) => writer.u64(value(from)),
    read: (reader) => packet(reader.u64(field)),
  };
}

/** One block at least, and no more than a payload holds. */
function readScattered(reader: ByteReader): readonly BlockRun[] {
  const runs = fields.readAscendingRuns(reader);
  const blocks = blocksIn(runs);
  if (blocks === 0 || blocks > maxScatteredBlocks)
    throw reader.error('runs', `are ${blocks} blocks, not 1 to ${maxScatteredBlocks}`);
  return runs;
}

interface Lineage {
  readonly current: bigint;
  readonly history: readonly bigint[];
}

function writeLineage(writer: ByteWriter, packet: Lineage): void {
  writer.generation(packet.current);
  fields.writeGenerations(writer, packet.history, maxHistory);
}

function readLineage(reader: ByteReader): Lineage {
  const current = reader.generation('current');
  return { current, history: fields.readGenerations(reader, 'history', maxHistory) };
}

/** A length that follows its offset: not zero, and the range ends below 2^53. */
function readLength(reader: ByteReader, offset: number, max: number): number {
  const length = reader.u64('length');
  if (length === 0 || length > max) throw reader.error('length', `is ${length}, not 1 to ${max}`);
  if (offset > Number.MAX_SAFE_INTEGER - length) throw reader.error('length', 'reaches beyond 2^53');
  return length;
}

function checkPayload(reader: ByteReader, expected: number, actual: number): void {
  if (actual !== expected) throw reader.error('payload', `has ${actual} bytes where ${expected} are due`);
}
