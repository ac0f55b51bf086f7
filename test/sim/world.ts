/** Simulated time: what will happen, in order of (time, sequence). Nothing in a simulation happens outside of it. */
import { Prng } from './prng.ts';

/** Times are in simulated milliseconds, fractions allowed. */
export class World {
  readonly seed: bigint;
  readonly prng: Prng;
  /** Things that must never be; the run ends at the first. */
  readonly violations: string[] = [];
  readonly #trace: ((line: string) => void) | null;
  #nowMs = 0;
  #sequence = 0;
  readonly #queue: Scheduled[] = [];

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
    push(this.#queue, { atMs: this.#nowMs + Math.max(0, delayMs), sequence: this.#sequence++, run });
  }

  /** Lets things happen until that time, or until `until` holds (asked after each), or a violation. */
  run(untilMs: number, until: () => boolean = () => false): void {
    while (this.violations.length === 0 && !until()) {
      const next = this.#queue[0];
      if (next === undefined || next.atMs > untilMs) {
        this.#nowMs = Math.max(this.#nowMs, untilMs);
        return;
      }
      pop(this.#queue);
      this.#nowMs = next.atMs;
      next.run();
    }
  }

  violation(message: string): void {
    this.trace(() => `VIOLATION ${message}`);
    this.violations.push(`at ${this.#nowMs.toFixed(3)} ms: ${message}`);
  }

  trace(line: () => string): void {
    this.#trace?.(`${this.#nowMs.toFixed(3).padStart(11)}  ${line()}`);
  }
}

interface Scheduled {
  readonly atMs: number;
  readonly sequence: number;
  readonly run: () => void;
}

function isBefore(a: Scheduled, b: Scheduled): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence);
}

function push(heap: Scheduled[], item: Scheduled): void {
  let at = heap.push(item) - 1;
  while (at > 0) {
    const up = (at - 1) >> 1;
    const parent = heap[up];
    if (parent === undefined || !isBefore(item, parent)) break;
    heap[at] = parent;
    at = up;
  }
  heap[at] = item;
}

function pop(heap: Scheduled[]): void {
  const item = heap.pop();
  if (item === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let down = 2 * at + 1;
    let child = heap[down];
    const right = heap[down + 1];
    if (child !== undefined && right !== undefined && isBefore(right, child)) {
      child = right;
      down++;
    }
    if (child === undefined || !isBefore(child, item)) break;
    heap[at] = child;
    at = down;
  }
  heap[at] = item;
}
