/** Disk and metadata as test/support/two-cores.ts models them: plain arrays, and nothing happens by itself. */
import { blocksOfDigests } from '../../replicator/core/blocks.ts';
import type { ByteRange } from '../../replicator/core/blocks.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { DiskOutcome, Event, RangesFound } from '../../replicator/core/event.ts';
import type { ActiveRange, MetadataImage, Superblock, Transaction } from '../../replicator/core/metadata.ts';
import type { BlockRun, Digests, MirrorOp, Packet, Payload } from '../../replicator/core/packet.ts';
import { blockBytes, coarseBlocks, digestBytes } from '../../replicator/core/vocabulary.ts';

/** One stamp per block. */
export class Stamps implements Payload {
  readonly values: readonly number[];

  constructor(values: readonly number[]) {
    this.values = values;
  }

  get byteLength(): number {
    return this.values.length * blockBytes;
  }
}

/** A stamp is its own hash, the list of them that of several. */
export class StampDigests implements Digests {
  readonly hashes: readonly string[];
  readonly #blockCount: number;
  readonly #coarse: boolean;

  constructor(stamps: readonly number[], coarse: boolean) {
    const per = coarse ? coarseBlocks : 1;
    this.hashes = Array.from({ length: Math.ceil(stamps.length / per) }, (_, at) =>
      stamps.slice(at * per, (at + 1) * per).join(),
    );
    this.#blockCount = stamps.length;
    this.#coarse = coarse;
  }

  get byteLength(): number {
    return this.hashes.length * digestBytes;
  }

  differing(other: Payload): readonly BlockRun[] {
    if (!(other instanceof StampDigests)) throw new Error('compared with something else than hashes');
    const differing = [...this.hashes.keys()].filter((at) => this.hashes[at] !== other.hashes[at]);
    return blocksOfDigests(
      differing.map((first) => ({ first, count: 1 })),
      this.#blockCount,
      this.#coarse,
    );
  }
}

/** `visible` is what reads see; `stable` what is left after a loss of power. */
export class DiskModel {
  visible: Uint32Array;
  stable: Uint32Array;
  /** Blocks that it can grow to. */
  roomBlocks = Infinity;
  /** Written since the last flush that covered it, with the value written. */
  #unflushed: { readonly block: number; readonly stamp: number }[] = [];
  failWrites = false;
  failReads = false;
  failFlushes = false;
  /** Cannot be read until they are written again. */
  readonly badBlocks = new Set<number>();
  /** Cannot be read, whatever is written to them. */
  readonly deadBlocks = new Set<number>();

  constructor(blockCount: number) {
    this.visible = new Uint32Array(blockCount);
    this.stable = new Uint32Array(blockCount);
  }

  get isBroken(): boolean {
    return this.failWrites || this.failReads || this.failFlushes;
  }

  repair(): void {
    this.failWrites = false;
    this.failReads = false;
    this.failFlushes = false;
  }

  write(op: MirrorOp, offset: number, length: number, payload: Payload | null): DiskOutcome {
    if (this.failWrites) return 'failed';
    const first = offset / blockBytes;
    for (let i = 0; i < length / blockBytes; i++) {
      if (op === 'write' && !(payload instanceof Stamps)) throw new Error('a write without its payload');
      const stamp = payload instanceof Stamps ? (payload.values[i] ?? 0) : 0;
      this.visible[first + i] = stamp;
      this.badBlocks.delete(first + i);
      this.#unflushed.push({ block: first + i, stamp });
    }
    return 'ok';
  }

  read(offset: number, length: number): Stamps | null {
    const first = offset / blockBytes;
    const isBad = (_: unknown, i: number): boolean =>
      this.badBlocks.has(first + i) || this.deadBlocks.has(first + i);
    const values = [...this.visible.subarray(first, first + length / blockBytes)];
    return this.failReads || values.some(isBad) ? null : new Stamps(values);
  }

  /** A flush covers what was complete when it was asked for, and nothing more. */
  beginFlush(): readonly { readonly block: number; readonly stamp: number }[] {
    return [...this.#unflushed];
  }

  endFlush(covered: readonly { readonly block: number; readonly stamp: number }[]): DiskOutcome {
    if (this.failFlushes) return 'failed';
    const done = new Set(covered);
    for (const write of this.#unflushed) if (done.has(write)) this.stable[write.block] = write.stamp;
    this.#unflushed = this.#unflushed.filter((write) => !done.has(write));
    return 'ok';
  }

  /** What lies beyond the device, of `fromBlock` blocks, reads as zeroes; false when there is no room. */
  grow(fromBlock: number, toBlock: number): boolean {
    if (this.isBroken || toBlock > this.roomBlocks) return false;
    const count = Math.max(toBlock, this.visible.length);
    for (const which of ['visible', 'stable'] as const) {
      const grown = new Uint32Array(count);
      grown.set(this[which]);
      grown.fill(0, fromBlock, toBlock);
      this[which] = grown;
    }
    return true;
  }

  losePower(): void {
    this.visible.set(this.stable);
    this.#unflushed = [];
  }

  /** As if the disk had been exchanged for one with this in every block. */
  fill(stamp: number): void {
    this.visible.fill(stamp);
    this.stable.fill(stamp);
  }

  differences(other: DiskModel): readonly number[] {
    const count = Math.max(this.visible.length, other.visible.length);
    // What only one of them has was prepared for a growth that did not come; nobody has written there.
    const differs = (block: number): boolean => (this.visible[block] ?? 0) !== (other.visible[block] ?? 0);
    return Array.from({ length: count }, (_, block) => block).filter(differs);
  }
}

/** As the shell answers: what is asked for with `wantHole` in pieces, the first one of data or of a hole. */
export function readAnswer(
  disk: DiskModel,
  {
    offset,
    length,
    wantHole,
  }: { readonly offset: number; readonly length: number; readonly wantHole: boolean },
): { readonly payload: Stamps | null; readonly hole: boolean; readonly holeBytes?: number } {
  const payload = disk.read(offset, length);
  if (payload === null || !wantHole) return { payload, hole: false };
  const { values } = payload;
  const hole = values[0] === 0;
  const other = values.findIndex((stamp) => (stamp === 0) !== hole);
  const piece = new Stamps(other === -1 ? values : values.slice(0, other));
  return hole ? { payload: null, hole, holeBytes: piece.byteLength } : { payload: piece, hole };
}

export class MetadataModel {
  superblock: Superblock;
  readonly #active = new Map<string, ActiveRange>();
  readonly #chunks = new Map<number, Uint8Array>();
  #pending: Transaction[] = [];
  /** Transactions that became durable. */
  commits = 0;
  /** What each of them was about: for tests that count. */
  readonly durable: Transaction[] = [];

  constructor(superblock: Superblock) {
    this.superblock = superblock;
  }

  get activeExtents(): readonly number[] {
    const extents = [...this.#active.values()].flatMap(({ first, count }) =>
      Array.from({ length: count }, (_, i) => first + i),
    );
    return extents.toSorted((x, y) => x - y);
  }

  image(): MetadataImage {
    const chunks = Array.from(this.#chunks, ([chunk, image]) => ({ chunk, image: image.slice() }));
    return { superblock: this.superblock, active: [...this.#active.values()], chunks };
  }

  issue(transaction: Transaction): void {
    this.#pending.push(transaction);
  }

  commitNext(): void {
    const transaction = this.#pending.shift();
    if (transaction === undefined) throw new Error('nothing to commit');
    this.commits++;
    this.durable.push(transaction);
    if (transaction.superblock !== undefined) {
      if (transaction.superblock.sizeBytes < this.superblock.sizeBytes) throw new Error('the device shrinks');
      this.superblock = transaction.superblock;
    }
    for (const range of transaction.deactivate ?? []) {
      if (!this.#active.delete(key(range)))
        throw new Error(`${key(range)} is deactivated, and is not active`);
    }
    for (const range of transaction.activate ?? []) this.#active.set(key(range), range);
    if (transaction.clearChunks === true) this.#chunks.clear();
    for (const { chunk, image } of transaction.chunks ?? []) {
      if (image === null) this.#chunks.delete(chunk);
      else this.#chunks.set(chunk, image.slice());
    }
  }

  dropPending(): void {
    this.#pending = [];
  }
}

function key(range: ActiveRange): string {
  return `${range.first}+${range.count}`;
}

/** Several ranges at once, and the event that answers. */
export function onRanges(
  disk: DiskModel,
  effect: Extract<Effect, { kind: 'readRanges' | 'writeRanges' }>,
): Event {
  const { id } = effect;
  return effect.kind === 'readRanges'
    ? { kind: 'localRangesRead', id, found: rangesFound(disk, effect.ranges) }
    : { kind: 'localWritten', id, outcome: writeRanges(disk, effect) };
}

function rangesFound(disk: DiskModel, ranges: readonly ByteRange[]): RangesFound | null {
  const read = ranges.map(({ offset, length }) => disk.read(offset, length)?.values ?? null);
  if (read.includes(null)) return null;
  const isHole = read.map((values) => values?.every((stamp) => stamp === 0) ?? false);
  const data = read.flatMap((values, at) => (isHole[at] === true ? [] : (values ?? [])));
  return { isHole, payload: data.length === 0 ? null : new Stamps(data) };
}

function writeRanges(
  disk: DiskModel,
  { op, ranges, payload }: Extract<Effect, { kind: 'writeRanges' }>,
): DiskOutcome {
  let taken = 0;
  for (const { offset, length } of ranges) {
    const count = length / blockBytes;
    const piece = payload instanceof Stamps ? new Stamps(payload.values.slice(taken, taken + count)) : null;
    taken += count;
    if (disk.write(op, offset, length, piece) === 'failed') return 'failed';
  }
  return 'ok';
}

/** What can be kept back: the disk's answers, a commit becoming durable, the core being told of it, a packet's arrival. */
export type StepKind =
  | 'write'
  | 'read'
  | 'digest'
  | 'flush'
  | 'turn'
  | 'commit'
  | 'committed'
  | 'linkUp'
  | 'linkDown'
  | 'probe'
  | 'openDisk'
  | 'growDisk'
  | `packet:${Packet['kind']}`;

/** The step of a packet's arrival; a resync's requests and answers are the same thing whether for one run or for many. */
export function stepOf({ kind }: Packet): StepKind {
  if (kind === 'scatteredRequest') return 'packet:resyncRequest';
  return kind === 'scatteredData' ? 'packet:resyncData' : `packet:${kind}`;
}
