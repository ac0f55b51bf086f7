/** The source's side of a resync: it answers the target's requests, and clears bits when the target proves them stable. */
import type { Core } from './core.ts';
import type { BlockRun } from './packet.ts';
import type { SyncProgress } from './status.ts';
import { assert } from './out.ts';
import { ProgressMeter } from './progress-meter.ts';

export class ResyncSource {
  readonly #core: Core;
  readonly #meter: ProgressMeter;
  #ended = false;
  /** Proofs of the target that wait for a flush of this disk. */
  #proving = 0;
  #whenProven: (() => void) | null = null;
  isPaused = false;

  constructor(core: Core) {
    this.#core = core;
    this.#meter = new ProgressMeter(core.outOfSync.bytes, core.out.nowMs);
  }

  /**
   * Under a lock that writes respect: what is sent includes every write that precedes it in the stream, and every
   * write that follows in the stream comes after it on the target's disk too (W5).
   */
  onRequest(id: number, offset: number, length: number): void {
    const core = this.#core;
    if (offset < 0 || length <= 0 || offset + length > core.options.sizeBytes) {
      return core.session.breakProtocol(`resync request ${offset}+${length} beyond the device`);
    }
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'shared', () => this.#answer(key, id, offset, offset + length));
  }

  /** Data and holes of the range in turn, so that what is a hole here becomes one there. */
  #answer(key: number, id: number, offset: number, end: number): void {
    const core = this.#core;
    if (this.#ended || offset === end) return core.disk.unlock(key);
    core.disk.read(offset, end - offset, true, (payload, hole, holeBytes) => {
      if (this.#ended) return core.disk.unlock(key);
      const length = hole ? (holeBytes ?? end - offset) : (payload?.byteLength ?? 0);
      if (length === 0) {
        core.send({ kind: 'resyncFailed', id });
        return core.disk.unlock(key);
      }
      assert(length > 0 && offset + length <= end, `a read of ${end - offset} bytes answered ${length}`);
      core.send({ kind: 'resyncData', id, offset, length, zero: hole }, payload);
      this.#answer(key, id, offset + length, end);
    });
  }

  /**
   * Written and flushed at the target: proof (W12), once this disk has flushed too. What was read for the target may
   * still have been in this disk's cache, and without its bit nothing would say so after a power cut here.
   */
  onStable(runs: readonly BlockRun[]): void {
    const core = this.#core;
    this.#proving++;
    core.disk.flush((outcome) => {
      if (this.#ended) return;
      if (outcome === 'failed') return core.disks.fail('a flush of the backing device failed during resync');
      core.outOfSync.clear(runs);
      this.#meter.update(core.outOfSync.bytes, core.out.nowMs);
      core.changed();
      if (--this.#proving === 0) this.#whenProven?.();
    });
  }

  /** Runs once the bits of all that the target has proven are cleared; not at all when the resync ends first. */
  whenProven(then: () => void): void {
    if (this.#proving === 0) then();
    else this.#whenProven = then;
  }

  end(): void {
    this.#ended = true;
  }

  progress(): SyncProgress {
    return this.#meter.progress();
  }
}
