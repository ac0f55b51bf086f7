/**
 * Which blocks the replicas may differ in: the dirty bitmap in memory, and which chunks of it metadata does not hold yet.
 * Persisted bits may be more than those in memory, never fewer outside the active extents (design.md, W4 and W12).
 */
import { BlockBitmap } from './bitmap.ts';
import { blockCountOf, blocksTouched } from './blocks.ts';
import type { ActiveRange, ChunkImage } from './metadata.ts';
import type { BlockRun } from './packet.ts';
import { blockBytes, extentBytes } from './vocabulary.ts';

const chunkBlocks = 65_536;
const extentsPerChunk = (chunkBlocks * blockBytes) / extentBytes;
const blocksPerExtent = extentBytes / blockBytes;

export class OutOfSync {
  readonly bits: BlockBitmap;
  readonly #unsaved = new Set<number>();

  constructor(sizeBytes: number) {
    this.bits = new BlockBitmap(blockCountOf(sizeBytes));
  }

  get blockCount(): number {
    return this.bits.blockCount;
  }

  /** The device has grown. What it has more is the same on both nodes: nothing of it is marked. */
  grow(sizeBytes: number): void {
    this.bits.grow(blockCountOf(sizeBytes));
  }

  get blocks(): number {
    return this.bits.countSet;
  }

  get bytes(): number {
    return this.bits.countSet * blockBytes;
  }

  mark(offset: number, length: number): void {
    this.markRun(blocksTouched(offset, length));
  }

  markRun(run: BlockRun): void {
    if (run.count === 0) return;
    this.bits.setRange(run.first, run.count);
    const lastChunk = Math.floor((run.first + run.count - 1) / chunkBlocks);
    for (let chunk = Math.floor(run.first / chunkBlocks); chunk <= lastChunk; chunk++)
      this.#unsaved.add(chunk);
  }

  markAll(): void {
    this.markRun({ first: 0, count: this.blockCount });
  }

  markExtents(range: ActiveRange): void {
    const first = range.first * blocksPerExtent;
    this.markRun({ first, count: Math.min(range.count * blocksPerExtent, this.blockCount - first) });
  }

  markFrom(other: BlockBitmap): void {
    for (const run of other.runs()) this.markRun(run);
  }

  /** Only with proof: the peer has these blocks on stable storage, equal to ours. */
  clear(runs: readonly BlockRun[]): void {
    for (const { first, count } of runs) {
      this.bits.clearRange(first, count);
      const lastChunk = Math.floor((first + count - 1) / chunkBlocks);
      for (let chunk = Math.floor(first / chunkBlocks); chunk <= lastChunk; chunk++) this.#unsaved.add(chunk);
    }
  }

  clearAll(): void {
    this.bits.clear();
    this.#unsaved.clear();
  }

  isDirty(offset: number, length: number): boolean {
    const { first, count } = blocksTouched(offset, length);
    return this.bits.anySet(first, count);
  }

  /** Images that have to be durable in the transaction that makes these extents inactive. */
  takeImagesFor(ranges: readonly ActiveRange[]): readonly ChunkImage[] {
    if (this.#unsaved.size === 0 || ranges.length === 0) return [];
    const images: ChunkImage[] = [];
    for (const chunk of [...this.#unsaved]) {
      const from = chunk * extentsPerChunk;
      if (ranges.some((range) => range.first < from + extentsPerChunk && range.first + range.count > from)) {
        images.push(this.#takeImage(chunk));
      }
    }
    return images;
  }

  /** At most `limit` unsaved chunks, for saving in the background. */
  takeUnsaved(limit: number): readonly ChunkImage[] {
    const images: ChunkImage[] = [];
    for (const chunk of this.#unsaved) {
      if (images.length >= limit) break;
      images.push(this.#takeImage(chunk));
    }
    return images;
  }

  /** The whole bitmap, to replace what is stored. */
  takeAll(): readonly ChunkImage[] {
    this.#unsaved.clear();
    return [...this.bits.dirtyChunks()].map((chunk) => ({ chunk, image: this.bits.encodeChunk(chunk) }));
  }

  get hasUnsaved(): boolean {
    return this.#unsaved.size > 0;
  }

  #takeImage(chunk: number): ChunkImage {
    this.#unsaved.delete(chunk);
    return { chunk, image: this.bits.encodeChunk(chunk) };
  }
}
