/** Carries the activity log's wishes to metadata: one transaction at a time, everything waiting goes into the next one. */
import type { Core } from './core.ts';

/** Asks for the extents of an operation; `then` runs once they are durably active (at once if they already are). */
export function whenActive(
  core: Core,
  waiting: Map<number, () => void>,
  key: number,
  offset: number,
  length: number,
  then: () => void,
): void {
  if (core.log.begin(key, offset, length) === 'active') return then();
  waiting.set(key, then);
  pumpActivityLog(core, waiting);
}

export function pumpActivityLog(core: Core, waiting: Map<number, () => void>): void {
  const { log } = core;
  const transaction = log.nextTransaction();
  if (transaction !== null) {
    const { activate, deactivate } = transaction;
    const start = (): void => {
      for (const key of log.committed()) {
        const then = waiting.get(key);
        waiting.delete(key);
        then?.();
      }
      if (log === core.log) pumpActivityLog(core, waiting);
    };
    if (activate.length === 0 && deactivate.length === 0) return start();
    // Bits of an extent must be on record no later than the extent stops standing for them.
    core.meta.commit({ activate, deactivate, chunks: core.outOfSync.takeImagesFor(deactivate) }, start);
  }
  if (log.needsFlush() || log.wantsFlush()) core.flushes.checkpoint();
}
