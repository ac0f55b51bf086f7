/**
 * Which parts of a file are allocated, found with SEEK_DATA and SEEK_HOLE (lseek(2)). Written as generators that
 * ask for one seek at a time, so that the same walk runs on this thread or off it.
 */
import type { AllocationExtent } from '../../nbd/block-device.ts';
import type { SeekTarget } from './libc.ts';

export interface SeekQuestion {
  readonly offset: number;
  readonly target: SeekTarget;
}

/** A walk asks seeks, gets the offset found (or null for "none up to the end of the file"), and returns its result. */
export type SeekWalk<Result> = Generator<SeekQuestion, Result, number | null>;

/**
 * Extents from `offset` on, alternating between data and holes, at most `maxExtents`. A hole reads as zeroes.
 * Somebody may punch or write meanwhile: where the answers contradict each other, the range counts as data.
 */
export function* allocationExtents(
  offset: number,
  lengthBytes: number,
  maxExtents: number,
): SeekWalk<readonly AllocationExtent[]> {
  const end = offset + lengthBytes;
  const extents: AllocationExtent[] = [];
  let position = offset;
  while (position < end && extents.length < maxExtents) {
    const data = Math.min((yield { offset: position, target: 'data' }) ?? end, end);
    if (data > position) {
      extents.push({ lengthBytes: data - position, hole: true, zero: true });
      position = data;
      continue;
    }
    const found = Math.min((yield { offset: position, target: 'hole' }) ?? end, end);
    const hole = found > position ? found : Math.min(position + contradictionBytes, end);
    extents.push({ lengthBytes: hole - position, hole: false, zero: false });
    position = hole;
  }
  return extents;
}

const contradictionBytes = 4096;

/** Whether nothing of the range is allocated. */
export function* isHoleWalk(offset: number, lengthBytes: number): SeekWalk<boolean> {
  const data = yield { offset, target: 'data' };
  return data === null || data >= offset + lengthBytes;
}
