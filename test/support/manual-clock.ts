/** Time that passes only when a test says so. */
import type { LinkClock } from '../../replicator/shell/link-clock.ts';

interface Timer {
  readonly dueMs: number;
  readonly then: () => void;
}

export class ManualClock implements LinkClock {
  #nowMs = 0;
  readonly #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, then: () => void): () => void {
    const timer = { dueMs: this.#nowMs + ms, then };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Milliseconds until each waiting timer is due, soonest first. */
  get waiting(): readonly number[] {
    return [...this.#timers].map((timer) => timer.dueMs - this.#nowMs).sort((a, b) => a - b);
  }

  /** Lets time pass and calls what becomes due, in order, including what that starts. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#timers]
        .filter((timer) => timer.dueMs <= untilMs)
        .sort((a, b) => a.dueMs - b.dueMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.dueMs);
      due.then();
    }
    this.#nowMs = untilMs;
  }
}
