/**
 * The metadata store in the simulation. Transactions become durable after a while, in order; a crash loses those that
 * are not, though some may have become durable without anybody having been told.
 */
import { maxBitmapGenerations, maxHistory } from '../../replicator/core/metadata.ts';
import type { ActiveRange, MetadataImage, Superblock, Transaction } from '../../replicator/core/metadata.ts';
import type { Prng } from './prng.ts';
import type { World } from './world.ts';

export interface MetadataListener {
  onActivated(range: ActiveRange): void;
  onDeactivated(range: ActiveRange): void;
  /** The persisted bitmap is a different one. */
  onBitmap(): void;
  /** A transaction is durable as a whole. */
  onDurable(): void;
}

interface Pending {
  readonly number: number;
  readonly transaction: Transaction;
  readonly done: () => void;
}

export class SimMetadata {
  listener: MetadataListener | null = null;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #name: string;
  readonly #delayMs: number;
  #superblock: Superblock;
  readonly #active = new Map<number, ActiveRange>();
  readonly #chunks = new Map<number, Uint8Array>();
  #pending: Pending[] = [];
  #process = 0;
  /** Transactions asked for, and the last one that is durable: they become so in order and without a gap. */
  #asked = 0;
  #durable = 0;
  /** The last one that somebody was told of. */
  #told = 0;
  #stallMs = 0;

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

  /** The persisted bitmap alone. */
  get chunks(): ReadonlyMap<number, Uint8Array> {
    return this.#chunks;
  }

  commit(transaction: Transaction, done: () => void): void {
    this.#pending.push({ number: ++this.#asked, transaction, done });
    if (this.#pending.length === 1) this.#startNext();
  }

  /** Nothing is pending. */
  get isIdle(): boolean {
    return this.#pending.length === 0;
  }

  /** Runs once nothing is pending. */
  whenIdle(run: () => void): void {
    if (this.#pending.length === 0) run();
    else this.commit({}, run);
  }

  /** The next transaction takes that much longer. */
  stall(ms: number): void {
    this.#stallMs = ms;
  }

  /** The process, or the machine, is gone. */
  kill(): void {
    this.#process++;
    const survived = this.#prng.int(this.#pending.length + 1);
    for (const pending of this.#pending.slice(0, survived)) this.#apply(pending);
    this.#pending = [];
    if (this.#durable < this.#told) this.#bad(`${this.#told} was reported, ${this.#durable} is durable`);
    // What has not become durable is as if it had never been asked for.
    this.#asked = this.#durable;
  }

  /** Another store, with this in it. */
  replace(image: MetadataImage): void {
    this.kill();
    this.#superblock = image.superblock;
    for (const range of this.#active.values()) this.listener?.onDeactivated(range);
    this.#active.clear();
    for (const range of image.active) {
      this.#active.set(key(range), range);
      this.listener?.onActivated(range);
    }
    this.#chunks.clear();
    for (const { chunk, image: bytes } of image.chunks) this.#chunks.set(chunk, bytes.slice());
    this.listener?.onBitmap();
  }

  #startNext(): void {
    const process = this.#process;
    const delayMs = (this.#prng.int(1000) / 1000) * this.#delayMs + this.#stallMs;
    this.#stallMs = 0;
    this.#world.after(delayMs, () => {
      if (process !== this.#process) return;
      const next = this.#pending.shift();
      if (next === undefined) return;
      this.#apply(next);
      if (this.#pending.length > 0) this.#startNext();
      this.#told = next.number;
      next.done();
    });
  }

  #apply({ number, transaction }: Pending): void {
    if (number !== this.#durable + 1) this.#bad(`${number} becomes durable after ${this.#durable}`);
    this.#durable = number;
    const { listener } = this;
    if (transaction.superblock !== undefined) {
      this.#check(transaction.superblock);
      this.#superblock = transaction.superblock;
    }
    for (const range of transaction.deactivate ?? []) {
      if (this.#active.delete(key(range))) listener?.onDeactivated(range);
      else this.#bad(`deactivates ${range.first}+${range.count}, which is not active`);
    }
    for (const range of transaction.activate ?? []) {
      if (!this.#active.has(key(range))) listener?.onActivated(range);
      this.#active.set(key(range), range);
    }
    const hadChunks = this.#chunks.size > 0;
    if (transaction.clearChunks === true) this.#chunks.clear();
    for (const { chunk, image } of transaction.chunks ?? []) {
      if (image === null) this.#chunks.delete(chunk);
      else this.#chunks.set(chunk, image.slice());
    }
    const clears = hadChunks && transaction.clearChunks === true;
    if (clears || (transaction.chunks?.length ?? 0) > 0) listener?.onBitmap();
    listener?.onDurable();
  }

  #check(superblock: Superblock): void {
    if (superblock.current === 0n) this.#bad('current generation zero');
    if (superblock.history.length > maxHistory) this.#bad('history too long');
    if (superblock.bitmap.length > maxBitmapGenerations) this.#bad('too many bitmap generations');
    if (superblock.sizeBytes < this.#superblock.sizeBytes) this.#bad('the device shrinks');
  }

  #bad(what: string): void {
    this.#world.violation('contract', `${this.#name}: metadata transaction: ${what}`);
  }
}

function key(range: ActiveRange): number {
  return range.first * 2 ** 24 + range.count;
}
