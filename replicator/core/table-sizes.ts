/** How much the tables of a core hold: what grows with requests, packets and sessions under way, and must not with time. */
import type { Core } from './core.ts';

/** Counts of entries. */
export interface TableSizes {
  /** Client requests at a closed gate. */
  readonly held: number;
  /** Client writes that wait for the activity log, are under way, or wait for a record. */
  readonly writes: number;
  /** Writes of the peer under way here. */
  readonly peerWrites: number;
  /** Range locks, granted or waited for. */
  readonly locks: number;
  /** Packets that wait for a record. */
  readonly inbound: number;
  /** Operations that wait for extents. */
  readonly waitingForLog: number;
  /** Ordinary extents in the activity log, and those in entries of their own. */
  readonly extents: number;
  readonly bulkExtents: number;
  /** Epochs not stable on both sides, the current one among them, and the blocks of all of them. */
  readonly epochs: number;
  readonly unstableBlocks: number;
  /** Metadata transactions that are not durable yet. */
  readonly commits: number;
}

export function reportTables(core: Core): TableSizes {
  const ranges = core.log.activeRanges();
  const extents = ranges.reduce((sum, { count }) => sum + (count === 1 ? 1 : 0), 0);
  return {
    held: core.heldCount,
    writes: core.writes.size,
    peerWrites: core.peerWrites.size,
    locks: core.disk.lockCount,
    inbound: core.inbound.size,
    waitingForLog: core.log.waitingCount,
    extents,
    bulkExtents: ranges.reduce((sum, { count }) => sum + count, 0) - extents,
    epochs: core.epochs.openCount,
    unstableBlocks: core.epochs.unstableBlocks,
    commits: core.meta.waitingCount,
  };
}
