/** From SEEK_DATA and SEEK_HOLE answers to allocation extents. */
import test from 'ava';
import { allocationExtents, isHoleWalk } from '../../../replicator/shell/allocation-map.ts';
import type { SeekWalk } from '../../../replicator/shell/allocation-map.ts';

/** Runs a walk over a file that holds data in the given ranges, [start, end). */
function runOver<Result>(walk: SeekWalk<Result>, data: readonly (readonly [number, number])[]): Result {
  let turn = walk.next();
  while (turn.done !== true) {
    const { offset, target } = turn.value;
    const inData = data.find(([start, end]) => offset >= start && offset < end);
    const nextData = data.find(([start]) => start >= offset);
    const found =
      target === 'data' ? (inData === undefined ? (nextData?.[0] ?? null) : offset) : (inData?.[1] ?? offset);
    turn = walk.next(found);
  }
  return turn.value;
}

const data = (lengthBytes: number) => ({ lengthBytes, hole: false, zero: false });
const hole = (lengthBytes: number) => ({ lengthBytes, hole: true, zero: true });

test('extents alternate and cover the range exactly', (t) => {
  const extents = runOver(allocationExtents(1000, 29_000, 100), [
    [0, 4096],
    [8192, 12_288],
    [20_480, 40_960],
  ]);
  t.deepEqual(extents, [data(3096), hole(4096), data(4096), hole(8192), data(9520)]);
});

test('no more extents than asked for are returned', (t) => {
  const extents = runOver(allocationExtents(0, 30_000, 2), [
    [4096, 8192],
    [12_288, 16_384],
  ]);
  t.deepEqual(extents, [hole(4096), data(4096)]);
});

test('a range behind the last data is one hole', (t) => {
  t.deepEqual(runOver(allocationExtents(8192, 1_000_000, 10), [[0, 4096]]), [hole(1_000_000)]);
});

test('answers that contradict each other count as data', (t) => {
  const walk = allocationExtents(0, 6000, 10);
  walk.next();
  // Data at 0, says the first answer; a hole at 0, says the second: somebody punched in between.
  walk.next(0);
  const next = walk.next(0);
  t.deepEqual(next.value, { offset: 4096, target: 'data' });
  t.deepEqual(walk.next(null).value, [data(4096), hole(1904)]);
});

test('a range is a hole only when no byte of it is allocated', (t) => {
  t.true(runOver(isHoleWalk(0, 4096), [[4096, 8192]]));
  t.false(runOver(isHoleWalk(0, 4097), [[4096, 8192]]));
  t.false(runOver(isHoleWalk(8191, 100), [[4096, 8192]]));
  t.true(runOver(isHoleWalk(8192, 100), [[4096, 8192]]));
});
