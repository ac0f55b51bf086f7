/** What two-cores.ts keeps of its nodes, of what they wait for, and of what was asked of them. */
import type { Core } from '../../replicator/core/core.ts';
import type { Decision } from '../../replicator/core/decision.ts';
import type { ClientOutcome } from '../../replicator/core/event.ts';
import type { CoreOptions } from '../../replicator/core/options.ts';
import type { Packet, PeerState } from '../../replicator/core/packet.ts';
import type { CommandResult } from '../../replicator/core/refusal.ts';
import type { DiskModel, MetadataModel, StepKind } from './core-models.ts';

export type Name = 'a' | 'b';

export interface Waiting {
  readonly kind: StepKind;
  /** Where it happens: for a packet, the receiver. */
  readonly node: Name;
  /** Steps of one lane happen in order; null: as they come. */
  readonly lane: string | null;
  /** Steps asked for by a process that is gone do not happen. */
  readonly process: number;
  readonly run: () => void;
}

export interface Request {
  readonly node: Name;
  readonly kind: 'read' | 'write' | 'flush' | 'trim' | 'zeroes';
  outcome: 'pending' | 'ok' | Exclude<ClientOutcome, null>;
  stamps: readonly number[];
}

export interface Asked {
  result: CommandResult | null;
}

export interface Node {
  readonly name: Name;
  options: CoreOptions;
  readonly disk: DiskModel;
  readonly metadata: MetadataModel;
  core: Core | null;
  process: number;
  wantLink: boolean;
  session: number | null;
  published: PeerState | null;
  serving: boolean;
  generations: number;
  readonly decisions: Decision[];
  readonly sent: Packet[];
}

/** What a node has asked to be woken for. */
export interface Wake {
  readonly dueMs: number;
  readonly node: Node;
  readonly process: number;
}
