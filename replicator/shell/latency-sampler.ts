/**
 * What clients' requests take, for the resync controller. Of each kind one request at a time is followed, from its
 * arrival to its answer: that costs the others a comparison, and weighs slow requests by the time they last. Two figures:
 * the mean without the slowest tenth (on a busy machine a few requests wait for a processor), and the 99th percentile.
 */
import type { ClientKind, ClientLatency } from '../core/resync-rate.ts';

const samplesMax = 1024;
const leftOut = 0.1;
const slowest = 0.01;
/** One that has waited for so long, and still does, counts before it ends. */
const waitedMsMin = 50;

interface Figures {
  readonly mostMs: number | null;
  readonly slowMs: number | null;
}

class Follow {
  /** The request that is followed; 0: none. */
  id = 0;
  sinceMs = 0;
  readonly #samples = new Float64Array(samplesMax);
  #count = 0;
  /** Every so manieth request is kept. */
  #stride = 1;
  #seen = 0;

  add(tookMs: number): void {
    if (this.#seen++ % this.#stride !== 0) return;
    this.#samples[this.#count++] = tookMs;
    if (this.#count < samplesMax) return;
    this.#count /= 2;
    for (let at = 0; at < this.#count; at++) this.#samples[at] = this.#samples[2 * at] ?? 0;
    this.#stride *= 2;
  }

  take(nowMs: number): Figures {
    const waitedMs = this.id === 0 ? 0 : nowMs - this.sinceMs;
    const sorted = this.#samples.subarray(0, this.#count).sort();
    this.#count = 0;
    this.#stride = 1;
    this.#seen = 0;
    if (waitedMs >= waitedMsMin) return { mostMs: waitedMs, slowMs: waitedMs };
    const slowMs = sorted[Math.ceil(sorted.length * (1 - slowest)) - 1];
    if (slowMs === undefined) return { mostMs: null, slowMs: null };
    const kept = sorted.subarray(0, Math.ceil(sorted.length * (1 - leftOut)));
    return { mostMs: kept.reduce((sum, ms) => sum + ms, 0) / kept.length, slowMs };
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
    const write = this.#kinds.write.take(nowMs);
    const read = this.#kinds.read.take(nowMs);
    const flush = this.#kinds.flush.take(nowMs);
    return {
      write: write.mostMs,
      read: read.mostMs,
      flush: flush.mostMs,
      slowWrite: write.slowMs,
      slowRead: read.slowMs,
      slowFlush: flush.slowMs,
    };
  }
}
