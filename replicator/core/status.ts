/** What a resource says of itself: the status of the control API less what only the server knows (names, addresses). */
import type { Progress } from './progress-meter.ts';
import type { LimitReason } from './resync-rate.ts';
import type { ConnectionState, DiskState, Generation, ReplicationState, Role } from './vocabulary.ts';

export interface SyncProgress extends Progress {
  readonly rate: SyncRate;
  /** Whose operator has paused it; empty while it runs. */
  readonly pausedBy: readonly PausedBy[];
  /** Why it does not get on, in one sentence; null when it does. */
  readonly stalled: string | null;
}

export type PausedBy = 'this-node' | 'peer';

/** What holds the resync back. */
export interface SyncRate {
  /** Null: no rate is set, the resync goes as fast as link, disks and the window in flight let it. */
  readonly bytesPerSecond: number | null;
  readonly reason: LimitReason | 'paused';
}

/** The online verify that this node runs, or last ran since it was started. */
export interface VerifyReport {
  readonly state: 'running' | 'finished' | 'stopped' | 'ended';
  readonly checkedBytes: number;
  /** In blocks that differ, or that one node cannot read. */
  readonly differingBytes: number;
  readonly unreadableBytes: number;
}

export interface PeerStatus {
  readonly connection: ConnectionState;
  readonly replication: ReplicationState;
  readonly role: Role;
  readonly diskState: DiskState;
  readonly outOfSyncBytes: number;
  /** Of a resync or an online verify. */
  readonly sync: SyncProgress | null;
  readonly verify: VerifyReport | null;
  /** Why the connection is not Connected, in one sentence; null when there is nothing to say. */
  readonly lastError: string | null;
}

export interface IoCounters {
  readonly reads: number;
  readonly writes: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly flushes: number;
  /** Pieces of the own disk that could not be read, were written again with the peer's data, and can be read since. */
  readonly repairedReads: number;
}

export interface CoreStatus {
  readonly sizeBytes: number;
  readonly role: Role;
  readonly diskState: DiskState;
  /** Why client I/O is held just now; empty when it flows. */
  readonly suspended: readonly SuspendReason[];
  /** Null for an unmirrored resource. */
  readonly peer: PeerStatus | null;
  readonly generation: {
    readonly current: Generation;
    readonly bitmap: Generation;
    readonly history: readonly Generation[];
  };
  readonly splitBrain: boolean;
  readonly io: IoCounters;
}

/** negotiating: a handshake is under way. peer-lost: asking whether the peer took over. no-data: no UpToDate copy in reach. */
export type SuspendReason = 'negotiating' | 'peer-lost' | 'generation' | 'no-data' | 'policy' | 'demoting';
