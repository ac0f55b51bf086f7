/** The connection to the peer and what is going on over it, each state with exactly the fields that mean something in it. */
import type { BlockRun, PeerState } from './packet.ts';
import type { LinkDownReason } from './event.ts';
import type { ResyncSource } from './resync-source.ts';
import type { ResyncTarget } from './resync-target.ts';
import type { ConnectionState, DiskState, Generation, ReplicationState, Role } from './vocabulary.ts';

export type StandAloneReason =
  'unmirrored' | 'admin' | 'split-brain' | 'unrelated-data' | 'mismatch' | 'stopped';

export type Connection =
  | { readonly conn: 'StandAlone'; readonly because: StandAloneReason }
  /** `after`: how the last session ended, null before the first. */
  | { readonly conn: 'Connecting'; readonly after: LinkDownReason | null }
  | Connected;

/** A session. Its fields change in place: there is one object per session, and `phase` is replaced as a whole. */
export interface Connected {
  readonly conn: 'Connected';
  readonly session: number;
  phase: Phase;
  peer: PeerView;
  /** The generation of the peer's data as last told; zero before the handshake. */
  peerCurrent: Generation;
  lastHeardMs: number;
  lastPingMs: number;
}

/** What the peer last said of itself. */
export interface PeerView {
  readonly role: Role;
  readonly disk: DiskState;
}

export type Phase =
  /** Own state not sent yet: the loss of the last session is still being recorded. */
  | { readonly kind: 'settling'; readonly sinceMs: number; readonly early: PeerState | null }
  /** Own state sent, the peer's awaited. */
  | { readonly kind: 'negotiating'; readonly sinceMs: number; readonly sent: PeerState }
  /** Resync decided; this node is its source and awaits the target's bitmap. */
  | {
      readonly kind: 'bitmapSource';
      readonly sinceMs: number;
      readonly full: boolean;
      readonly target: PeerState;
    }
  /** Resync decided; this node sent its bitmap and awaits the union and `syncStart`. */
  | {
      readonly kind: 'bitmapTarget';
      readonly sinceMs: number;
      readonly runs: BlockRun[];
      readonly comparesHashes: boolean;
    }
  /** Both sides record the decision; writes flow when both have. */
  | {
      readonly kind: 'confirming';
      readonly sinceMs: number;
      readonly recorded: boolean;
      readonly peerReady: boolean;
      readonly next: Phase;
    }
  | { readonly kind: 'established' }
  | { readonly kind: 'syncSource'; readonly sync: ResyncSource }
  | { readonly kind: 'syncTarget'; readonly sync: ResyncTarget }
  /** Connected without data to mirror to: the peer has no disk, or this node has none, or neither is usable. */
  | { readonly kind: 'idle' };

/** The handshake is under way: nothing is mirrored yet, and client requests wait. */
export function isNegotiating(phase: Phase): boolean {
  switch (phase.kind) {
    case 'settling':
    case 'negotiating':
    case 'bitmapSource':
    case 'bitmapTarget':
    case 'confirming':
      return true;
    case 'established':
    case 'syncSource':
    case 'syncTarget':
    case 'idle':
      return false;
    default:
      return phase satisfies never;
  }
}

/** Writes are mirrored in this phase (design.md, W1: Established, SyncSource, SyncTarget). */
export function isReplicating(phase: Phase): boolean {
  return phase.kind === 'established' || phase.kind === 'syncSource' || phase.kind === 'syncTarget';
}

export function connectionState(connection: Connection): ConnectionState {
  switch (connection.conn) {
    case 'StandAlone':
      return 'StandAlone';
    case 'Connecting':
      return 'Connecting';
    case 'Connected':
      return 'Connected';
    default:
      return connection satisfies never;
  }
}

/** `verifying`: the part this node has in an online verify, which leaves the session as it is. */
export function replicationState(
  connection: Connection,
  verifying: 'VerifyS' | 'VerifyT' | null,
): ReplicationState {
  if (connection.conn !== 'Connected') return 'Off';
  const { phase } = connection;
  switch (phase.kind) {
    case 'settling':
    case 'negotiating':
    case 'idle':
      return 'Off';
    case 'bitmapSource':
      return 'WFBitMapS';
    case 'bitmapTarget':
      return 'WFBitMapT';
    case 'confirming':
      if (phase.next.kind === 'syncSource') return 'StartingSyncS';
      return phase.next.kind === 'syncTarget' ? 'StartingSyncT' : 'Off';
    case 'established':
      return verifying ?? 'Established';
    case 'syncSource':
      return phase.sync.isPaused ? 'PausedSyncS' : 'SyncSource';
    case 'syncTarget':
      return phase.sync.isPaused ? 'PausedSyncT' : 'SyncTarget';
    default:
      return phase satisfies never;
  }
}
