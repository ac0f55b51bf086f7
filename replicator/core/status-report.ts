/** The status of a resource, read off the core's state. */
import { connectionState, replicationState } from './connection.ts';
import type { Core } from './core.ts';
import type { CoreStatus, PeerStatus, SuspendReason, SyncProgress } from './status.ts';

export function reportStatus(core: Core): CoreStatus {
  const { connection } = core;
  const lineage = core.meta.isLoaded ? core.meta.superblock : null;
  return {
    sizeBytes: core.options.sizeBytes,
    role: core.role,
    diskState: core.diskState,
    suspended: suspendReasons(core),
    peer: core.isMirrored ? reportPeer(core) : null,
    generation: {
      current: lineage?.current ?? 0n,
      bitmap: lineage?.bitmap[0] ?? 0n,
      history: lineage?.history ?? [],
    },
    splitBrain: connection.conn === 'StandAlone' && connection.because === 'split-brain',
    io: { ...core.io },
  };
}

/** I/O that nobody asks for is not suspended: only a Primary can be, or one with requests waiting. */
function suspendReasons(core: Core): readonly SuspendReason[] {
  if (core.role !== 'Primary') return [];
  const reason = core.holdReason();
  return reason === null ? [] : [reason];
}

function reportPeer(core: Core): PeerStatus {
  const { connection } = core;
  const isConnected = connection.conn === 'Connected';
  return {
    connection: connectionState(connection),
    replication: replicationState(connection, core.verify.part),
    role: isConnected ? connection.peer.role : 'Unknown',
    diskState: isConnected ? connection.peer.disk : 'DUnknown',
    outOfSyncBytes: core.outOfSync.bytes,
    sync: isConnected ? syncProgress(core) : null,
    verify: core.verify.report(),
    lastError: isConnected ? null : core.lastError,
  };
}

function syncProgress(core: Core): SyncProgress | null {
  const { resync, pause } = core;
  if (resync === null) {
    const verify = core.verify.progress();
    if (verify === null) return null;
    return { ...verify, rate: { bytesPerSecond: null, reason: 'idle' }, pausedBy: [], stalled: null };
  }
  return {
    ...resync.meter.progress(core.out.nowMs),
    rate: core.pace.report(),
    pausedBy: pause.by,
    stalled: pause.isPaused ? null : (resync.describeUnreadable() ?? core.watchdog.describe()),
  };
}
