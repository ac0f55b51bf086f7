/** What only time tells: a silent peer, an unanswered request, a handshake that does not end (options.ts has the limits). */
import type { Connected } from './connection.ts';
import { isNegotiating } from './connection.ts';
import type { Core } from './core.ts';

const standstillMemoryMs = 60_000;

export class Liveness {
  readonly #core: Core;

  #stoodStillAtMs: number | null = null;
  /** Pings of this session, and answers to them: the peer answers every one, in order. */
  #pings = 0;
  #pongs = 0;
  /** Who waits for the answer to the ping of that number. Ascending. */
  #waiting: { readonly ping: number; readonly then: () => void }[] = [];

  constructor(core: Core) {
    this.#core = core;
  }

  /** This process has stood still lately (stopped, swapped out): the world may have gone on without it. */
  get hasStoodStill(): boolean {
    return this.#stoodStillAtMs !== null && this.#core.out.nowMs - this.#stoodStillAtMs < standstillMemoryMs;
  }

  /** Asks the peer of the present session for a sign of life; `then` runs when that comes, and never after the session. */
  ask(then: () => void): void {
    this.#ping();
    this.#waiting.push({ ping: this.#pings, then });
  }

  #ping(): void {
    this.#pings++;
    this.#core.send({ kind: 'ping' });
  }

  onPong(): void {
    this.#pongs++;
    while (this.#waiting[0] !== undefined && this.#waiting[0].ping <= this.#pongs)
      this.#waiting.shift()?.then();
  }

  onSessionBegun(): void {
    this.#pings = 0;
    this.#pongs = 0;
    this.#waiting = [];
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
      this.#ping();
    }
    core.verify.onTick(sinceLastMs);
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
