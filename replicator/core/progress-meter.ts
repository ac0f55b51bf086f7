/** Progress of a resync for the status: monotonic, never above its total, with a rate over the last seconds. */
import type { SyncProgress } from './status.ts';

const windowMs = 5_000;

export class ProgressMeter {
  readonly #totalBytes: number;
  #doneBytes = 0;
  #samples: { readonly atMs: number; readonly doneBytes: number }[];

  constructor(totalBytes: number, nowMs: number) {
    this.#totalBytes = totalBytes;
    this.#samples = [{ atMs: nowMs, doneBytes: 0 }];
  }

  update(remainingBytes: number, nowMs: number): void {
    this.#doneBytes = Math.min(
      this.#totalBytes,
      Math.max(this.#doneBytes, this.#totalBytes - remainingBytes),
    );
    const last = this.#samples.at(-1);
    if (last !== undefined && nowMs - last.atMs < 200) return;
    this.#samples.push({ atMs: nowMs, doneBytes: this.#doneBytes });
    while (this.#samples.length > 2 && nowMs - (this.#samples[0]?.atMs ?? nowMs) > windowMs)
      this.#samples.shift();
  }

  progress(): SyncProgress {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    const spanMs = first === undefined || last === undefined ? 0 : last.atMs - first.atMs;
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
}
