/** The hooks of a PeerLink as a list of what happened, to be awaited one by one. */
import type { PeerLinkHooks } from '../../replicator/shell/link.ts';
import type { LinkDownReason } from '../../replicator/core/event.ts';
import type { Packet } from '../../replicator/core/packet.ts';

export type LinkEvent =
  | { readonly kind: 'up'; readonly session: number }
  | {
      readonly kind: 'down';
      readonly session: number;
      readonly why: LinkDownReason;
      readonly detail: string;
    }
  | { readonly kind: 'refused'; readonly detail: string }
  | {
      readonly kind: 'packet';
      readonly session: number;
      readonly packet: Packet;
      readonly payload: string | null;
    };

export class LinkRecorder {
  /** What has happened and was not asked for yet. */
  readonly events: LinkEvent[] = [];
  /** Called for every event, before anyone who awaits it hears. */
  onEvent: (event: LinkEvent) => void = () => undefined;
  #waiting: ((event: LinkEvent) => void) | null = null;

  readonly hooks: PeerLinkHooks = {
    onLinkUp: (session) => this.#add({ kind: 'up', session }),
    onLinkDown: (session, why, detail) => this.#add({ kind: 'down', session, why, detail }),
    onLinkRefused: (detail) => this.#add({ kind: 'refused', detail }),
    onPacket: (session, packet, payload) =>
      this.#add({
        kind: 'packet',
        session,
        packet,
        payload: payload === null ? null : Buffer.from(payload).toString('latin1'),
      }),
    arePayloadsSettled: () => false,
    isOverrun: () => false,
    onDrain: () => undefined,
  };

  /** The next event, whatever it is. */
  async next(): Promise<LinkEvent> {
    const first = this.events.shift();
    if (first !== undefined) return first;
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  /** The next event, which has to be of this kind. */
  async expect<Kind extends LinkEvent['kind']>(kind: Kind): Promise<Extract<LinkEvent, { kind: Kind }>> {
    const event = await this.next();
    if (!isOfKind(event, kind)) throw new Error(`${kind} was due, not ${JSON.stringify(event)}`);
    return event;
  }

  #add(event: LinkEvent): void {
    this.onEvent(event);
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.events.push(event);
    else waiting(event);
  }
}

function isOfKind<Kind extends LinkEvent['kind']>(
  event: LinkEvent,
  kind: Kind,
): event is Extract<LinkEvent, { kind: Kind }> {
  return event.kind === kind;
}
