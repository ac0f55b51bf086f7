/**
 * Keeps a data plane's thread awake for a moment when requests follow each other closely. A thread that sleeps takes tens
 * of microseconds to wake, and a mirrored write has three such hand-overs: with one request at a time they are most of what
 * it takes. While something is due (`setImmediate`), the event loop looks for input without sleeping. Bounded: nothing
 * for `windowMs` ends it, and only after some turns in close succession does it begin. Where a turn brings many requests, all of
 * them share one waking up, and staying awake would only take the processor from client and peer.
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
/** So many turns with arrivals, each within the window after the one before, begin it. */
const closeTurns = 4;
/** With more arrivals a turn than this, the next ones are under way already: waking up is shared by all of them. */
const deepArrivals = 8;
/** Of the turns so far, the share of the newest in the mean. */
const newestShare = 1 / 8;
/** Giving way to clients and peers takes less; after more, it is not tried for a while. */
const slowYieldMs = 2;
/** The first while. One that comes soon after another is twice as long, up to the longest. */
const restMsMin = 4;
const restMsMax = 64;
const soonAfterMs = 200;

export class BusyPoll {
  readonly #options: BusyPollOptions;
  /** End of the last turn that brought something. */
  #lastMs = -Infinity;
  #closeTurns = 0;
  /** In this turn. */
  #arrivals = 0;
  /** A turn, as a mean of those that brought something. */
  #meanArrivals = 0;
  #isTurnOpen = false;
  #isPolling = false;
  /** No giving way before. */
  #restUntilMs = -Infinity;
  #restMs = restMsMin;

  constructor(options: BusyPollOptions) {
    this.#options = options;
  }

  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** A request, or what the peer sent, has arrived. */
  onArrival(): void {
    this.#arrivals++;
    if (this.#isTurnOpen || this.#options.windowMs === 0) return;
    this.#isTurnOpen = true;
    this.#options.soon(this.#onTurnEnded);
  }

  readonly #onTurnEnded = (): void => {
    const { nowMs, soon, windowMs } = this.#options;
    this.#isTurnOpen = false;
    const now = nowMs();
    const quietMs = now - this.#lastMs;
    if (this.#arrivals > 0) {
      this.#meanArrivals += (this.#arrivals - this.#meanArrivals) * newestShare;
      // What came late because this thread had lost the processor was waited for all the same.
      this.#closeTurns = this.#isPolling || quietMs <= windowMs ? this.#closeTurns + 1 : 0;
      this.#arrivals = 0;
      this.#lastMs = now;
    } else if (quietMs > windowMs) this.#closeTurns = 0;
    this.#isPolling = this.#closeTurns >= closeTurns && this.#meanArrivals <= deepArrivals;
    if (!this.#isPolling) return;
    this.#giveWay(now);
    this.#isTurnOpen = true;
    soon(this.#onTurnEnded);
  };

  /** A client, or the peer, on the same processor would otherwise wait until this thread has used up its time. */
  #giveWay(now: number): void {
    if (now < this.#restUntilMs) return;
    this.#options.yieldProcessor();
    const after = this.#options.nowMs();
    if (after - now <= slowYieldMs) return;
    // That was somebody who computes, and keeps the processor for as long as the kernel lets him. If it is one of V8's threads
    // that is over in a moment, and without giving way client and peer starve until this thread sleeps: so not for
    // long. A neighbour who computes all the time gets a twentieth.
    const isSoonAgain = now - this.#restUntilMs < soonAfterMs;
    this.#restMs = isSoonAgain ? Math.min(this.#restMs * 2, restMsMax) : restMsMin;
    this.#restUntilMs = after + this.#restMs;
  }
}

/** Of this thread, for all its resources. On one processor whoever is waited for needs it more. */
export const threadBusyPoll = new BusyPoll({
  nowMs: () => performance.now(),
  soon: (then) => void setImmediate(then),
  yieldProcessor,
  windowMs: availableParallelism() > 1 ? defaultWindowMs : 0,
});
