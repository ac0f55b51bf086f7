/**
 * What can be wrong with a simulated disk besides losing its cache or failing as a whole: single operations that fail,
 * sectors that cannot be read until they are written again, slowness, and writes that land in the wrong place.
 */
import type { Prng } from './prng.ts';
import type { World } from './world.ts';

export type DiskOperation = 'read' | 'write' | 'flush';

/** How many times slower a slow disk is. */
const slowness = 50;
export const sectorsPerBlock = 8;

export class DiskFaults {
  /** Called when an operation fails on its own, before that has had any effect. */
  onFailure: (operation: DiskOperation) => void = () => undefined;
  /** Called with a block that a misdirected write misses or hits, before it does. */
  onCorrupted: (block: number) => void = () => undefined;
  /**
   * Blocks that a misdirected write has missed or hit, until they are written as a whole and flushed: what they hold may be
   * wrong, and nothing but a comparison of both copies can tell. With the number of that write in the order of writes.
   */
  readonly corrupt = new Map<number, number>();
  /** How many blocks ever were. */
  corruptions = 0;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #sectorCount: number;
  readonly #due = new Set<DiskOperation>();
  readonly #unreadable = new Set<number>();
  #slowUntilMs = 0;
  #stuckMs = 0;
  #misdirect = false;

  constructor(world: World, sectorCount: number) {
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#sectorCount = sectorCount;
  }

  // What is to go wrong.

  /** The next such operation fails, and only that one. A failed write is torn; a failed flush loses what it should save. */
  failNext(operation: DiskOperation): void {
    this.#due.add(operation);
  }

  /** Reads of these sectors fail until they are written. */
  spoil(first: number, count: number): void {
    for (let sector = first; sector < Math.min(first + count, this.#sectorCount); sector++)
      this.#unreadable.add(sector);
  }

  slowFor(ms: number): void {
    this.#slowUntilMs = this.#world.nowMs + ms;
  }

  /** The next operation takes this long, those after it as usual. */
  stickNext(ms: number): void {
    this.#stuckMs = ms;
  }

  /** The next write lands elsewhere, whole blocks away, and says that all is well. */
  misdirectNext(): void {
    this.#misdirect = true;
  }

  /** The wrong contents stay. */
  repair(): void {
    this.#due.clear();
    this.#unreadable.clear();
    this.#slowUntilMs = 0;
    this.#stuckMs = 0;
    this.#misdirect = false;
  }

  // What the disk asks.

  takeFailure(operation: DiskOperation): boolean {
    if (this.#due.size === 0 || !this.#due.delete(operation)) return false;
    this.onFailure(operation);
    return true;
  }

  isUnreadable(first: number, count: number): boolean {
    if (this.#unreadable.size === 0) return false;
    for (const sector of this.#unreadable) {
      if (sector < first || sector >= first + count) continue;
      this.onFailure('read');
      return true;
    }
    return false;
  }

  delay(usualMs: number): number {
    const stuckMs = this.#stuckMs;
    this.#stuckMs = 0;
    return stuckMs + (this.#world.nowMs < this.#slowUntilMs ? usualMs * slowness : usualMs);
  }

  /** Where a write lands instead, or null. `order`: its number. */
  misdirected(first: number, count: number, order: number): number | null {
    if (!this.#misdirect || count === 0) return null;
    const rooms = Math.floor((this.#sectorCount - count) / sectorsPerBlock);
    const skew = first % sectorsPerBlock;
    const to = this.#prng.int(rooms + 1) * sectorsPerBlock + skew;
    if (to === first || to + count > this.#sectorCount) return null;
    this.#misdirect = false;
    for (const at of [first, to]) {
      const end = Math.ceil((at + count) / sectorsPerBlock);
      for (let block = Math.floor(at / sectorsPerBlock); block < end; block++) {
        this.corrupt.set(block, order);
        this.corruptions++;
        this.onCorrupted(block);
      }
    }
    return to;
  }

  /** These sectors have been written: they can be read. */
  onWritten(first: number, count: number): void {
    if (this.#unreadable.size === 0) return;
    for (const sector of this.#unreadable)
      if (sector >= first && sector < first + count) this.#unreadable.delete(sector);
  }

  /** What write number `order` put there cannot be lost any more. */
  onStable(first: number, count: number, order: number): void {
    if (this.corrupt.size === 0) return;
    for (const [block, since] of this.corrupt) {
      const sector = block * sectorsPerBlock;
      if (order > since && sector >= first && sector + sectorsPerBlock <= first + count)
        this.corrupt.delete(block);
    }
  }
}
