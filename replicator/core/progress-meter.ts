/** Progress of a resync for the status: what is done never falls, done and left always add up, the rate is of the last seconds. */

const windowMs = 5_000;
const sampleMs = 200;

export interface Progress {
  /** Never falls. */
  readonly doneBytes: number;
  /** Never less than `doneBytes`. Grows when more is found out of sync meanwhile. */
  readonly totalBytes: number;
  /** Over the last five seconds. */
  readonly bytesPerSecond: number;
  /** Seconds to go at the present rate; null while the rate is zero. */
  readonly etaSeconds: number | null;
}

export class ProgressMeter {
  #totalBytes: number;
  #doneBytes = 0;
  #samples: { readonly atMs: number; readonly doneBytes: number }[];

  constructor(totalBytes: number, nowMs: number) {
    this.#totalBytes = totalBytes;
    this.#samples = [{ atMs: nowMs, doneBytes: 0 }];
  }

  get doneBytes(): number {
    return this.#doneBytes;
  }

  update(remainingBytes: number, nowMs: number): void {
    const doneNow = this.#totalBytes - this.#doneBytes - remainingBytes;
    // More is left than was: what was done stays done, and there is more to do.
    if (doneNow < 0) this.#totalBytes -= doneNow;
    else this.#doneBytes += doneNow;
    const last = this.#samples.at(-1);
    if (last !== undefined && nowMs - last.atMs < sampleMs) return;
    this.#samples.push({ atMs: nowMs, doneBytes: this.#doneBytes });
    this.#forget(nowMs);
  }

  /** Goes on after an interruption, which is no part of the rate. */
  continueWith(remainingBytes: number, nowMs: number): void {
    this.#samples = [];
    this.update(remainingBytes, nowMs);
  }

  /** As of `nowMs`: while nothing gets done, the rate falls. */
  progress(nowMs = this.#samples.at(-1)?.atMs ?? 0): Progress {
    this.#forget(nowMs);
    const first = this.#samples[0];
    const spanMs = first === undefined ? 0 : nowMs - first.atMs;
    const bytesPerSecond =
      spanMs > 0 && first ? Math.round(((this.#doneBytes - first.doneBytes) * 1000) / spanMs) : 0;
    const leftBytes = this.#totalBytes - this.#doneBytes;
    return {
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      bytesPerSecond,
      etaSeconds: bytesPerSecond > 0 ? Math.ceil(leftBytes / bytesPerSecond) : null,
    };
  }

  /** Keeps one sample from before the window, lest a slow resync show no rate at all between two steps. */
  #forget(nowMs: number): void {
    for (;;) {
      const second = this.#samples[1];
      if (second === undefined || nowMs - second.atMs <= windowMs) return;
      this.#samples.shift();
    }
  }
}
