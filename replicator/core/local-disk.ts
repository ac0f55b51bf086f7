/**
 * The own backing device as the rest of the core sees it: operations under FIFO range locks, so that overlapping ones
 * reach the disk in the order in which they were asked for, and flushes that know which epoch they cover.
 */
import type { ByteRange } from './blocks.ts';
import type { DiskOutcome, RangesFound } from './event.ts';
import type { Digests, MirrorOp, Payload } from './packet.ts';
import { IdMap } from './id-map.ts';
import type { Out } from './out.ts';
import { assert } from './out.ts';
import { RangeLocks } from './range-locks.ts';

export type WrittenThen = (outcome: DiskOutcome) => void;
export type DigestThen = (digests: Digests | null) => void;
export type RangesThen = (found: RangesFound | null) => void;
/** `holeBytes`: null when the hole is all of the range. */
export type ReadThen = (payload: Payload | null, hole: boolean, holeBytes: number | null) => void;

export class LocalDisk {
  readonly #out: Out;
  readonly #locks = new RangeLocks();
  readonly #granted = new Map<number, () => void>();
  readonly #writes = new IdMap<WrittenThen>();
  readonly #reads = new IdMap<ReadThen>();
  readonly #rangeReads = new Map<number, RangesThen>();
  readonly #digests = new Map<number, DigestThen>();
  readonly #flushes = new Map<number, WrittenThen>();
  /** Flushes of a disk that has gone since: their answers mean nothing any more. */
  readonly #abandoned = new Set<number>();

  constructor(out: Out) {
    this.#out = out;
  }

  /** Runs `then` once no earlier overlapping operation holds the range; at once if it is free. */
  lock(id: number, offset: number, length: number, mode: 'exclusive' | 'shared', then: () => void): void {
    if (this.#locks.acquire(id, offset, length, mode)) then();
    else this.#granted.set(id, then);
  }

  unlock(id: number): void {
    const granted = this.#locks.release(id);
    for (const next of granted) {
      const then = this.#granted.get(next);
      assert(then !== undefined, `range lock ${next} was granted to nobody`);
      this.#granted.delete(next);
      then();
    }
  }

  /** The caller holds the range. */
  write(
    id: number,
    op: MirrorOp,
    offset: number,
    length: number,
    payload: Payload | null,
    noHole: boolean,
    then: WrittenThen,
  ): void {
    this.#writes.set(id, then);
    this.#out.emit({ kind: 'writeLocal', id, op, offset, length, payload, noHole });
  }

  read(offset: number, length: number, wantHole: boolean, then: ReadThen): void {
    const id = this.#out.newId();
    this.#reads.set(id, then);
    this.#out.emit({ kind: 'readLocal', id, offset, length, wantHole });
  }

  /** The caller holds all of them. */
  readRanges(ranges: readonly ByteRange[], then: RangesThen): void {
    const id = this.#out.newId();
    this.#rangeReads.set(id, then);
    this.#out.emit({ kind: 'readRanges', id, ranges });
  }

  /** The caller holds all of them. */
  writeRanges(
    id: number,
    op: 'write' | 'zeroes',
    ranges: readonly ByteRange[],
    payload: Payload | null,
    then: WrittenThen,
  ): void {
    this.#writes.set(id, then);
    this.#out.emit({ kind: 'writeRanges', id, op, ranges, payload });
  }

  /** The caller holds the range, which begins with a block. */
  digest(offset: number, length: number, coarse: boolean, then: DigestThen): void {
    const id = this.#out.newId();
    this.#digests.set(id, then);
    this.#out.emit({ kind: 'digestLocal', id, offset, length, coarse });
  }

  flush(then: WrittenThen): void {
    const id = this.#out.newId();
    this.#flushes.set(id, then);
    this.#out.emit({ kind: 'flushLocal', id });
  }

  onWritten(id: number, outcome: DiskOutcome): void {
    take(this.#writes, id, 'write')(outcome);
  }

  onRead(id: number, payload: Payload | null, hole: boolean, holeBytes: number | null): void {
    take(this.#reads, id, 'read')(payload, hole, holeBytes);
  }

  onRangesRead(id: number, found: RangesFound | null): void {
    take(this.#rangeReads, id, 'read')(found);
  }

  onDigested(id: number, digests: Digests | null): void {
    take(this.#digests, id, 'digest')(digests);
  }

  onFlushed(id: number, outcome: DiskOutcome): void {
    if (this.#abandoned.delete(id)) return;
    take(this.#flushes, id, 'flush')(outcome);
  }

  /**
   * The disk has gone: no flush under way has succeeded. What one flush should have saved may be gone by the failure of
   * another, which alone is told of it, and the disk may be back when this one is answered (W2).
   */
  onGone(): void {
    const flushes = [...this.#flushes];
    this.#flushes.clear();
    for (const [id] of flushes) this.#abandoned.add(id);
    for (const [, then] of flushes) then('failed');
  }

  get lockCount(): number {
    return this.#locks.size;
  }

  get isIdle(): boolean {
    return this.#writes.size === 0 && this.#flushes.size === 0 && this.#granted.size === 0;
  }
}

function take<T>(waiting: Pick<IdMap<T>, 'get' | 'delete'>, id: number, what: string): T {
  const then = waiting.get(id);
  assert(then !== undefined, `local ${what} ${id} was answered twice or never asked for`);
  waiting.delete(id);
  return then;
}
