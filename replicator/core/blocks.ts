/**
 * Byte ranges in blocks of the dirty bitmap (4 KiB). Marking rounds outward, clearing rounds inward: a block that was
 * written in part may differ, and a block is proven equal only as a whole. All arithmetic is on plain numbers, since
 * block indices and byte offsets do not fit 32 bits.
 */
import type { BlockRun } from './packet.ts';
import { blockBytes, extentBytes } from './vocabulary.ts';

/** Blocks of a device of that many bytes; a partial block at its end counts. */
export function blockCountOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / blockBytes);
}

/** Every block of which a byte lies in the range. Count 0 for an empty range. */
export function blocksTouched(offsetBytes: number, lengthBytes: number): BlockRun {
  return touched(offsetBytes, lengthBytes, blockBytes);
}

/**
 * The blocks that lie wholly in the range; the last block of the device may be cut short by `sizeBytes` and then counts
 * as covered when the range reaches the end of the device. Count 0 when there is none.
 */
export function blocksCovered(offsetBytes: number, lengthBytes: number, sizeBytes: number): BlockRun {
  const first = Math.ceil(offsetBytes / blockBytes);
  const endBytes = offsetBytes + lengthBytes;
  const end = endBytes >= sizeBytes ? blockCountOf(sizeBytes) : Math.floor(endBytes / blockBytes);
  return { first, count: Math.max(0, end - first) };
}

/** Every 4 MiB extent of the activity log of which a byte lies in the range. */
export function extentsTouched(offsetBytes: number, lengthBytes: number): BlockRun {
  return touched(offsetBytes, lengthBytes, extentBytes);
}

function touched(offsetBytes: number, lengthBytes: number, unitBytes: number): BlockRun {
  const first = Math.floor(offsetBytes / unitBytes);
  if (lengthBytes <= 0) return { first, count: 0 };
  return { first, count: Math.floor((offsetBytes + lengthBytes - 1) / unitBytes) - first + 1 };
}
