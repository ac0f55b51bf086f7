/** How long the last request of each kind took, as the shell tells its core with every tick. */
import { noLatency } from '../../replicator/core/resync-rate.ts';
import type { ClientLatency } from '../../replicator/core/resync-rate.ts';
import type { ClientRequest } from './node-listener.ts';

export class LatestLatency {
  #latest: ClientLatency = noLatency;

  note(kind: ClientRequest['kind'], tookMs: number): void {
    const latest = this.#latest;
    if (kind === 'clientWrite') this.#latest = { ...latest, write: tookMs, slowWrite: tookMs };
    else if (kind === 'clientRead') this.#latest = { ...latest, read: tookMs, slowRead: tookMs };
    else if (kind === 'clientFlush') this.#latest = { ...latest, flush: tookMs, slowFlush: tookMs };
  }

  /** Of the time since this was last asked. */
  take(): ClientLatency {
    const latest = this.#latest;
    this.#latest = noLatency;
    return latest;
  }
}
