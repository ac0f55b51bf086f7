/** The source's side of a resync: it answers the target's requests, and clears bits when the target proves them stable. */
import type { Core } from './core.ts';
import type { BlockRun } from './packet.ts';
import type { ProgressMeter } from './progress-meter.ts';
import { UnreadableBlocks } from './unreadable-blocks.ts';
import { blockBytes } from './vocabulary.ts';

export class ResyncSource {
  readonly #core: Core;
  readonly kind = 'source';
  readonly meter: ProgressMeter;
  readonly #unreadable = new UnreadableBlocks();
  #ended = false;
  /** Proofs of the target that wait for a flush of this disk. */
  #proving = 0;
  #whenProven: (() => void) | null = null;

  constructor(core: Core) {
    this.#core = core;
    this.meter = core.progress.begin('source');
    core.watchdog.onBegin();
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
    core.watchdog.onSign();
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'shared', () => {
      if (this.#ended) return core.disk.unlock(key);
      core.disk.read(offset, length, true, (payload, hole) => {
        if (!this.#ended) {
          this.#noteRead(offset, length, hole || payload !== null);
          if (hole) core.send({ kind: 'resyncData', id, offset, length, zero: true });
          else if (payload !== null) {
            core.pace.onMoved(length);
            core.send({ kind: 'resyncData', id, offset, length, zero: false }, payload);
          } else core.send({ kind: 'resyncFailed', id });
        }
        core.disk.unlock(key);
      });
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
      this.meter.update(core.outOfSync.bytes, core.out.nowMs);
      core.watchdog.onProven();
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

  #noteRead(offset: number, length: number, isRead: boolean): void {
    const run = { first: offset / blockBytes, count: Math.ceil(length / blockBytes) };
    if (isRead) this.#unreadable.remove(run);
    else if (this.#unreadable.add(run)) {
      this.#core.out.log('error', `resync: this node cannot read ${this.#unreadable.describe()}`);
    }
  }

  get isPaused(): boolean {
    return this.#core.pause.isPaused;
  }

  /** The target asks again for what could not be read when it sees fit. */
  get isWaiting(): boolean {
    return !this.#unreadable.isEmpty;
  }

  describeUnreadable(): string | null {
    return this.#unreadable.isEmpty ? null : `this node cannot read ${this.#unreadable.describe()}`;
  }
}
