/** How long the last request of each kind took, as the shell tells its core with every tick. */
import { noLatency } from '../../replicator/core/resync-rate.ts';
import type { ClientLatency } from '../../replicator/core/resync-rate.ts';
import type { ClientRequest } from './node-listener.ts';

export class LatestLatency {
  #latest: ClientLatency = noLatency;

  note(kind: ClientRequest['kind'], tookMs: number): void {
    const { write, read, flush } = this.#latest;
    if (kind === 'clientWrite') this.#latest = { write: tookMs, read, flush };
    else if (kind === 'clientRead') this.#latest = { write, read: tookMs, flush };
    else if (kind === 'clientFlush') this.#latest = { write, read, flush: tookMs };
  }

  /** Of the time since this was last asked. */
  take(): ClientLatency {
    const latest = this.#latest;
    this.#latest = noLatency;
    return latest;
  }
}
