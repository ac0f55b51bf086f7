/**
 * Giving up one of two good copies on purpose (detach, invalidate), so that the other one is left: asked of the peer and
 * granted by it, on either side and in either role. The grant says two things:
 *
 * - What both copies had acknowledged is on stable storage of the one that is left. It could otherwise have been in two
 *   caches, of which one is about to count no more, and the next power cut takes the other (W2, W3).
 * - The one that is left stays. Two nodes that gave up their copies at the same moment would each record that the other
 *   one goes on, and both be Outdated; of two that ask at once, the one whose name sorts first is granted it.
 *
 * A disk that fails asks nobody. What its node had acknowledged and not flushed is then in the survivor's cache alone until
 * that one has flushed, which it does as soon as it hears of the failure, and before anything is acknowledged by it alone
 * (lineage.ts, solo.ts). Lost is what the survivor's power takes in between; never what a client has flushed.
 */
import { commandDeadlineMs } from './command.ts';
import { isReplicating } from './connection.ts';
import type { Core } from './core.ts';
import type { Packet } from './packet.ts';

type GiveUpPacket = Extract<Packet, { kind: 'giveUpRequest' | 'giveUpReply' | 'giveUpEnded' }>;

/** `denied`: the peer's copy is no good, or is being given up itself. `lost`: the session ended. */
export type GiveUpOutcome = 'granted' | 'denied' | 'lost' | 'late';

export class GivingUp {
  readonly #core: Core;
  #asked: {
    readonly id: number;
    readonly sinceMs: number;
    readonly then: (outcome: GiveUpOutcome) => void;
  } | null = null;
  /** The peer's request: from here on this copy is to stay. Cleared when the peer's is gone, or stays after all. */
  #granted: number | null = null;

  constructor(core: Core) {
    this.#core = core;
  }

  /** One of the two copies is being given up: not the time to ask for either. */
  get isBusy(): boolean {
    return this.#asked !== null || this.#granted !== null;
  }

  /** This copy is about to go, once the peer has granted it. */
  get isAsking(): boolean {
    return this.#asked !== null;
  }

  /** Asks the peer, whose copy is UpToDate; not while busy. Whoever is granted it and does not go through says `end`. */
  ask(then: (outcome: GiveUpOutcome) => void): void {
    const core = this.#core;
    const id = core.out.newId();
    this.#asked = { id, sinceMs: core.out.nowMs, then };
    core.send({ kind: 'giveUpRequest', id });
  }

  /** This copy stays after all. */
  end(): void {
    this.#core.send({ kind: 'giveUpEnded' });
  }

  onPacket(packet: GiveUpPacket): void {
    switch (packet.kind) {
      case 'giveUpRequest':
        return this.#onRequest(packet.id);
      case 'giveUpReply':
        if (this.#asked?.id === packet.id) this.#finish(packet.granted ? 'granted' : 'denied');
        return;
      case 'giveUpEnded':
        this.#granted = null;
        return;
      default:
        return packet satisfies never;
    }
  }

  #onRequest(id: number): void {
    const core = this.#core;
    const { connection, options } = core;
    const contested = this.#asked !== null && options.nodeName < (options.peerName ?? '');
    const takesPart = connection.conn === 'Connected' && isReplicating(connection.phase);
    if (!takesPart || contested || core.diskState !== 'UpToDate') {
      return core.send({ kind: 'giveUpReply', id, granted: false });
    }
    this.#granted = id;
    core.peerWrites.flushBehind((outcome) => {
      if (this.#granted !== id) return;
      const granted = outcome === 'ok' && core.diskState === 'UpToDate';
      if (!granted) this.#granted = null;
      core.send({ kind: 'giveUpReply', id, granted });
    });
  }

  onPeerDisk(isUpToDate: boolean): void {
    if (!isUpToDate) this.#granted = null;
  }

  onSessionEnded(): void {
    this.#granted = null;
    this.#finish('lost');
  }

  onTick(): void {
    if (this.#asked === null || this.#core.out.nowMs - this.#asked.sinceMs <= commandDeadlineMs) return;
    this.end();
    this.#finish('late');
  }

  #finish(outcome: GiveUpOutcome): void {
    const asked = this.#asked;
    this.#asked = null;
    asked?.then(outcome);
  }
}
