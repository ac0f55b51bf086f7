/**
 * The dirty bitmap: which 4 KiB blocks may differ between the replicas. Memory follows what is marked, not the size of
 * the device: clean chunks cost nothing and full ones one bit, so that neither a clean 16 TiB device nor one that has
 * to be copied whole is expensive. A chunk is 65,536 blocks (256 MiB), also the unit in which it is persisted.
 */
import {
  chunkBlocks,
  chunkMemoryBytes,
  chunkWith,
  clearIn,
  copyChunk,
  countBetween,
  hasIn,
  nextClearIn,
  nextSetIn,
  orIn,
  setIn,
} from './bitmap-chunk.ts';
import type { Chunk } from './bitmap-chunk.ts';
import { decodeImage, encodeFull, encodePartial } from './bitmap-image.ts';
import type { BlockRun } from './packet.ts';

export { chunkBlocks } from './bitmap-chunk.ts';

/** Ranges are in blocks; one that leaves the device is a bug of the caller and throws RangeError. */
export class BlockBitmap {
  #blockCount: number;
  #countSet = 0;
  /** Chunks with anything marked. Exactly these are in `#full` or, otherwise, in `#partial`. */
  #dirty: ChunkSet;
  #full: ChunkSet;
  /** Never empty, never full. */
  readonly #partial = new Map<number, Chunk>();

  constructor(blockCount: number) {
    if (!Number.isSafeInteger(blockCount) || blockCount < 0)
      throw new RangeError(`block count ${blockCount}`);
    this.#blockCount = blockCount;
    this.#dirty = new ChunkSet(this.chunkCount);
    this.#full = new ChunkSet(this.chunkCount);
  }

  get blockCount(): number {
    return this.#blockCount;
  }

  get chunkCount(): number {
    return Math.ceil(this.#blockCount / chunkBlocks);
  }

  /** The device has grown to that many blocks; none of the new ones is marked. */
  grow(blockCount: number): void {
    if (!Number.isSafeInteger(blockCount) || blockCount < this.#blockCount)
      throw new RangeError(`from ${this.#blockCount} blocks to ${blockCount}`);
    const last = this.chunkCount - 1;
    const lastBlocks = last < 0 ? 0 : this.#blocksOf(last);
    this.#blockCount = blockCount;
    this.#dirty = this.#dirty.grown(this.chunkCount);
    this.#full = this.#full.grown(this.chunkCount);
    // The last chunk may have been cut short by the end of the device: full then, it no longer is.
    if (last < 0 || !this.#full.has(last) || this.#blocksOf(last) === lastBlocks) return;
    this.#full.delete(last);
    this.#partial.set(last, chunkWith(0, lastBlocks));
  }

  /** How many blocks are marked. Constant time. */
  get countSet(): number {
    return this.#countSet;
  }

  get isEmpty(): boolean {
    return this.#countSet === 0;
  }

  /** An estimate of the heap in use. */
  get memoryBytes(): number {
    let bytes = this.#dirty.memoryBytes + this.#full.memoryBytes;
    for (const chunk of this.#partial.values()) bytes += 48 + chunkMemoryBytes(chunk);
    return bytes;
  }

  setRange(first: number, count: number): void {
    this.#check(first, count);
    const end = first + count;
    for (let block = first; block < end;) {
      const index = Math.floor(block / chunkBlocks);
      const base = index * chunkBlocks;
      const to = Math.min(end, base + chunkBlocks);
      this.#setInChunk(index, block - base, to - base);
      block = to;
    }
  }

  clearRange(first: number, count: number): void {
    this.#check(first, count);
    this.#eachDirty(first, first + count, (index, from, to) => this.#clearInChunk(index, from, to));
  }

  isSet(block: number): boolean {
    this.#check(block, 1);
    const index = Math.floor(block / chunkBlocks);
    if (this.#full.has(index)) return true;
    const chunk = this.#partial.get(index);
    return chunk !== undefined && hasIn(chunk, block - index * chunkBlocks);
  }

  anySet(first: number, count: number): boolean {
    this.#check(first, count);
    if (count === 0 || this.#countSet === 0) return false;
    const next = this.#nextSet(first);
    return next !== -1 && next < first + count;
  }

  countIn(first: number, count: number): number {
    this.#check(first, count);
    if (count === this.blockCount) return this.#countSet;
    let total = 0;
    this.#eachDirty(first, first + count, (index, from, to) => {
      const chunk = this.#partial.get(index);
      total += chunk === undefined ? to - from : countBetween(chunk, from, to);
    });
    return total;
  }

  /** The next marked blocks at or after `fromBlock`: as many as are adjacent, at most `maxCount`. Null: none. */
  nextRun(fromBlock: number, maxCount: number): BlockRun | null {
    if (fromBlock >= this.blockCount || maxCount < 1) return null;
    const first = this.#nextSet(fromBlock);
    if (first === -1) return null;
    const end = Math.min(this.#nextClear(first, first + maxCount), first + maxCount);
    return { first, count: end - first };
  }

  /** All runs, ascending, each as long as it goes. The bitmap may change meanwhile; blocks ahead then count as they are. */
  *runs(): Generator<BlockRun> {
    let run = this.nextRun(0, this.blockCount);
    while (run !== null) {
      yield run;
      run = this.nextRun(run.first + run.count, this.blockCount);
    }
  }

  /** Marks all that is marked in `other`, which may belong to a smaller device (growing: copy into a larger bitmap). */
  orWith(other: BlockBitmap): void {
    if (other.blockCount > this.blockCount) throw new RangeError('bitmap of a larger device');
    if (other === this) return;
    for (const index of other.dirtyChunks()) {
      const theirs = other.#partial.get(index);
      if (theirs === undefined) {
        this.#setInChunk(index, 0, other.#blocksOf(index));
      } else if (!this.#full.has(index)) {
        const mine = this.#partial.get(index);
        this.#replace(index, mine === undefined ? copyChunk(theirs) : orIn(copyChunk(mine), theirs));
      }
    }
  }

  clear(): void {
    this.#partial.clear();
    this.#dirty.clear();
    this.#full.clear();
    this.#countSet = 0;
  }

  /** Indices of the chunks with anything marked, ascending. */
  *dirtyChunks(): Generator<number> {
    for (let index = this.#dirty.next(0); index !== -1; index = this.#dirty.next(index + 1)) yield index;
  }

  /** The chunk as kept in the metadata (bitmap-image.ts); null when nothing in it is marked. */
  encodeChunk(index: number): Uint8Array | null {
    this.#checkChunk(index);
    if (this.#full.has(index)) return encodeFull(this.#blocksOf(index));
    const chunk = this.#partial.get(index);
    return chunk === undefined ? null : encodePartial(chunk);
  }

  /** Replaces the chunk by its image. False, and nothing changed, when index or image make no sense for this device. */
  decodeChunk(index: number, image: Uint8Array): boolean {
    if (!Number.isSafeInteger(index) || index < 0 || index >= this.chunkCount) return false;
    const decoded = decodeImage(image, this.#blocksOf(index));
    if (decoded === null) return false;
    if ('chunk' in decoded) {
      this.#replace(index, decoded.chunk);
    } else {
      this.#clearInChunk(index, 0, this.#blocksOf(index));
      this.#setInChunk(index, 0, decoded.prefix);
    }
    return true;
  }

  #setInChunk(index: number, from: number, to: number): void {
    if (this.#full.has(index)) return;
    const old = this.#partial.get(index);
    if (from === 0 && to === this.#blocksOf(index)) {
      this.#becomeFull(index, old?.count ?? 0);
      return;
    }
    if (old === undefined) {
      const chunk = chunkWith(from, to);
      this.#partial.set(index, chunk);
      this.#dirty.add(index);
      this.#countSet += chunk.count;
      return;
    }
    const before = old.count;
    const chunk = setIn(old, from, to);
    if (chunk !== old) this.#partial.set(index, chunk);
    if (chunk.count === this.#blocksOf(index)) this.#becomeFull(index, before);
    else this.#countSet += chunk.count - before;
  }

  #clearInChunk(index: number, from: number, to: number): void {
    const blocks = this.#blocksOf(index);
    if (this.#full.has(index)) {
      this.#full.delete(index);
      this.#countSet -= to - from;
      if (from === 0 && to === blocks) this.#dirty.delete(index);
      else this.#partial.set(index, clearIn(chunkWith(0, blocks), from, to));
      return;
    }
    const old = this.#partial.get(index);
    if (old === undefined) return;
    const before = old.count;
    const chunk = clearIn(old, from, to);
    this.#countSet += chunk.count - before;
    if (chunk.count === 0) {
      this.#partial.delete(index);
      this.#dirty.delete(index);
    } else if (chunk !== old) {
      this.#partial.set(index, chunk);
    }
  }

  #replace(index: number, chunk: Chunk): void {
    const before = this.#full.has(index) ? this.#blocksOf(index) : (this.#partial.get(index)?.count ?? 0);
    if (chunk.count === this.#blocksOf(index)) {
      this.#becomeFull(index, before);
      return;
    }
    this.#full.delete(index);
    this.#partial.set(index, chunk);
    this.#dirty.add(index);
    this.#countSet += chunk.count - before;
  }

  #becomeFull(index: number, countBefore: number): void {
    this.#partial.delete(index);
    this.#full.add(index);
    this.#dirty.add(index);
    this.#countSet += this.#blocksOf(index) - countBefore;
  }

  #eachDirty(first: number, end: number, visit: (index: number, from: number, to: number) => void): void {
    if (end <= first) return;
    const start = Math.floor(first / chunkBlocks);
    for (let index = this.#dirty.next(start); index !== -1; index = this.#dirty.next(index + 1)) {
      const base = index * chunkBlocks;
      if (base >= end) return;
      visit(index, Math.max(first, base) - base, Math.min(end, base + this.#blocksOf(index)) - base);
    }
  }

  #nextSet(fromBlock: number): number {
    const start = Math.floor(fromBlock / chunkBlocks);
    for (let index = this.#dirty.next(start); index !== -1; index = this.#dirty.next(index + 1)) {
      const base = index * chunkBlocks;
      const from = Math.max(fromBlock - base, 0);
      const chunk = this.#partial.get(index);
      const at = chunk === undefined ? from : nextSetIn(chunk, from);
      if (at < chunkBlocks) return base + at;
    }
    return -1;
  }

  /** End of the run that `block` belongs to; looks no further than the chunk that holds `limit`. */
  #nextClear(block: number, limit: number): number {
    let at = block;
    while (at < limit && at < this.blockCount) {
      const index = Math.floor(at / chunkBlocks);
      const base = index * chunkBlocks;
      if (!this.#full.has(index)) {
        const chunk = this.#partial.get(index);
        const clear = chunk === undefined ? at - base : nextClearIn(chunk, at - base);
        if (clear < chunkBlocks) return base + clear;
      }
      at = base + chunkBlocks;
    }
    return Math.min(at, this.blockCount);
  }

  #blocksOf(index: number): number {
    return Math.min(chunkBlocks, this.blockCount - index * chunkBlocks);
  }

  #check(first: number, count: number): void {
    if (!(Number.isSafeInteger(first) && Number.isSafeInteger(count) && first >= 0 && count >= 0)) {
      throw new RangeError(`blocks ${first}+${count}`);
    }
    if (first + count > this.blockCount)
      throw new RangeError(`blocks ${first}+${count} of ${this.blockCount}`);
  }

  #checkChunk(index: number): void {
    if (!(Number.isSafeInteger(index) && index >= 0 && index < this.chunkCount)) {
      throw new RangeError(`chunk ${index} of ${this.chunkCount}`);
    }
  }
}

const noWords = new Uint32Array(0);

/** A set of chunk indices with a fast successor; takes memory (one bit per chunk of the device) once it is used. */
class ChunkSet {
  readonly #chunkCount: number;
  #words: Uint32Array = noWords;

  constructor(chunkCount: number) {
    this.#chunkCount = chunkCount;
  }

  get memoryBytes(): number {
    return this.#words.byteLength;
  }

  has(index: number): boolean {
    return (((this.#words[index >>> 5] ?? 0) >>> (index & 31)) & 1) === 1;
  }

  add(index: number): void {
    if (this.#words.length === 0) this.#words = new Uint32Array(Math.ceil(this.#chunkCount / 32));
    this.#words[index >>> 5] = (this.#words[index >>> 5] ?? 0) | (1 << (index & 31));
  }

  delete(index: number): void {
    if (this.#words.length === 0) return;
    this.#words[index >>> 5] = (this.#words[index >>> 5] ?? 0) & ~(1 << (index & 31));
  }

  clear(): void {
    this.#words = noWords;
  }

  /** The same members, with room for more. */
  grown(chunkCount: number): ChunkSet {
    const grown = new ChunkSet(chunkCount);
    if (this.#words.length === 0) return grown;
    grown.#words = new Uint32Array(Math.ceil(chunkCount / 32));
    grown.#words.set(this.#words);
    return grown;
  }

  /** The smallest member at or above `from`; -1 when there is none. */
  next(from: number): number {
    for (let at = from >>> 5; at < this.#words.length; at++) {
      const bits = (this.#words[at] ?? 0) & (at === from >>> 5 ? -1 << (from & 31) : -1);
      if (bits !== 0) return (at << 5) + 31 - Math.clz32(bits & -bits);
    }
    return -1;
  }
}
