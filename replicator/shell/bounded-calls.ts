/**
 * Calls that run off this thread, no more than so many at a time: what waits runs in the order of the calls. For the
 * foreign-function library, which refuses the call that is one too many, and for a store's share of the thread pool.
 */

/** Fewer that have been started are not worth moving the others up. */
const startedMin = 32;

export class BoundedCalls {
  readonly #max: number;
  #running = 0;
  #waiting: ((ended: () => void) => void)[] = [];
  /** Of `#waiting`, those before this have been started. */
  #next = 0;

  /** `max`: calls at a time, at least 1. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Starts the call now or when others have ended. `start` gets what it has to call, once, when the call has ended. */
  run(start: (ended: () => void) => void): void {
    if (this.#running >= this.#max) {
      this.#waiting.push(start);
      return;
    }
    this.#running++;
    start(this.#ended);
  }

  /** The next one, if any, takes the place of the one that has ended. */
  readonly #ended = (): void => {
    const next = this.#waiting[this.#next];
    if (next === undefined) {
      this.#running--;
      return;
    }
    this.#next++;
    // Not only once all have been started: under a load that always leaves some waiting that moment never comes, and what
    // has long ended, with its data, would be held on to.
    const isMostlyStarted = this.#next >= startedMin && 2 * this.#next >= this.#waiting.length;
    if (isMostlyStarted || this.#next === this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
    next(this.#ended);
  };
}
