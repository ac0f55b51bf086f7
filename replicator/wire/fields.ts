/** Fields that several packets share: words, generations, runs of blocks, a peer's state, a refusal. */
import type { AfterSb1pri, AfterSb2pri, Agreed0pri } from '../core/after-split-brain.ts';
import { maxBitmapGenerations, maxHistory } from '../core/metadata.ts';
import type { Origin } from '../core/metadata.ts';
import type { BlockRun, MirrorOp, Packet, PeerState } from '../core/packet.ts';
import type { Refusal, RefusalCode } from '../core/refusal.ts';
import type { LimitReason } from '../core/resync-rate.ts';
import type { DiskState, Generation, Protocol, Role } from '../core/vocabulary.ts';
import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import { codeTable } from './code-table.ts';
import { maxBlockIndex, maxRefusalTextBytes, maxRunsPerPacket } from './constants.ts';

export const roleCodes = codeTable<Role>({ Primary: 1, Secondary: 2, Unknown: 3 });

export const diskCodes = codeTable<DiskState>({
  Diskless: 1,
  Attaching: 2,
  Failed: 3,
  Negotiating: 4,
  Inconsistent: 5,
  Outdated: 6,
  DUnknown: 7,
  Consistent: 8,
  UpToDate: 9,
});

const protocolCodes = codeTable<Protocol>({ A: 1, B: 2, C: 3 });
const originCodes = codeTable<Origin>({ 'created-empty': 1, 'created-with-data': 2, settled: 3 });

export const limitReasonCodes = codeTable<LimitReason>({
  idle: 1,
  clients: 2,
  minimum: 3,
  limit: 4,
  measuring: 5,
});
const afterSb0priCodes = codeTable<Agreed0pri>({
  disconnect: 1,
  'discard-younger-primary': 2,
  'discard-older-primary': 3,
  'discard-zero-changes': 4,
  'discard-least-changes': 5,
  'discard-sorts-first': 6,
  'discard-sorts-last': 7,
});
const afterSb1priCodes = codeTable<AfterSb1pri>({
  disconnect: 1,
  consensus: 2,
  'discard-secondary': 3,
  'call-pri-lost-after-sb': 4,
  'violently-as0p': 5,
});
const afterSb2priCodes = codeTable<AfterSb2pri>({
  disconnect: 1,
  'call-pri-lost-after-sb': 4,
  'violently-as0p': 5,
});

export const mirrorOpCodes = codeTable<MirrorOp>({ write: 1, trim: 2, zeroes: 3 });

type GoodbyeReason = Extract<Packet, { kind: 'goodbye' }>['reason'];
export const goodbyeCodes = codeTable<GoodbyeReason>({
  disconnect: 1,
  shutdown: 2,
  'split-brain': 3,
  reattach: 4,
});

const refusalCodeCodes = codeTable<RefusalCode>({
  'split-brain': 1,
  'peer-may-be-primary': 2,
  'peer-is-primary': 3,
  'device-in-use': 4,
  'not-up-to-date': 5,
  'not-primary': 6,
  'not-connected': 7,
  'not-mirrored': 8,
  'already-connected': 9,
  'already-attached': 10,
  'already-detached': 11,
  'discard-needs-secondary': 12,
  'last-copy': 13,
  'no-disk': 14,
  'resync-running': 15,
  'no-resync': 16,
  busy: 17,
  'not-supported': 18,
  'backing-missing': 19,
  'backing-too-small': 20,
  'backing-not-ours': 21,
  'backing-in-use': 22,
  'backing-failed': 23,
  'metadata-foreign': 24,
  'metadata-newer': 25,
  'metadata-corrupt': 26,
  'shutting-down': 27,
  'metadata-in-use': 28,
  'metadata-failed': 29,
  'address-in-use': 30,
  'address-unusable': 31,
  'tls-unusable': 32,
  suspended: 33,
  'verify-running': 40,
  'no-verify': 41,
  // Apart from the others, which are given out one after the other.
  'cannot-shrink': 88,
});

/** One byte of count, then the generations. */
export const generationsBytesMax = (count: number): number => 1 + 8 * count;

export function writeGenerations(
  writer: ByteWriter,
  generations: readonly Generation[],
  countMax: number,
): void {
  if (generations.length > countMax) {
    throw new RangeError(`${generations.length} generations, ${countMax} fit`);
  }
  writer.u8(generations.length);
  for (const generation of generations) writer.generation(generation);
}

export function readGenerations(reader: ByteReader, field: string, countMax: number): readonly Generation[] {
  const count = reader.u8(field);
  if (count > countMax)
    throw reader.error(field, `has ${count} generations, at most ${countMax} are allowed`);
  const generations: Generation[] = [];
  for (let i = 0; i < count; i++) generations.push(reader.generation(field));
  return generations;
}

const writerFlag = 1;
const crashedPrimaryFlag = 2;
const linkedFlag = 4;
const peerExcludedFlag = 8;
const discardMyDataFlag = 16;
const partedAsPrimaryFlag = 32;

export const peerStateBytesMin = 8 + 4 * 8 + 2;
export const peerStateBytesMax = peerStateBytesMin + 8 * (maxBitmapGenerations + maxHistory);

export function writePeerState(writer: ByteWriter, state: PeerState): void {
  protocolCodes.write(writer, state.protocol);
  roleCodes.write(writer, state.role);
  diskCodes.write(writer, state.disk);
  originCodes.write(writer, state.origin);
  writer.u8(
    (state.writer ? writerFlag : 0) |
      (state.crashedPrimary ? crashedPrimaryFlag : 0) |
      (state.linked ? linkedFlag : 0) |
      (state.peerExcluded ? peerExcludedFlag : 0) |
      (state.discardMyData ? discardMyDataFlag : 0) |
      (state.partedAsPrimary ? partedAsPrimaryFlag : 0),
  );
  afterSb0priCodes.write(writer, state['after-sb-0pri']);
  afterSb1priCodes.write(writer, state['after-sb-1pri']);
  afterSb2priCodes.write(writer, state['after-sb-2pri']);
  writer.u64(state.sizeBytes);
  writer.u64(state.dirtyBlocks);
  writer.generation(state.current);
  writer.generation(state.exposed);
  writeGenerations(writer, state.bitmap, maxBitmapGenerations);
  writeGenerations(writer, state.history, maxHistory);
}

export function readPeerState(reader: ByteReader): PeerState {
  const protocol = protocolCodes.read(reader, 'protocol');
  const role = roleCodes.read(reader, 'role');
  const disk = diskCodes.read(reader, 'disk');
  const origin = originCodes.read(reader, 'origin');
  const flags = reader.flags('flags', 63);
  const policies = {
    'after-sb-0pri': afterSb0priCodes.read(reader, 'after-sb-0pri'),
    'after-sb-1pri': afterSb1priCodes.read(reader, 'after-sb-1pri'),
    'after-sb-2pri': afterSb2priCodes.read(reader, 'after-sb-2pri'),
  };
  const sizeBytes = reader.u64('sizeBytes');
  const dirtyBlocks = reader.u64('dirtyBlocks');
  if (dirtyBlocks > maxBlockIndex) throw reader.error('dirtyBlocks', 'is more than any device has');
  return {
    sizeBytes,
    protocol,
    role,
    disk,
    origin,
    current: reader.generation('current'),
    exposed: reader.generation('exposed'),
    bitmap: readGenerations(reader, 'bitmap', maxBitmapGenerations),
    history: readGenerations(reader, 'history', maxHistory),
    writer: (flags & writerFlag) !== 0,
    crashedPrimary: (flags & crashedPrimaryFlag) !== 0,
    linked: (flags & linkedFlag) !== 0,
    peerExcluded: (flags & peerExcludedFlag) !== 0,
    dirtyBlocks,
    discardMyData: (flags & discardMyDataFlag) !== 0,
    partedAsPrimary: (flags & partedAsPrimaryFlag) !== 0,
    ...policies,
  };
}

/** Count, then a pair of varints per run; block indices are below 2^41 and take at most 6 bytes. */
export const runsBytesMax = (count: number): number => 3 + 12 * count;

/**
 * Runs of a bitmap ascend and do not overlap: each is (blocks skipped since the end of the one
 * before, blocks in it). Marked blocks lie close together, so most pairs take two or three bytes.
 */
export function writeAscendingRuns(writer: ByteWriter, runs: readonly BlockRun[]): void {
  checkRunCount(runs);
  writer.varint(runs.length);
  let end = 0;
  for (const run of runs) {
    if (run.first < end || !isRun(run)) throw new RangeError(`run ${run.first}+${run.count} after ${end}`);
    writer.varint(run.first - end);
    writer.varint(run.count);
    end = run.first + run.count;
  }
}

export function readAscendingRuns(reader: ByteReader): readonly BlockRun[] {
  const count = reader.varint('runs', maxRunsPerPacket);
  const runs: BlockRun[] = [];
  let end = 0;
  for (let i = 0; i < count; i++) {
    const first = end + reader.varint('runs', maxBlockIndex);
    runs.push(checkRun(reader, first, reader.varint('runs', maxBlockIndex)));
    end = first + (runs[i]?.count ?? 0);
  }
  return runs;
}

/** Runs in the order in which things happened to finish: each is (first block, blocks in it). */
export function writeRuns(writer: ByteWriter, runs: readonly BlockRun[]): void {
  checkRunCount(runs);
  writer.varint(runs.length);
  for (const run of runs) {
    if (!isRun(run)) throw new RangeError(`run ${run.first}+${run.count} is not within any device`);
    writer.varint(run.first);
    writer.varint(run.count);
  }
}

export function readRuns(reader: ByteReader): readonly BlockRun[] {
  const count = reader.varint('runs', maxRunsPerPacket);
  const runs: BlockRun[] = [];
  for (let i = 0; i < count; i++) {
    const first = reader.varint('runs', maxBlockIndex);
    runs.push(checkRun(reader, first, reader.varint('runs', maxBlockIndex)));
  }
  return runs;
}

function checkRunCount(runs: readonly BlockRun[]): void {
  if (runs.length > maxRunsPerPacket) throw new RangeError(`${runs.length} runs, ${maxRunsPerPacket} fit`);
}

function isRun(run: BlockRun): boolean {
  return run.count > 0 && run.first + run.count <= maxBlockIndex;
}

function checkRun(reader: ByteReader, first: number, count: number): BlockRun {
  const run = { first, count };
  if (!isRun(run)) throw reader.error('runs', `has ${count} blocks from block ${first}`);
  return run;
}

export const refusalBytesMax = 1 + 2 * (2 + maxRefusalTextBytes);

export function writeRefusal(writer: ByteWriter, refusal: Refusal): void {
  refusalCodeCodes.write(writer, refusal.code);
  writer.text(refusal.reason, maxRefusalTextBytes);
  writer.text(refusal.nextStep, maxRefusalTextBytes);
}

export function readRefusal(reader: ByteReader): Refusal {
  return {
    code: refusalCodeCodes.read(reader, 'refusal.code'),
    reason: reader.text('refusal.reason', maxRefusalTextBytes),
    nextStep: reader.text('refusal.nextStep', maxRefusalTextBytes),
  };
}
