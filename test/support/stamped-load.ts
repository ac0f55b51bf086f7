/**
 * Random writes that can be held against the promise under test: what was acknowledged is there, whatever was killed
 * in between. The load remembers, for each block, the last acknowledged write and the later ones whose outcome is
 * unknown (in flight when the connection was lost). A block may show any of these and nothing older.
 *
 * One load lives through several clients: after a failover a new client, to the other node, continues it. No two
 * writes of a load to the same block are ever in flight at once, so the last one is well defined.
 */
import { patienceMs, within } from './node-process.ts';
import { readStamp, stampedBytes, writeStamp } from './stamp.ts';

/** What the load needs of an NBD client. A rejected write may or may not have been carried out. */
export interface LoadClient {
  write(offsetBytes: number, data: Uint8Array): Promise<void>;
  flush(): Promise<void>;
}

export type LoadReader = (offsetBytes: number, lengthBytes: number) => Promise<Uint8Array>;

export interface LoadOptions {
  /** Bytes of the device, or of the part in use from its start; a multiple of 4096. */
  readonly sizeBytes: number;
  /** Chooses the offsets; the same seed, the same choice. */
  readonly seed: number;
  /** Writes in flight at once. Default 8. */
  readonly queueDepth?: number;
  /** A flush follows every so many writes of each worker. Default: none. */
  readonly flushEvery?: number;
}

export interface PhaseResult {
  /** Why the phase ended: `stopped`, or the first error of the client. */
  readonly reason: 'stopped' | { readonly error: unknown };
  readonly acknowledged: number;
  /** Writes in flight at the end, which may or may not have been carried out. */
  readonly unknown: number;
}

export interface Phase {
  /** Resolves once no write of the phase is in flight any more. Never rejects. */
  readonly ended: Promise<PhaseResult>;
  /**
   * Resolves when `count` writes of this phase have been acknowledged: the way to act in the middle of a load
   * without a sleep. Rejects if the phase ends before, or if nothing comes of it in a minute.
   */
  acknowledged(count: number): Promise<void>;
  /** Resolves when `count` more writes than by now have been acknowledged. */
  more(count: number): Promise<void>;
  /** No new writes; those in flight are waited for. */
  stop(): Promise<PhaseResult>;
}

export interface Violation {
  readonly block: number;
  readonly kind: 'lost' | 'torn' | 'misplaced' | 'foreign' | 'invented';
  /** What was read and what would have been right, in one line. */
  readonly detail: string;
}

export class StampedLoad {
  readonly #options: Required<LoadOptions>;
  readonly #random: () => number;
  readonly #run: number;
  readonly #blocks = new Map<number, BlockHistory>();
  readonly #inFlight = new Set<number>();
  /** The block of each write, in order; write n is at n - 1. */
  readonly #written: number[] = [];
  #acknowledged = 0;

  constructor(options: LoadOptions) {
    if (options.sizeBytes <= 0 || options.sizeBytes % stampedBytes !== 0) {
      throw new RangeError(`sizeBytes ${options.sizeBytes} is not a positive multiple of ${stampedBytes}`);
    }
    this.#options = { queueDepth: 8, flushEvery: 0, ...options };
    if (this.#options.queueDepth > this.#blockCount())
      throw new RangeError('more writes in flight than blocks');
    this.#random = seededRandom(options.seed);
    this.#run = options.seed >>> 0;
  }

  /** Writes until stopped or until the client fails. */
  start(client: LoadClient): Phase {
    let stopped = false;
    let failure: { readonly error: unknown } | null = null;
    let acknowledged = 0;
    let unknown = 0;
    let waiting: { count: number; resolve: () => void; reject: (error: Error) => void }[] = [];
    const worker = async (): Promise<void> => {
      for (let count = 1; !stopped && failure === null; count++) {
        const outcome = await this.#writeOne(client);
        if (outcome === null) {
          acknowledged++;
          for (const { count, resolve } of waiting) if (count <= acknowledged) resolve();
          waiting = waiting.filter(({ count }) => count > acknowledged);
        } else {
          unknown++;
          failure ??= outcome;
        }
        if (this.#options.flushEvery > 0 && count % this.#options.flushEvery === 0 && failure === null) {
          await client.flush().catch((error: unknown) => {
            failure ??= { error };
          });
        }
      }
    };
    const workers = Array.from({ length: this.#options.queueDepth }, worker);
    let result: PhaseResult | null = null;
    const tooFew = (count: number): Error =>
      new Error(`the load ended after ${acknowledged} of ${count} writes`, { cause: failure?.error });
    const ended = Promise.all(workers).then((): PhaseResult => {
      result = { reason: failure ?? 'stopped', acknowledged, unknown };
      for (const { count, reject } of waiting) reject(tooFew(count));
      return result;
    });
    const untilAcknowledged = (count: number): Promise<void> => {
      const reached = new Promise<void>((resolve, reject) => {
        if (count <= acknowledged) resolve();
        else if (result !== null) reject(tooFew(count));
        else waiting.push({ count, resolve, reject });
      });
      return within(patienceMs, `${count} acknowledged writes`, reached);
    };
    return {
      ended,
      acknowledged: untilAcknowledged,
      more: (count) => untilAcknowledged(acknowledged + count),
      stop: () => {
        stopped = true;
        return within(patienceMs, 'the writes in flight to end', ended);
      },
    };
  }

  /** Acknowledged writes of all phases. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** Writes begun so far: a mark in the history of the load, for `blocksWritten`. */
  get sequence(): number {
    return this.#written.length;
  }

  /** Different blocks written (or tried to) by the writes after the mark `from`, up to and including `to`. */
  blocksWritten(from: number, to = this.sequence): number {
    return new Set(this.#written.slice(from, to)).size;
  }

  /**
   * Reads every block and says what is wrong; empty when all is well. Not while a phase runs. What a block showed
   * once it has to show from then on: an unknown write that was seen counts as carried out.
   */
  async verify(read: LoadReader): Promise<Violation[]> {
    if (this.#inFlight.size > 0) throw new Error('verify while writes are in flight');
    const violations: Violation[] = [];
    for (let offset = 0; offset < this.#options.sizeBytes; offset += chunkBytes) {
      const length = Math.min(chunkBytes, this.#options.sizeBytes - offset);
      const bytes = await read(offset, length);
      if (bytes.byteLength !== length) throw new Error(`${bytes.byteLength} bytes read instead of ${length}`);
      for (let at = 0; at < length; at += stampedBytes) {
        const violation = this.#check((offset + at) / stampedBytes, bytes.subarray(at, at + stampedBytes));
        if (violation !== null) violations.push(violation);
      }
    }
    return violations;
  }

  /**
   * What is acknowledged by now, to come back to: `giveUpSince` it, where later writes were acknowledged by a copy that
   * is about to be discarded.
   */
  snapshot(): LoadSnapshot {
    const blocks = new Map(
      [...this.#blocks].map(([block, { settled, unknown }]) => [block, { settled, unknown: [...unknown] }]),
    );
    return { sequence: this.sequence, blocks };
  }

  /** From now on any write after the snapshot counts as unknown: the copy that is kept may have it or not. */
  giveUpSince({ sequence, blocks }: LoadSnapshot): void {
    if (this.#inFlight.size > 0) throw new Error('writes are given up while some are in flight');
    // Those in flight at the snapshot, too, may since have been acknowledged by that copy alone.
    this.#blocks.clear();
    for (const [block, { settled, unknown }] of blocks)
      this.#blocks.set(block, { settled, unknown: [...unknown] });
    this.#written.slice(sequence).forEach((block, index) => {
      const history = this.#blocks.get(block) ?? { settled: 0, unknown: [] };
      this.#blocks.set(block, history);
      history.unknown.push(sequence + index + 1);
    });
  }

  async #writeOne(client: LoadClient): Promise<null | { readonly error: unknown }> {
    const block = this.#freeBlock();
    const sequence = this.#written.push(block);
    const history = this.#blocks.get(block) ?? { settled: 0, unknown: [] };
    this.#blocks.set(block, history);
    this.#inFlight.add(block);
    // Unknown from the moment it leaves: only its acknowledgement changes that.
    history.unknown.push(sequence);
    try {
      await client.write(block * stampedBytes, writeStamp({ run: this.#run, block, sequence }));
    } catch (error) {
      return { error };
    } finally {
      this.#inFlight.delete(block);
    }
    settle(history, sequence);
    this.#acknowledged++;
    return null;
  }

  #check(block: number, bytes: Uint8Array): Violation | null {
    const history = this.#blocks.get(block) ?? { settled: 0, unknown: [] };
    const expected = `expected write ${[history.settled, ...history.unknown].join(' or ')}`;
    const wrong = (kind: Violation['kind'], found: string): Violation => ({
      block,
      kind,
      detail: `block ${block}: found ${found}, ${expected}`,
    });
    const reading = readStamp(bytes);
    switch (reading.kind) {
      case 'zeroes':
        return history.settled === 0 ? null : wrong('lost', 'zeroes');
      case 'torn':
        return wrong('torn', 'something that is no write of ours');
      case 'stamp': {
        const { stamp } = reading;
        if (stamp.run !== this.#run) return wrong('foreign', `a write of run ${stamp.run}`);
        if (stamp.block !== block) return wrong('misplaced', `a write to block ${stamp.block}`);
        if (stamp.sequence === history.settled) return null;
        if (history.unknown.includes(stamp.sequence)) {
          settle(history, stamp.sequence);
          return null;
        }
        const kind = stamp.sequence < history.settled ? 'lost' : 'invented';
        return wrong(kind, `write ${stamp.sequence}`);
      }
      default:
        return reading satisfies never;
    }
  }

  #freeBlock(): number {
    for (;;) {
      const block = Math.floor(this.#random() * this.#blockCount());
      if (!this.#inFlight.has(block)) return block;
    }
  }

  #blockCount(): number {
    return this.#options.sizeBytes / stampedBytes;
  }
}

export interface LoadSnapshot {
  readonly sequence: number;
  readonly blocks: ReadonlyMap<number, { readonly settled: number; readonly unknown: readonly number[] }>;
}

interface BlockHistory {
  /** The last write known to have been carried out; 0: none, the block reads as zeroes. */
  settled: number;
  /** Later writes that may or may not have been, ascending. */
  unknown: number[];
}

/** From here on every older write is superseded: seeing one again is a loss. */
function settle(history: BlockHistory, sequence: number): void {
  history.settled = sequence;
  history.unknown = history.unknown.filter((each) => each > sequence);
}

const chunkBytes = 1024 * 1024;

/** Numbers in [0, 1), the same for the same seed: a counter, mixed by multiplications and shifts. */
export function seededRandom(seed: number): () => number {
  let counter = seed >>> 0;
  return () => {
    counter = (counter + 0x9e3779b9) >>> 0;
    let mixed = counter;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}
