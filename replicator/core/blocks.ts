/**
 * Byte ranges in blocks of the dirty bitmap (4 KiB). Marking rounds outward, clearing rounds inward: a block that was
 * written in part may differ, and a block is proven equal only as a whole. All arithmetic is on plain numbers, since
 * block indices and byte offsets do not fit 32 bits.
 */
import type { BlockRun } from './packet.ts';
import { blockBytes, coarseBlocks, digestBytes, extentBytes } from './vocabulary.ts';

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

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

/** The blocks of a range that begins with one and ends with one, or with the device. */
export function bytesOf(run: BlockRun, sizeBytes: number): ByteRange {
  const offset = run.first * blockBytes;
  return { offset, length: Math.min(run.count * blockBytes, sizeBytes - offset) };
}

/** Runs less `run`; null unless it lies wholly in one of them. All ascending. */
export function withoutRun(runs: readonly BlockRun[], run: BlockRun): readonly BlockRun[] | null {
  const end = run.first + run.count;
  const at = runs.findIndex(({ first, count }) => first <= run.first && end <= first + count);
  const from = runs[at];
  if (from === undefined || run.count <= 0) return null;
  const left = [
    { first: from.first, count: run.first - from.first },
    { first: end, count: from.first + from.count - end },
  ];
  return runs.toSpliced(at, 1, ...left.filter(({ count }) => count > 0));
}

/** Runs less others; null unless each of those lies wholly in one of them. All ascending. */
export function withoutRuns(
  runs: readonly BlockRun[],
  others: readonly BlockRun[],
): readonly BlockRun[] | null {
  const left: BlockRun[] = [];
  let at = 0;
  for (const run of runs) {
    const end = run.first + run.count;
    let from = run.first;
    for (let other = others[at]; other !== undefined && other.first < end; other = others[++at]) {
      const otherEnd = other.first + other.count;
      if (other.first < from || other.count <= 0 || otherEnd > end) return null;
      if (other.first > from) left.push({ first: from, count: other.first - from });
      from = otherEnd;
    }
    if (from < end) left.push({ first: from, count: end - from });
  }
  return at === others.length ? left : null;
}

/** Each block of it as a run of its own. */
export function blocksOf({ first, count }: BlockRun): readonly BlockRun[] {
  return Array.from({ length: count }, (_, at) => ({ first: first + at, count: 1 }));
}

/** Ascending runs, with adjacent ones made one. */
export function joined(runs: readonly BlockRun[]): readonly BlockRun[] {
  const all: BlockRun[] = [];
  for (const run of runs) {
    const last = all.at(-1);
    if (last !== undefined && last.first + last.count === run.first)
      all[all.length - 1] = { first: last.first, count: last.count + run.count };
    else all.push(run);
  }
  return all;
}

/** From the first of these runs, ascending, to the last: all of them, and what lies between. */
export function spanOf(runs: readonly BlockRun[]): BlockRun {
  const first = runs[0]?.first ?? 0;
  const last = runs.at(-1) ?? { first, count: 0 };
  return { first, count: last.first + last.count - first };
}

/** What `runs`, ascending, leave of `whole`. */
export function complement(whole: BlockRun, runs: readonly BlockRun[]): readonly BlockRun[] {
  const left: BlockRun[] = [];
  let at = whole.first;
  for (const { first, count } of runs) {
    if (first > at) left.push({ first: at, count: first - at });
    at = first + count;
  }
  const end = whole.first + whole.count;
  if (end > at) left.push({ first: at, count: end - at });
  return left;
}

/** Runs counted from block `by` as runs counted from block 0. */
export function shiftRuns(runs: readonly BlockRun[], by: number): readonly BlockRun[] {
  return runs.map(({ first, count }) => ({ first: first + by, count }));
}

export function blocksIn(runs: readonly BlockRun[]): number {
  return runs.reduce((sum, { count }) => sum + count, 0);
}

/** Bytes of the hashes of a range of whole blocks: one each, or, `coarse`, one for every `coarseBlocks` from its beginning. */
export function digestsBytes(lengthBytes: number, coarse: boolean): number {
  const blocks = blockCountOf(lengthBytes);
  return (coarse ? Math.ceil(blocks / coarseBlocks) : blocks) * digestBytes;
}

/** The blocks behind these hashes, given as ascending runs of them, of a range of `blockCount`. */
export function blocksOfDigests(
  hashes: readonly BlockRun[],
  blockCount: number,
  coarse: boolean,
): readonly BlockRun[] {
  if (!coarse) return hashes;
  return hashes.map((run) => {
    const first = run.first * coarseBlocks;
    return { first, count: Math.min(run.count * coarseBlocks, blockCount - first) };
  });
}

function touched(offsetBytes: number, lengthBytes: number, unitBytes: number): BlockRun {
  const first = Math.floor(offsetBytes / unitBytes);
  if (lengthBytes <= 0) return { first, count: 0 };
  return { first, count: Math.floor((offsetBytes + lengthBytes - 1) / unitBytes) - first + 1 };
}
