/**
 * Carries the activity log's wishes to metadata, one transaction at a time. It begins when the driver has handed in all that
 * the present turn brought, so that the misses of one turn share a commit; what waits meanwhile goes into the next one.
 */
import type { Core } from './core.ts';

export class ActivityLogPump {
  readonly #core: Core;
  /** `endTurn` is asked for and not answered. */
  #isTurnEnding = false;

  constructor(core: Core) {
    this.#core = core;
  }

  /**
   * Asks for the extents of an operation; `then` runs once they are durably active (at once if they already are), and is
   * kept in `waiting`, that of the client's or the peer's writes, until then.
   */
  whenActive(
    waiting: Map<number, () => void>,
    key: number,
    offset: number,
    length: number,
    then: () => void,
  ): void {
    if (this.#core.log.begin(key, offset, length) === 'active') return then();
    waiting.set(key, then);
    this.pumpSoon();
  }

  /** Something has changed that operations may wait for. */
  onChange(): void {
    if (this.#core.log.waitingCount > 0) this.pumpSoon();
  }

  /** At the end of the turn, with all else that it brings. */
  pumpSoon(): void {
    if (this.#isTurnEnding) return;
    this.#isTurnEnding = true;
    this.#core.out.emit({ kind: 'endTurn' });
  }

  onTurnEnded(): void {
    this.#isTurnEnding = false;
    this.#pump();
  }

  #pump(): void {
    const core = this.#core;
    const { log } = core;
    const transaction = log.nextTransaction();
    if (transaction !== null) {
      const { activate, deactivate } = transaction;
      const start = (): void => {
        for (const key of log.committed()) this.#start(key);
        if (log === core.log) this.pumpSoon();
      };
      if (activate.length === 0 && deactivate.length === 0) return start();
      // Bits of an extent must be on record no later than the extent stops standing for them.
      core.meta.commit({ activate, deactivate, chunks: core.outOfSync.takeImagesFor(deactivate) }, start);
    }
    if (log.needsFlush() || log.wantsFlush()) core.flushes.checkpoint();
  }

  #start(key: number): void {
    const { writes, peerWrites } = this.#core;
    for (const { waitingForLog } of [writes, peerWrites]) {
      const then = waitingForLog.get(key);
      if (then === undefined) continue;
      waitingForLog.delete(key);
      return then();
    }
  }
}
