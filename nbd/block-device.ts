/**
 * The one interface through which the NBD front reaches what it exports. It is also the only
 * file of nbd/ that replicator/ imports: a device knows nothing of connections, cookies or replies.
 *
 * Ordering: a request is complete when its `done` is called. `done` may be called before the method
 * returns. A read issued after the `done` of a write, on any connection, sees that write.
 * Requests that are in flight together may be executed in any order.
 */

/**
 * Why a request failed; the NBD error values a server may send ("Error values" in the NBD protocol
 * document) less those that only the protocol itself produces.
 */
export type DeviceError = 'EIO' | 'ENOSPC' | 'EPERM' | 'EINVAL' | 'ENOTSUP' | 'ESHUTDOWN';

/** Called exactly once per request; `null` is success. */
export type Done = (error: DeviceError | null) => void;

/**
 * Called exactly once per write. `dataFree`: nothing of the device will look at the data any more, so that its memory may
 * be written again. Whoever does not know leaves it out.
 */
export type WriteDone = (error: DeviceError | null, dataFree?: boolean) => void;

/**
 * Called exactly once per read. On success `data` has exactly the requested length. It belongs to the
 * caller until it has been sent; the device does not touch it again.
 */
export type ReadDone = (error: DeviceError | null, data: Uint8Array | null) => void;

/** One run of blocks that share an allocation state (`base:allocation` in the NBD document). */
export interface AllocationExtent {
  readonly lengthBytes: number;
  /** NBD_STATE_HOLE: the range is not allocated. */
  readonly hole: boolean;
  /** NBD_STATE_ZERO: the range reads as zeroes now, on every connection. Never claimed on suspicion. */
  readonly zero: boolean;
}

export interface WriteOptions {
  /** NBD_CMD_FLAG_FUA: `done` only when the data is on stable storage of every participating replica. */
  readonly fua: boolean;
}

export interface ZeroOptions extends WriteOptions {
  /** NBD_CMD_FLAG_NO_HOLE: the range must stay (or become) allocated. */
  readonly noHole: boolean;
  /** NBD_CMD_FLAG_FAST_ZERO: fail with ENOTSUP, unchanged, rather than write zeroes slowly. */
  readonly fastZero: boolean;
}

/**
 * A block device; its size, in bytes, may grow while it is in use, and never shrinks. Offsets and lengths have been checked by the caller:
 * `0 <= offsetBytes`, `0 < lengthBytes`, `offsetBytes + lengthBytes <= sizeBytes`; they need no alignment.
 * Sizes are safe integers (below 2^53).
 */
export interface BlockDevice {
  readonly sizeBytes: number;

  read(offsetBytes: number, lengthBytes: number, done: ReadDone): void;

  /** The data of a read is no longer looked at: its memory may serve another. Whoever does not know leaves it to be garbage. */
  recycle?(data: Uint8Array): void;

  /**
   * `data` is handed over: the caller never changes its bytes again before `done` has said that they are free. The
   * device may keep the view (for the peer link) even after `done` otherwise.
   */
  write(offsetBytes: number, data: Uint8Array, options: WriteOptions, done: WriteDone): void;

  /** Everything whose `done` was called before this call is on stable storage of every participating replica. */
  flush(done: Done): void;

  /** A hint (NBD_CMD_TRIM); rounds inward, what is left reads as before or as zeroes. No length limit. */
  trim(offsetBytes: number, lengthBytes: number, options: WriteOptions, done: Done): void;

  /** Exact to the byte (NBD_CMD_WRITE_ZEROES). No length limit. */
  writeZeroes(offsetBytes: number, lengthBytes: number, options: ZeroOptions, done: Done): void;

  /** NBD_CMD_CACHE: a prefetch hint. No length limit. */
  cache(offsetBytes: number, lengthBytes: number, done: Done): void;

  /**
   * Allocation of a range, first extent first, covering the range from its start for as far as the device
   * cared to look (at least one extent, at most `maxExtents`, none of length zero, together at most `lengthBytes`).
   */
  blockStatus(
    offsetBytes: number,
    lengthBytes: number,
    maxExtents: number,
    done: (error: DeviceError | null, extents: readonly AllocationExtent[]) => void,
  ): void;
}
