/** How far a resync has come, over the interruptions of it: a reconnect goes on with the same figures. */
import type { Core } from './core.ts';
import { ProgressMeter } from './progress-meter.ts';

type End = 'source' | 'target';

export class ResyncProgress {
  readonly #core: Core;
  #unfinished: { readonly end: End; readonly meter: ProgressMeter } | null = null;

  constructor(core: Core) {
    this.#core = core;
  }

  /** What is to be copied is marked. */
  begin(end: End): ProgressMeter {
    const { outOfSync, out } = this.#core;
    const before = this.#unfinished;
    // All there is on the device: not the rest of the last one, but another.
    if (before?.end === end && outOfSync.blocks < outOfSync.blockCount) {
      before.meter.continueWith(outOfSync.bytes, out.nowMs);
      return before.meter;
    }
    const meter = new ProgressMeter(outOfSync.bytes, out.nowMs);
    this.#unfinished = { end, meter };
    return meter;
  }

  /** Both copies are equal. */
  onInSync(): void {
    this.#unfinished = null;
  }
}
