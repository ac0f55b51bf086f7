/**
 * What clients' requests take, for the resync controller. Of each kind one request at a time is followed, from its
 * arrival to its answer: that costs the others a comparison, and weighs slow requests by the time they last. The slowest
 * tenth is left out: on a busy machine a few requests wait for a processor, and say nothing of the resync.
 */
import type { ClientKind, ClientLatency } from '../core/resync-rate.ts';

const samplesMax = 256;
const leftOut = 0.1;
/** One that has waited for so long, and still does, counts before it ends. */
const waitedMsMin = 50;

class Follow {
  /** The request that is followed; 0: none. */
  id = 0;
  sinceMs = 0;
  #samples: number[] = [];
  /** Every so manieth request is kept. */
  #stride = 1;
  #seen = 0;

  add(tookMs: number): void {
    if (this.#seen++ % this.#stride !== 0) return;
    this.#samples.push(tookMs);
    if (this.#samples.length < samplesMax) return;
    this.#samples = this.#samples.filter((_, at) => at % 2 === 0);
    this.#stride *= 2;
  }

  take(nowMs: number): number | null {
    const waitedMs = this.id === 0 ? 0 : nowMs - this.sinceMs;
    const sorted = this.#samples.toSorted((a, b) => a - b);
    this.#samples = [];
    this.#stride = 1;
    this.#seen = 0;
    if (waitedMs >= waitedMsMin) return waitedMs;
    const kept = sorted.slice(0, Math.ceil(sorted.length * (1 - leftOut)));
    return kept.length === 0 ? null : kept.reduce((sum, ms) => sum + ms, 0) / kept.length;
  }
}

export class LatencySampler {
  readonly #nowMs: () => number;
  readonly #kinds: Readonly<Record<ClientKind, Follow>> = {
    write: new Follow(),
    read: new Follow(),
    flush: new Follow(),
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
    if (ok) follow.add(this.#nowMs() - follow.sinceMs);
  }

  /** Since the last call; null where there is nothing to say. */
  take(): ClientLatency {
    const nowMs = this.#nowMs();
    const { write, read, flush } = this.#kinds;
    return { write: write.take(nowMs), read: read.take(nowMs), flush: flush.take(nowMs) };
  }
}
