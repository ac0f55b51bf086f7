/**
 * Zeroes in what a growing device takes over of its backing: the part of a larger file behind the device, or the new part
 * of a block device. Cheap where the file system or device can zero by itself, otherwise by writing. Nobody uses the range
 * yet, so an error here says nothing about the device: the growth is refused, and the device stays as it is.
 */
import type { FileIo } from './file-io.ts';
import type { Allocation } from './libc.ts';

/** In one call; between two of them closing is noticed. Bytes. */
const allocationPieceBytes = 64 * 1024 * 1024;
const writePieceBytes = 1024 * 1024;

export interface ZeroedRange {
  readonly fd: number;
  readonly io: FileIo;
  readonly start: number;
  readonly end: number;
  /** Asked between pieces: an error to stop with, or null to go on. */
  readonly stopReason: () => Error | null;
}

/** `done` is called once; on success the range reads as zeroes (durably with the next flush). */
export function zeroRange(range: ZeroedRange, done: (error: Error | null) => void): void {
  zeroFrom(range, range.start, ['punch', 'zeroRange'], done);
}

/** Tries the ways in order; one that this file system does not know is not tried again. */
function zeroFrom(
  range: ZeroedRange,
  position: number,
  ways: readonly Allocation[],
  done: (error: Error | null) => void,
): void {
  const stop = range.stopReason();
  if (stop !== null || position >= range.end) {
    done(stop);
    return;
  }
  const [how, ...others] = ways;
  if (how === undefined) {
    const length = Math.min(writePieceBytes, range.end - position);
    range.io.write(range.fd, zeroes.subarray(0, length), position, (error) => {
      if (error === null) zeroFrom(range, position + length, ways, done);
      else done(error);
    });
    return;
  }
  const length = Math.min(allocationPieceBytes, range.end - position);
  range.io.fallocate(range.fd, how, position, length, (error) => {
    // Whatever the reason, writing is the judge of whether the range can be zeroed.
    if (error === null) zeroFrom(range, position + length, ways, done);
    else zeroFrom(range, position, others, done);
  });
}

const zeroes = Buffer.alloc(writePieceBytes);
