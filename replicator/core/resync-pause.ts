/**
 * Pauses of the resync: one of this node's operator, one of the peer's. It runs when neither holds it. The own pause
 * lasts until it is resumed here, the resync has ended, or this process has: a reconnect does not end it. The peer's is
 * told anew in every session, right after its state, so that nothing is copied before it is known.
 */
import type { Core } from './core.ts';
import type { CommandResult } from './refusal.ts';
import { done, refuse } from './refusal.ts';
import type { PausedBy } from './status.ts';

export class ResyncPause {
  readonly #core: Core;
  #own = false;
  #peer = false;

  constructor(core: Core) {
    this.#core = core;
  }

  get isPaused(): boolean {
    return this.#own || this.#peer;
  }

  get by(): readonly PausedBy[] {
    return [...(this.#own ? (['this-node'] as const) : []), ...(this.#peer ? (['peer'] as const) : [])];
  }

  pause(): CommandResult {
    if (this.#core.resync === null && !this.#own) return noResync();
    this.#setOwn(true);
    return done('paused until it is resumed here');
  }

  /** The own pause only: what the peer's operator has paused is not this one's to resume. */
  resume(): CommandResult {
    if (this.#core.resync === null && !this.#own) return noResync();
    this.#setOwn(false);
    const { peerName } = this.#core.options;
    return done(
      this.#peer ? `not paused here any more, but still by ${peerName}: resume it there` : 'resumed',
    );
  }

  onPeer(paused: boolean): void {
    this.#peer = paused;
    this.#follow();
  }

  onSessionBegun(): void {
    this.#peer = false;
  }

  /** Right after the own state. */
  introduce(): void {
    if (this.#own) this.#core.send({ kind: 'resyncPause', paused: true });
  }

  /** Both copies are equal: there is nothing to pause. */
  onInSync(): void {
    this.#own = false;
    this.#peer = false;
  }

  #setOwn(paused: boolean): void {
    if (this.#own !== paused) this.#core.send({ kind: 'resyncPause', paused });
    this.#own = paused;
    this.#follow();
  }

  #follow(): void {
    const { connection } = this.#core;
    this.#core.changed();
    if (connection.conn === 'Connected' && connection.phase.kind === 'syncTarget')
      connection.phase.sync.pump();
  }
}

function noResync(): CommandResult {
  return refuse('no-resync', 'no resync is running', 'look at the status');
}
