/** What a resource is configured with, as far as the core cares. All times in milliseconds. */
import type { AfterSb0pri, AfterSb1pri, AfterSb2pri } from './after-split-brain.ts';
import { alwaysDisconnect } from './after-split-brain.ts';
import type { Generation, Protocol } from './vocabulary.ts';

export interface CoreOptions {
  readonly nodeName: string;
  /** Null: a plain, unmirrored device. */
  readonly peerName: string | null;
  readonly sizeBytes: number;
  readonly protocol: Protocol;
  /** Active extents of 4 MiB kept at once, 7 to 65534. */
  readonly activityLogExtents: number;
  readonly onPeerLoss: 'continue' | 'suspend';
  /** Which copy gives way after a split brain with no, one and two Primaries left; the same on both nodes. */
  readonly 'after-sb-0pri': AfterSb0pri;
  readonly 'after-sb-1pri': AfterSb1pri;
  readonly 'after-sb-2pri': AfterSb2pri;
  /** How long I/O without any UpToDate copy in reach waits for one before it fails with EIO. */
  readonly noDataTimeoutMs: number;
  /** A silent peer is asked for a sign of life this often. */
  readonly pingIntervalMs: number;
  /** Nothing heard for this long: the peer is lost. */
  readonly peerTimeoutMs: number;
  /** A mirrored request, or a read, unanswered for this long: the peer is lost, though it may answer pings. */
  readonly ackTimeoutMs: number;
  /** A handshake that takes longer is given up and begun anew. */
  readonly handshakeTimeoutMs: number;
  /** Resync requests in flight, in bytes: at most, and beside clients until it is known what their latency allows. */
  readonly resyncWindowBytes: number;
  readonly resyncWindowBusyBytes: number;
  /** Bytes per second that a resync takes even if its clients wait longer for it; it never stands still. */
  readonly resyncRateMin: number;
  /** Bytes per second that a resync never exceeds; 0: no limit. The lower one of the two nodes holds. */
  readonly resyncRateMax: number;
  /** A resync that gets nowhere for this long is begun anew from the bitmap; an online verify ends. */
  readonly resyncStallMs: number;
  /** When a resync that comes to this node compares hashes first, and copies only what differs (resync-method.ts). */
  readonly checksumResync: ChecksumResync;
}

/** `after-crash`: where the marked blocks are suspects, most of them equal. */
export type ChecksumResync = 'always' | 'after-crash' | 'never';

/** What can change while the resource runs. */
export type CorePolicies = Omit<
  CoreOptions,
  'nodeName' | 'peerName' | 'sizeBytes' | 'protocol' | 'activityLogExtents'
>;

export const defaultCoreOptions = {
  protocol: 'C',
  activityLogExtents: 1237,
  onPeerLoss: 'continue',
  ...alwaysDisconnect,
  noDataTimeoutMs: 30_000,
  pingIntervalMs: 1_000,
  peerTimeoutMs: 4_000,
  ackTimeoutMs: 30_000,
  handshakeTimeoutMs: 10_000,
  resyncWindowBytes: 8 * 1024 * 1024,
  resyncWindowBusyBytes: 256 * 1024,
  resyncRateMin: 250 * 1024,
  resyncRateMax: 0,
  resyncStallMs: 30_000,
  checksumResync: 'after-crash',
} as const satisfies Partial<CoreOptions>;

/** Randomness, handed in. */
export interface GenerationSource {
  /** A random 64-bit number, never zero. */
  newGeneration(): Generation;
}
