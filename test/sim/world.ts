/** Simulated time: what will happen, in order of (time, sequence). Nothing in a simulation happens outside of it. */
import { Prng } from './prng.ts';

/** What watches a history: a violation says by which of them it was noticed. */
export type Checker =
  /** A read showed what the sector cannot hold (any more). */
  | 'read'
  /** W1, W13: an acknowledged write is on both disks, or the record says which one does not count. */
  | 'acknowledged-write'
  /** W2: an acknowledged flush or FUA write is on stable storage of every copy that counts. */
  | 'acknowledged-flush'
  /** W3, W4, W12: wherever the disks differ, some durable record says so. */
  | 'unmarked-difference'
  /** After the death of one node alone, the other one has everything. */
  | 'survivor'
  /** No two Primaries, unless somebody forced it. */
  | 'two-primaries'
  /** W13: a Primary that another one has taken over from acknowledges nothing that the other one lacks. */
  | 'superseded'
  /** W10: a damaged frame ends its session and changes nothing. */
  | 'wire'
  /** Definitions that do not fit, and data that is not related, are refused. */
  | 'refusal'
  /** Each generation is written by one node, and what was written apart is a split brain when they meet. */
  | 'generations'
  /** Online verify finds the blocks that differ, and no others. */
  | 'verify'
  /** UpToDate, connected and idle: equal, of one generation, nothing out of sync. */
  | 'identical'
  /** Everything asked for ends, and all gets well again. */
  | 'liveness'
  /** Nobody is told of an error while both copies are fine. */
  | 'needless-error'
  /** The tables of the core stay within bounds. */
  | 'memory'
  /** What the core may ask of disk, metadata and driver. */
  | 'contract'
  /** Exceptions and panics. */
  | 'crash';

export interface Violation {
  readonly checker: Checker;
  readonly message: string;
}

/** Times are in simulated milliseconds, fractions allowed. */
export class World {
  readonly seed: bigint;
  readonly prng: Prng;
  /** Things that must never be; the run ends at the first. */
  readonly violations: Violation[] = [];
  readonly #trace: ((line: string) => void) | null;
  #nowMs = 0;
  #sequence = 0;
  readonly #queue = new Queue();

  /** `trace` gets one line for whatever happens; without it, lines are not even composed. */
  constructor(seed: bigint, trace: ((line: string) => void) | null = null) {
    this.seed = seed;
    this.prng = new Prng(seed);
    this.#trace = trace;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): void {
    this.#queue.push(this.#nowMs + (delayMs > 0 ? delayMs : 0), this.#sequence++, run);
  }

  /**
   * Lets things happen until that time, or until `until` holds, or a violation. `until` is asked after everything that
   * happens, but no more often than every `everyMs`.
   */
  run(untilMs: number, until: (() => boolean) | null = null, everyMs = 0): void {
    const queue = this.#queue;
    let askAtMs = this.#nowMs;
    while (this.violations.length === 0) {
      if (until !== null && this.#nowMs >= askAtMs) {
        if (until()) return;
        askAtMs = this.#nowMs + everyMs;
      }
      if (queue.size === 0 || queue.nextAtMs > untilMs) {
        this.#nowMs = Math.max(this.#nowMs, untilMs);
        return;
      }
      this.#nowMs = queue.nextAtMs;
      queue.take()();
    }
  }

  violation(checker: Checker, message: string): void {
    this.trace(() => `VIOLATION (${checker}) ${message}`);
    this.violations.push({ checker, message: `at ${this.#nowMs.toFixed(3)} ms: ${message}` });
  }

  get isTraced(): boolean {
    return this.#trace !== null;
  }

  trace(line: () => string): void {
    this.#trace?.(`${this.#nowMs.toFixed(3).padStart(11)}  ${line()}`);
  }
}

const nothing = (): void => undefined;

/** A binary heap whose keys lie in flat arrays: most of a simulation's own work would be here otherwise. */
class Queue {
  size = 0;
  #atMs = new Float64Array(64);
  #sequence = new Float64Array(64);
  readonly #run: (() => void)[] = [];

  /** Of the first; only when there is one. */
  get nextAtMs(): number {
    return this.#atMs[0] ?? 0;
  }

  push(atMs: number, sequence: number, run: () => void): void {
    if (this.size === this.#atMs.length) this.#grow();
    const [times, sequences, runs] = [this.#atMs, this.#sequence, this.#run];
    let at = this.size++;
    while (at > 0) {
      const up = (at - 1) >> 1;
      const upMs = times[up] ?? 0;
      // What is pushed comes after all that has the same time.
      if (upMs <= atMs) break;
      times[at] = upMs;
      sequences[at] = sequences[up] ?? 0;
      runs[at] = runs[up] ?? nothing;
      at = up;
    }
    times[at] = atMs;
    sequences[at] = sequence;
    runs[at] = run;
  }

  take(): () => void {
    const [times, sequences, runs] = [this.#atMs, this.#sequence, this.#run];
    const first = runs[0] ?? nothing;
    const last = --this.size;
    const atMs = times[last] ?? 0;
    const sequence = sequences[last] ?? 0;
    const run = runs[last] ?? nothing;
    runs[last] = nothing;
    if (last === 0) return first;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= last) break;
      let downMs = times[down] ?? 0;
      const right = down + 1;
      if (right < last) {
        const rightMs = times[right] ?? 0;
        if (rightMs < downMs || (rightMs === downMs && (sequences[right] ?? 0) < (sequences[down] ?? 0))) {
          down = right;
          downMs = rightMs;
        }
      }
      if (downMs > atMs || (downMs === atMs && (sequences[down] ?? 0) > sequence)) break;
      times[at] = downMs;
      sequences[at] = sequences[down] ?? 0;
      runs[at] = runs[down] ?? nothing;
      at = down;
    }
    times[at] = atMs;
    sequences[at] = sequence;
    runs[at] = run;
    return first;
  }

  #grow(): void {
    const [atMs, sequence] = [this.#atMs, this.#sequence];
    this.#atMs = new Float64Array(2 * this.size);
    this.#sequence = new Float64Array(2 * this.size);
    this.#atMs.set(atMs);
    this.#sequence.set(sequence);
  }
}
