/** What happens at a simulated node that concerns the others: its clients, its peer, whoever checks. */
import type { Decision } from '../../replicator/core/decision.ts';
import type { ClientOutcome, Event } from '../../replicator/core/event.ts';
import type { Packet } from '../../replicator/core/packet.ts';
import type { SimNode } from './sim-node.ts';

type Without<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** A client's request; the node gives it an id. */
export type ClientRequest = Without<
  Extract<Event, { kind: 'clientRead' | 'clientWrite' | 'clientTrim' | 'clientZeroes' | 'clientFlush' }>,
  'id'
>;

/** `gone`: the connection ended first. */
export type RequestEnd = { readonly outcome: ClientOutcome | 'gone'; readonly sectors: Uint32Array | null };

export interface NodeListener {
  onServe(node: SimNode, serve: boolean): void;
  onDecided(node: SimNode, decision: Decision): void;
  /** A write is acknowledged, whether or not the client that asked for it still listens. */
  onAcknowledged(node: SimNode, request: ClientRequest): void;
  onSend(node: SimNode, packet: Packet): void;
  /** What it hears in the place of this. */
  incoming(node: SimNode, packet: Packet): Packet;
  /** The moment has come to die that `dieInStep` asked for. */
  onDeath(node: SimNode, how: Death): void;
}

export type Death = 'kill' | 'power';
