/**
 * The superblock as this node would like it, and the queue of transactions that make it so. What must not happen
 * before a fact is durable is passed as `then`, which runs when the transaction has been committed.
 */
import type { Superblock, Transaction } from './metadata.ts';
import { maxBitmapGenerations, maxHistory } from './metadata.ts';
import type { Out } from './out.ts';
import { assert } from './out.ts';
import type { Generation } from './vocabulary.ts';

export class MetadataKeeper {
  #superblock: Superblock | null = null;
  readonly #out: Out;
  readonly #waiting = new Map<
    number,
    { readonly superblock: Superblock | null; readonly then: () => void }
  >();
  #durable: Superblock | null = null;

  constructor(out: Out) {
    this.#out = out;
  }

  load(superblock: Superblock): void {
    this.#superblock = superblock;
    this.#durable = superblock;
  }

  /** What the last transaction issued says, durable or about to be. */
  get superblock(): Superblock {
    assert(this.#superblock !== null, 'the superblock is used before it was loaded');
    return this.#superblock;
  }

  /** What a restart would find: all that a promise may rest on. */
  get durable(): Superblock {
    assert(this.#durable !== null, 'the superblock is used before it was loaded');
    return this.#durable;
  }

  get isLoaded(): boolean {
    return this.#superblock !== null;
  }

  /** Changes the superblock, with whatever else has to be true in the same instant. */
  update(
    change: Partial<Superblock>,
    more: Omit<Transaction, 'superblock'> = {},
    then: () => void = nothing,
  ): void {
    const superblock = { ...this.superblock, ...change };
    assert(superblock.current !== 0n, 'a replica without a generation');
    this.#superblock = superblock;
    this.commit({ ...more, superblock }, then);
  }

  commit(transaction: Transaction, then: () => void = nothing): void {
    const id = this.#out.newId();
    this.#waiting.set(id, { superblock: transaction.superblock ?? null, then });
    this.#out.emit({ kind: 'commit', id, transaction });
  }

  onCommitted(id: number): void {
    const committed = this.#waiting.get(id);
    assert(committed !== undefined, `commit ${id} was answered twice or never asked for`);
    this.#waiting.delete(id);
    this.#durable = committed.superblock ?? this.#durable;
    committed.then();
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  get isIdle(): boolean {
    return this.#waiting.size === 0;
  }
}

function nothing(): void {
  // Nobody waits for this transaction: a superset of what it records is already durable.
}

/** The lines of descent after a new generation begins: the old one is an ancestor, and differences count from it. */
export function descend(
  superblock: Superblock,
  current: Generation,
  asPrimary: boolean,
): Pick<Superblock, 'current' | 'bitmap' | 'partedAsPrimary' | 'history'> {
  return {
    current,
    ...keepDifferences(superblock, superblock.current, asPrimary),
    history: prependHistory(superblock.history, [superblock.current]),
  };
}

/** From `generation` on the bitmap holds every difference. With the first one of them, the copies part. */
export function keepDifferences(
  superblock: Superblock,
  generation: Generation,
  asPrimary: boolean,
): Pick<Superblock, 'bitmap' | 'partedAsPrimary'> {
  return {
    bitmap: appendGeneration(superblock.bitmap, generation),
    partedAsPrimary: superblock.bitmap.length === 0 ? asPrimary : superblock.partedAsPrimary,
  };
}

/** The peer holds generation `current` in full: no older generation needs covering any more. */
export function settleLineage(
  superblock: Pick<Superblock, 'bitmap' | 'history'>,
): Pick<Superblock, 'bitmap' | 'history'> {
  return { bitmap: [], history: prependHistory(superblock.history, superblock.bitmap.toReversed()) };
}

/** Of this copy alone, with no bitmap that leads to it: what is written in it need not be tracked. */
export function isUntracked({ peerExcluded, bitmap }: Superblock): boolean {
  return peerExcluded && bitmap.length === 0;
}

/** Keeps the oldest (it may be all the peer has) and the newest ones. */
export function appendGeneration(list: readonly Generation[], generation: Generation): readonly Generation[] {
  if (list.includes(generation)) return list;
  const grown = [...list, generation];
  return grown.length <= maxBitmapGenerations
    ? grown
    : [...grown.slice(0, 1), ...grown.slice(-(maxBitmapGenerations - 1))];
}

export function prependHistory(
  history: readonly Generation[],
  newer: readonly Generation[],
): readonly Generation[] {
  return [...new Set([...newer, ...history])].filter((generation) => generation !== 0n).slice(0, maxHistory);
}
