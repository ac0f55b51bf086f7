/**
 * Learns whether an operation is quick enough for the thread that serves the clients. A write into the page cache
 * costs microseconds there and several times that in the thread pool; one that waits for the disk (dirty
 * limits, a journal commit) would stop every client. Which it will be is not known before, only after.
 */
export interface QuickPathOptions {
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  /** Longer than this on the own thread is slow. */
  readonly slowMs: number;
  /** Operations that go to the pool after a slow one; doubles with every further slow one in a row. */
  readonly restOps: number;
  readonly restOpsMax: number;
}

export const defaultQuickPath = { slowMs: 2, restOps: 64, restOpsMax: 4096 } as const;

export class QuickPath {
  readonly #options: QuickPathOptions;
  /** Operations still to go to the pool before the own thread is tried again. */
  #resting = 0;
  #nextRest: number;

  constructor(options: QuickPathOptions) {
    this.#options = options;
    this.#nextRest = options.restOps;
  }

  /** Asked once per operation: may it run on this thread? */
  isOpen(): boolean {
    if (this.#resting === 0) return true;
    this.#resting -= 1;
    return false;
  }

  /** Runs `operation` on this thread and learns from how long it took, also when it throws. */
  run<T>(operation: () => T): T {
    const startedMs = this.#options.nowMs();
    try {
      return operation();
    } finally {
      this.#learn(this.#options.nowMs() - startedMs);
    }
  }

  #learn(tookMs: number): void {
    if (tookMs <= this.#options.slowMs) {
      this.#nextRest = this.#options.restOps;
      return;
    }
    this.#resting = this.#nextRest;
    this.#nextRest = Math.min(this.#nextRest * 2, this.#options.restOpsMax);
  }
}
