/** What only time tells: a silent peer, an unanswered request, a handshake that does not end (options.ts has the limits). */
import type { Connected } from './connection.ts';
import { isNegotiating } from './connection.ts';
import type { Core } from './core.ts';

const standstillMemoryMs = 60_000;

export class Liveness {
  readonly #core: Core;

  #stoodStillAtMs: number | null = null;

  constructor(core: Core) {
    this.#core = core;
  }

  /** This process has stood still lately (stopped, swapped out): the world may have gone on without it. */
  get hasStoodStill(): boolean {
    return this.#stoodStillAtMs !== null && this.#core.out.nowMs - this.#stoodStillAtMs < standstillMemoryMs;
  }

  onTick(sinceLastMs: number): void {
    const core = this.#core;
    const { connection, out, options } = core;
    const stoodStill = sinceLastMs > options.peerTimeoutMs / 2;
    if (stoodStill) this.#stoodStillAtMs = out.nowMs;
    if (connection.conn !== 'Connected') return;
    // What the peer sent meanwhile has yet to be read.
    if (stoodStill) connection.lastHeardMs = out.nowMs;
    if (out.nowMs - connection.lastHeardMs > options.peerTimeoutMs) {
      return this.#giveUp(connection, `nothing heard for ${options.peerTimeoutMs} ms`);
    }
    const { phase } = connection;
    if (
      isNegotiating(phase) &&
      'sinceMs' in phase &&
      out.nowMs - phase.sinceMs > options.handshakeTimeoutMs
    ) {
      return this.#giveUp(connection, `the handshake took longer than ${options.handshakeTimeoutMs} ms`);
    }
    const oldest = Math.min(
      core.writes.oldestUnansweredMs() ?? Infinity,
      core.flushes.oldestUnansweredMs() ?? Infinity,
      core.reads.oldestUnansweredMs() ?? Infinity,
    );
    if (out.nowMs - oldest > options.ackTimeoutMs) {
      return this.#giveUp(connection, `a request is unanswered for ${options.ackTimeoutMs} ms`);
    }
    if (out.nowMs - connection.lastPingMs >= options.pingIntervalMs) {
      connection.lastPingMs = out.nowMs;
      core.send({ kind: 'ping' });
    }
    core.verify.onTick();
    if (phase.kind === 'syncTarget') phase.sync.pump();
    if (phase.kind === 'syncSource' || phase.kind === 'syncTarget') core.changed();
    if (phase.kind === 'syncSource' && core.outOfSync.hasUnsaved && core.meta.isIdle) {
      core.meta.commit({ chunks: core.outOfSync.takeUnsaved(256) });
    }
  }

  #giveUp(connection: Connected, detail: string): void {
    this.#core.session.giveUp(connection, 'Timeout', detail);
  }
}
