/**
 * The metadata store in the simulation. Transactions become durable after a while, in order; a crash loses those that
 * are not, though some may have become durable without anybody having been told.
 */
import { maxBitmapGenerations, maxHistory } from '../../replicator/core/metadata.ts';
import type { ActiveRange, MetadataImage, Superblock, Transaction } from '../../replicator/core/metadata.ts';
import type { Prng } from './prng.ts';
import type { World } from './world.ts';

export class SimMetadata {
  readonly #world: World;
  readonly #prng: Prng;
  readonly #name: string;
  readonly #delayMs: number;
  #superblock: Superblock;
  readonly #active = new Map<string, ActiveRange>();
  readonly #chunks = new Map<number, Uint8Array>();
  #pending: { readonly transaction: Transaction; readonly done: () => void }[] = [];
  #process = 0;

  constructor(world: World, name: string, superblock: Superblock, delayMs: number) {
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#name = name;
    this.#superblock = superblock;
    this.#delayMs = delayMs;
  }

  /** What a restart would find. */
  get superblock(): Superblock {
    return this.#superblock;
  }

  /** As read at attach, once all pending transactions are durable. */
  image(): MetadataImage {
    return {
      superblock: this.#superblock,
      active: [...this.#active.values()],
      chunks: Array.from(this.#chunks, ([chunk, image]) => ({ chunk, image: image.slice() })),
    };
  }

  commit(transaction: Transaction, done: () => void): void {
    this.#pending.push({ transaction, done });
    if (this.#pending.length === 1) this.#startNext();
  }

  /** Runs once nothing is pending. */
  whenIdle(run: () => void): void {
    if (this.#pending.length === 0) run();
    else this.commit({}, run);
  }

  /** The process, or the machine, is gone. */
  kill(): void {
    this.#process++;
    const survived = this.#prng.int(this.#pending.length + 1);
    for (const { transaction } of this.#pending.slice(0, survived)) this.#apply(transaction);
    this.#pending = [];
  }

  #startNext(): void {
    const process = this.#process;
    this.#world.after((this.#prng.int(1000) / 1000) * this.#delayMs, () => {
      if (process !== this.#process) return;
      const next = this.#pending.shift();
      if (next === undefined) return;
      this.#apply(next.transaction);
      if (this.#pending.length > 0) this.#startNext();
      next.done();
    });
  }

  #apply(transaction: Transaction): void {
    if (transaction.superblock !== undefined) {
      this.#check(transaction.superblock);
      this.#superblock = transaction.superblock;
    }
    for (const range of transaction.deactivate ?? []) {
      if (!this.#active.delete(key(range))) this.#bad(`deactivates ${key(range)}, which is not active`);
    }
    for (const range of transaction.activate ?? []) this.#active.set(key(range), range);
    if (transaction.clearChunks === true) this.#chunks.clear();
    for (const { chunk, image } of transaction.chunks ?? []) {
      if (image === null) this.#chunks.delete(chunk);
      else this.#chunks.set(chunk, image.slice());
    }
  }

  #check(superblock: Superblock): void {
    if (superblock.current === 0n) this.#bad('current generation zero');
    if (superblock.history.length > maxHistory) this.#bad('history too long');
    if (superblock.bitmap.length > maxBitmapGenerations) this.#bad('too many bitmap generations');
    if (superblock.sizeBytes < this.#superblock.sizeBytes) this.#bad('the device shrinks');
  }

  #bad(what: string): void {
    this.#world.violation(`${this.#name}: metadata transaction: ${what}`);
  }
}

function key(range: ActiveRange): string {
  return `${range.first}+${range.count}`;
}
