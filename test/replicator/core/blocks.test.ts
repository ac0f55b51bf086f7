/** Rounding of byte ranges to blocks and extents. */
import test from 'ava';
import fc from 'fast-check';
import {
  blockCountOf,
  blocksCovered,
  blocksTouched,
  bytesOf,
  complement,
  blocksOfDigests,
  digestsBytes,
  extentsTouched,
  shiftRuns,
  withoutRun,
} from '../../../replicator/core/blocks.ts';

const terabyte = 2 ** 40;

test('blocksTouched: a range touches every block of which it holds a byte', (t) => {
  t.deepEqual(blocksTouched(0, 1), { first: 0, count: 1 });
  t.deepEqual(blocksTouched(4095, 1), { first: 0, count: 1 });
  t.deepEqual(blocksTouched(4095, 2), { first: 0, count: 2 });
  t.deepEqual(blocksTouched(4096, 4096), { first: 1, count: 1 });
  t.deepEqual(blocksTouched(16 * terabyte - 512, 512), { first: 2 ** 32 - 1, count: 1 });
  t.is(blocksTouched(8192, 0).count, 0);
});

test('blocksCovered: only whole blocks, but the cut block at the end of the device counts', (t) => {
  t.deepEqual(blocksCovered(0, 4095, 1_000_000), { first: 0, count: 0 });
  t.deepEqual(blocksCovered(1, 8191, 1_000_000), { first: 1, count: 1 });
  t.is(blocksCovered(1, 4096, 1_000_000).count, 0);
  t.deepEqual(blocksCovered(4096, 904, 5000), { first: 1, count: 1 });
  t.is(blocksCovered(4096, 903, 5000).count, 0);
  t.is(blocksCovered(4097, 903, 5000).count, 0);
});

test('covered blocks lie inside the touched ones and differ by at most one at each end', (t) => {
  fc.assert(
    fc.property(
      fc.nat(2 ** 40),
      fc.integer({ min: 1, max: 2 ** 32 }),
      fc.nat(10_000),
      (offset, length, rest) => {
        const size = offset + length + rest;
        const outer = blocksTouched(offset, length);
        const inner = blocksCovered(offset, length, size);
        t.true(outer.first + outer.count <= blockCountOf(size));
        t.true(inner.first >= outer.first && inner.first <= outer.first + 1);
        t.true(inner.count <= outer.count && inner.count >= outer.count - 2);
      },
    ),
  );
});

test('extentsTouched: extents are 4 MiB', (t) => {
  t.deepEqual(extentsTouched(4 * 2 ** 20 - 1, 2), { first: 0, count: 2 });
  t.deepEqual(extentsTouched(0, 16 * terabyte), { first: 0, count: 2 ** 22 });
});

test('bytesOf: the last run of a device ends with it', (t) => {
  t.deepEqual(bytesOf({ first: 1, count: 2 }, 100_000), { offset: 4096, length: 8192 });
  t.deepEqual(bytesOf({ first: 1, count: 2 }, 9000), { offset: 4096, length: 9000 - 4096 });
});

test('withoutRun: takes a run out of one of the runs, or says that it is not in them', (t) => {
  const runs = [
    { first: 2, count: 4 },
    { first: 10, count: 1 },
  ];
  t.deepEqual(withoutRun(runs, { first: 3, count: 2 }), [
    { first: 2, count: 1 },
    { first: 5, count: 1 },
    { first: 10, count: 1 },
  ]);
  t.deepEqual(withoutRun(runs, { first: 2, count: 4 }), [{ first: 10, count: 1 }]);
  t.deepEqual(withoutRun(runs, { first: 10, count: 1 }), [{ first: 2, count: 4 }]);
  for (const outside of [
    { first: 1, count: 2 },
    { first: 5, count: 2 },
    { first: 2, count: 9 },
    { first: 10, count: 0 },
  ]) {
    t.is(withoutRun(runs, outside), null);
  }
});

test('complement: what ascending runs leave of a whole', (t) => {
  const whole = { first: 4, count: 6 };
  t.deepEqual(complement(whole, []), [whole]);
  t.deepEqual(complement(whole, [whole]), []);
  const middle = [
    { first: 5, count: 2 },
    { first: 9, count: 1 },
  ];
  t.deepEqual(complement(whole, middle), [
    { first: 4, count: 1 },
    { first: 7, count: 2 },
  ]);
});

test('shiftRuns and digestsBytes count in blocks', (t) => {
  t.deepEqual(shiftRuns([{ first: 1, count: 2 }], 256), [{ first: 257, count: 2 }]);
  t.is(digestsBytes(4096, false), 32);
  t.is(digestsBytes(4097, false), 64);
  t.is(digestsBytes(32 * 4096, true), 32);
  t.is(digestsBytes(32 * 4096 + 1, true), 64);
});

test('blocksOfDigests: a coarse hash is about 32 blocks, the last one of a range about what is left of it', (t) => {
  const hashes = [
    { first: 0, count: 2 },
    { first: 7, count: 1 },
  ];
  t.deepEqual(blocksOfDigests(hashes, 8, false), hashes);
  t.deepEqual(blocksOfDigests(hashes, 230, true), [
    { first: 0, count: 64 },
    { first: 224, count: 6 },
  ]);
  t.deepEqual(blocksOfDigests([{ first: 0, count: 8 }], 250, true), [{ first: 0, count: 250 }]);
});
