/**
 * What clients' requests take, for the resync controller. Of each kind one request at a time is followed, from its
 * arrival to its answer: that costs the others a comparison, and weighs slow requests by the time they last.
 */
import type { ClientKind, ClientLatency } from '../core/resync-rate.ts';

interface Follow {
  /** The request that is followed; 0: none. */
  id: number;
  sinceMs: number;
  sumMs: number;
  count: number;
}

export class LatencySampler {
  readonly #nowMs: () => number;
  readonly #kinds: Readonly<Record<ClientKind, Follow>> = {
    write: nobody(),
    read: nobody(),
    flush: nobody(),
  };

  /** `nowMs`: monotonic, in milliseconds with fractions. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Ids are positive, and none is used twice. */
  onBegin(kind: ClientKind, id: number): void {
    const follow = this.#kinds[kind];
    if (follow.id !== 0) return;
    follow.id = id;
    follow.sinceMs = this.#nowMs();
  }

  /** `ok` false: it failed, and says nothing. */
  onEnd(id: number, ok: boolean): void {
    const { write, read, flush } = this.#kinds;
    const follow = write.id === id ? write : read.id === id ? read : flush.id === id ? flush : null;
    if (follow === null) return;
    follow.id = 0;
    if (!ok) return;
    follow.sumMs += this.#nowMs() - follow.sinceMs;
    follow.count++;
  }

  /** The mean since the last call; a request that has waited longer than that, and still does, speaks for all. */
  take(): ClientLatency {
    const { write, read, flush } = this.#kinds;
    return { write: this.#takeOf(write), read: this.#takeOf(read), flush: this.#takeOf(flush) };
  }

  #takeOf(follow: Follow): number | null {
    const meanMs = follow.count === 0 ? null : follow.sumMs / follow.count;
    const waitedMs = follow.id === 0 ? 0 : this.#nowMs() - follow.sinceMs;
    follow.sumMs = 0;
    follow.count = 0;
    // Begun just before the end of the period is no measure either.
    if (meanMs === null) return waitedMs >= waitedMsMin ? waitedMs : null;
    return Math.max(meanMs, waitedMs);
  }
}

const waitedMsMin = 50;

function nobody(): Follow {
  return { id: 0, sinceMs: 0, sumMs: 0, count: 0 };
}
