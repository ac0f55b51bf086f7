/**
 * Calls that run off this thread, no more than so many at a time: the foreign-function library refuses the call that is one
 * too many, and its callers could do nothing else than wait. What waits runs in order.
 */
export class BoundedCalls {
  readonly #max: number;
  #running = 0;
  #waiting: (() => void)[] = [];
  /** Of `#waiting`, those before this have been started. */
  #next = 0;

  /** `max`: calls at a time, at least 1. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Starts the call now or when others have ended. `start` gets what it has to call, once, when the call has ended. */
  run(start: (ended: () => void) => void): void {
    if (this.#running < this.#max) this.#start(start);
    else this.#waiting.push(() => this.#start(start));
  }

  #start(start: (ended: () => void) => void): void {
    this.#running++;
    start(() => {
      this.#running--;
      this.#startNext();
    });
  }

  #startNext(): void {
    const next = this.#waiting[this.#next];
    if (next === undefined) return;
    this.#next++;
    if (this.#next === this.#waiting.length) {
      this.#waiting = [];
      this.#next = 0;
    }
    next();
  }
}
