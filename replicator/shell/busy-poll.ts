/**
 * Keeps a data plane's thread awake for a moment when requests follow each other closely. A thread that sleeps takes tens
 * of microseconds to wake, and a mirrored write has three such hand-overs: with one request at a time they are most of what
 * it takes. While something is due (`setImmediate`), the event loop looks for input without sleeping. Bounded: nothing
 * for `windowMs` ends it, and only after some requests in close succession does it begin.
 */
import { availableParallelism } from 'node:os';
import { yieldProcessor } from './libc.ts';

export interface BusyPollOptions {
  /** Monotonic milliseconds with fractions. */
  readonly nowMs: () => number;
  /** Runs `then` after the event loop has looked for input. */
  readonly soon: (then: () => void) => void;
  /** Lets whoever waits for this processor run first. */
  readonly yieldProcessor: () => void;
  /** How long to stay awake without anything to do; 0: never. */
  readonly windowMs: number;
}

/** Longer than it takes a client, or the peer, to come back with what follows, wake-up included. */
export const defaultWindowMs = 0.2;
/** So many arrivals, each within the window after the one before, begin it. */
const closeArrivals = 4;
/** What comes closer together came in the same turn and says nothing. */
const sameTurnMs = 0.005;
/** Giving way to clients and peers takes less; after more, it is not tried for a while. */
const slowYieldMs = 2;
const yieldRestMs = 1_000;

export class BusyPoll {
  readonly #options: BusyPollOptions;
  #lastMs = -Infinity;
  #closeCount = 0;
  #isPolling = false;
  #hasArrived = false;
  /** No giving way before. */
  #yieldsFromMs = -Infinity;

  constructor(options: BusyPollOptions) {
    this.#options = options;
  }

  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** A request, or what the peer sent, has arrived. */
  onArrival(): void {
    if (this.#isPolling) {
      this.#hasArrived = true;
      return;
    }
    const { nowMs, soon, windowMs } = this.#options;
    const now = nowMs();
    const gapMs = now - this.#lastMs;
    this.#lastMs = now;
    if (gapMs < sameTurnMs) return;
    this.#closeCount = gapMs <= windowMs ? this.#closeCount + 1 : 0;
    if (this.#closeCount < closeArrivals) return;
    this.#isPolling = true;
    soon(this.#again);
  }

  readonly #again = (): void => {
    const { nowMs, soon, windowMs, yieldProcessor } = this.#options;
    const now = nowMs();
    if (this.#hasArrived) {
      this.#hasArrived = false;
      this.#lastMs = now;
    } else if (now - this.#lastMs > windowMs) {
      this.#isPolling = false;
      this.#closeCount = 0;
      return;
    }
    // A client, or the peer, on the same processor would otherwise wait until this thread has used up its time.
    if (now >= this.#yieldsFromMs) {
      yieldProcessor();
      // That was somebody who computes, and keeps the processor for as long as the kernel lets him: not worth it here.
      const after = nowMs();
      if (after - now > slowYieldMs) this.#yieldsFromMs = after + yieldRestMs;
    }
    soon(this.#again);
  };
}

/** Of this thread, for all its resources. On one processor whoever is waited for needs it more. */
export const threadBusyPoll = new BusyPoll({
  nowMs: () => performance.now(),
  soon: (then) => void setImmediate(then),
  yieldProcessor,
  windowMs: availableParallelism() > 1 ? defaultWindowMs : 0,
});
