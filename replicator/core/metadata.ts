/**
 * What a replica remembers across a crash, as values. The shell keeps it in SQLite; the simulator keeps it in a
 * model with a crash at every commit point. A transaction is atomic and durable when `metadataCommitted` comes back;
 * transactions commit in the order in which they were issued.
 */
import type { Generation } from './vocabulary.ts';

/** What is durably known of the data on this node's disk. */
export type RecordedDisk = 'Inconsistent' | 'Outdated' | 'Consistent' | 'UpToDate';

/** Where the data on this disk came from before the first handshake or forced promotion settled it. */
export type Origin = 'created-empty' | 'created-with-data' | 'settled';

export const maxHistory = 32;
export const maxBitmapGenerations = 8;

export interface Superblock {
  readonly sizeBytes: number;
  readonly origin: Origin;
  /** The generation of the data on this disk. Never zero: a new replica draws a random one. */
  readonly current: Generation;
  /**
   * Generations relative to which the bitmap (with the activity log) holds every difference: the peer's disk
   * is one of these with no more than the marked blocks different. Oldest first; empty when none.
   */
  readonly bitmap: readonly Generation[];
  /** This node was Primary when it began to keep `bitmap`: when the copies parted. Means nothing while that is empty. */
  readonly partedAsPrimary: boolean;
  /** Earlier generations, newest first, at most `maxHistory`. */
  readonly history: readonly Generation[];
  readonly disk: RecordedDisk;
  /** Promoted and not yet cleanly demoted: set again at start, it means a crashed Primary. */
  readonly primary: boolean;
  /** This node wrote the current generation (each generation has one writer at most). */
  readonly writer: boolean;
  /** The peer was connected, and this node has not noticed its loss. Cleared only after a flush of the own disk. */
  readonly linked: boolean;
  /**
   * The current generation was begun here alone, and the peer has no part in it: writes may be acknowledged from this copy.
   * Not so once a resync to the peer begins, which ends with the peer taking this generation for its own.
   */
  readonly peerExcluded: boolean;
  /** The backing device failed or was detached while the resource went on through the peer. */
  readonly detached: boolean;
}

/** An active range of the activity log: `count` extents from `first`. Ordinary entries have count 1. */
export interface ActiveRange {
  readonly first: number;
  readonly count: number;
}

/** One chunk (256 MiB) of the persisted bitmap; `null` removes it (all clean). The encoding is bitmap.ts's own. */
export interface ChunkImage {
  readonly chunk: number;
  readonly image: Uint8Array | null;
}

export interface Transaction {
  readonly superblock?: Superblock;
  readonly activate?: readonly ActiveRange[];
  readonly deactivate?: readonly ActiveRange[];
  readonly chunks?: readonly ChunkImage[];
  /** Remove every persisted chunk before `chunks` is applied. */
  readonly clearChunks?: boolean;
}

/** Everything the metadata store holds, as read at attach. */
export interface MetadataImage {
  readonly superblock: Superblock;
  readonly active: readonly ActiveRange[];
  readonly chunks: readonly { readonly chunk: number; readonly image: Uint8Array }[];
}
