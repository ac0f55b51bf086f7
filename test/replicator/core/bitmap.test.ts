/** The dirty bitmap against a plain set, its stored images, and its memory at 16 TiB. */
import test from 'ava';
import fc from 'fast-check';
import { BlockBitmap, chunkBlocks } from '../../../replicator/core/bitmap.ts';
import type { BlockRun } from '../../../replicator/core/packet.ts';

const sixteenTebibytes = 2 ** 32;

type Step = { readonly op: 'set' | 'clear'; readonly first: number; readonly count: number };

function arbitrarySteps(firsts: fc.Arbitrary<number>, countMax: number, size: number): fc.Arbitrary<Step[]> {
  const step = fc.record({
    op: fc.constantFrom<'set' | 'clear'>('set', 'set', 'clear'),
    first: firsts,
    count: fc.oneof(fc.nat(3), fc.nat(countMax)),
  });
  return fc.array(
    step.map((one) => ({ ...one, count: Math.min(one.count, size - one.first) })),
    { maxLength: 30, size: 'max' },
  );
}

function apply(bitmap: BlockBitmap, step: Step): void {
  if (step.op === 'set') bitmap.setRange(step.first, step.count);
  else bitmap.clearRange(step.first, step.count);
}

function runsOf(sorted: readonly number[]): BlockRun[] {
  const runs: { first: number; count: number }[] = [];
  for (const block of sorted) {
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === block) last.count++;
    else runs.push({ first: block, count: 1 });
  }
  return runs;
}

test('bitmap: marks what a set of numbers would hold, also beyond 2^31 and across chunks', (t) => {
  const corners = [0, chunkBlocks, 2 * chunkBlocks, 2 ** 31, 2 ** 31 + chunkBlocks, sixteenTebibytes - 400];
  const firsts = fc.tuple(fc.constantFrom(...corners), fc.integer({ min: -150, max: 150 }));
  const near = firsts.map(([corner, delta]) => Math.max(0, corner + delta));
  fc.assert(
    fc.property(arbitrarySteps(near, 200, sixteenTebibytes), near, (steps, from) => {
      const bitmap = new BlockBitmap(sixteenTebibytes);
      const model = new Set<number>();
      for (const step of steps) {
        apply(bitmap, step);
        for (let block = step.first; block < step.first + step.count; block++) {
          if (step.op === 'set') model.add(block);
          else model.delete(block);
        }
        t.is(bitmap.countSet, model.size);
        t.is(bitmap.isSet(step.first), model.has(step.first));
      }
      const sorted = [...model].sort((a, b) => a - b);
      t.deepEqual([...bitmap.runs()], runsOf(sorted));
      const within = sorted.filter((block) => block >= from && block < from + 300).length;
      const length = Math.min(300, sixteenTebibytes - from);
      t.is(bitmap.countIn(from, length), within);
      t.is(bitmap.anySet(from, length), within > 0);
      t.deepEqual(
        [...bitmap.dirtyChunks()],
        [...new Set(sorted.map((block) => Math.floor(block / chunkBlocks)))],
      );
    }),
    { numRuns: 60 },
  );
});

test('bitmap: ranges of any density agree with an array of flags, whatever form the chunks take', (t) => {
  const size = 3 * chunkBlocks + 1000;
  const first = fc.oneof(fc.nat(size - 1), fc.constantFrom(0, chunkBlocks, 2 * chunkBlocks, 3 * chunkBlocks));
  fc.assert(
    fc.property(arbitrarySteps(first, 100_000, size), first, fc.nat(70_000), (steps, from, max) => {
      const bitmap = new BlockBitmap(size);
      const flags = new Uint8Array(size);
      for (const step of steps) {
        apply(bitmap, step);
        flags.fill(step.op === 'set' ? 1 : 0, step.first, step.first + step.count);
      }
      const count = flags.reduce((sum, flag) => sum + flag, 0);
      t.is(bitmap.countSet, count);
      t.is(bitmap.isEmpty, count === 0);
      const length = Math.min(max, size - from);
      t.is(
        bitmap.countIn(from, length),
        flags.subarray(from, from + length).reduce((sum, flag) => sum + flag, 0),
      );
      const start = flags.indexOf(1, from);
      const run = bitmap.nextRun(from, max);
      if (start === -1 || max === 0) {
        t.is(run, null);
      } else {
        const clear = flags.indexOf(0, start);
        const end = clear === -1 ? size : clear;
        t.deepEqual(run, { first: start, count: Math.min(end - start, max) });
      }
      const copy = new Uint8Array(size);
      for (const one of bitmap.runs()) copy.fill(1, one.first, one.first + one.count);
      t.is(Buffer.compare(copy, flags), 0);
    }),
    { numRuns: 60 },
  );
});

test('bitmap: images of its chunks bring back the same marks, and replace what was there', (t) => {
  const size = 2 * chunkBlocks + 77;
  const first = fc.oneof(fc.nat(size - 1), fc.constantFrom(0, chunkBlocks, 2 * chunkBlocks));
  fc.assert(
    fc.property(arbitrarySteps(first, 80_000, size), arbitrarySteps(first, 80_000, size), (steps, others) => {
      const bitmap = new BlockBitmap(size);
      const copy = new BlockBitmap(size);
      for (const step of steps) apply(bitmap, step);
      for (const step of others) apply(copy, step);
      for (let chunk = 0; chunk < bitmap.chunkCount; chunk++) {
        const image = bitmap.encodeChunk(chunk);
        const first = chunk * chunkBlocks;
        if (image === null) copy.clearRange(first, Math.min(chunkBlocks, size - first));
        else t.true(copy.decodeChunk(chunk, image));
      }
      t.is(copy.countSet, bitmap.countSet);
      t.deepEqual([...copy.runs()], [...bitmap.runs()]);
    }),
    { numRuns: 60 },
  );
});

test('bitmap: orWith marks the union and leaves the other as it was', (t) => {
  const size = 2 * chunkBlocks + 77;
  const first = fc.oneof(fc.nat(size - 1), fc.constantFrom(0, chunkBlocks));
  fc.assert(
    fc.property(arbitrarySteps(first, 70_000, size), arbitrarySteps(first, 70_000, size), (ours, theirs) => {
      const bitmap = new BlockBitmap(size);
      const other = new BlockBitmap(size);
      for (const step of ours) apply(bitmap, step);
      for (const step of theirs) apply(other, step);
      const before = [...other.runs()];
      const expected = new BlockBitmap(size);
      for (const run of [...bitmap.runs(), ...before]) expected.setRange(run.first, run.count);
      bitmap.orWith(other);
      t.deepEqual([...bitmap.runs()], [...expected.runs()]);
      t.is(bitmap.countSet, expected.countSet);
      bitmap.setRange(5, 1);
      bitmap.clearRange(6, size - 6);
      t.deepEqual([...other.runs()], before);
    }),
    { numRuns: 60 },
  );
});

test('bitmap: a full chunk of a device that has grown since is full only as far as it went', (t) => {
  const small = new BlockBitmap(100);
  small.setRange(0, 100);
  const image = small.encodeChunk(0);
  const grown = new BlockBitmap(5000);
  t.true(image !== null && grown.decodeChunk(0, image));
  t.deepEqual([...grown.runs()], [{ first: 0, count: 100 }]);
  const merged = new BlockBitmap(5000);
  merged.orWith(small);
  t.deepEqual([...merged.runs()], [{ first: 0, count: 100 }]);
});

const malformed: readonly [string, number[]][] = [
  ['nothing', []],
  ['an unknown form', [9, 0, 0]],
  ['full without its count', [1, 1, 0]],
  ['full of no blocks', [1, 0, 0, 0, 0]],
  ['full of more blocks than there are', [1, 0x2d, 1, 0, 0]],
  ['full with a byte too many', [1, 1, 0, 0, 0, 0]],
  ['an empty list', [2]],
  ['half a position', [2, 1]],
  ['a position twice', [2, 1, 0, 1, 0]],
  ['descending positions', [2, 2, 0, 1, 0]],
  ['a position beyond the device', [2, 0x2c, 1]],
  ['no bit set', [3, ...Array<number>(8192).fill(0)]],
  ['a bit field cut short', [3, ...Array<number>(8191).fill(1)]],
  ['a bit beyond the device', [3, ...Array<number>(38).fill(0), 1, ...Array<number>(8153).fill(0)]],
];

for (const [what, bytes] of malformed) {
  test(`bitmap: a chunk image is refused and changes nothing: ${what}`, (t) => {
    const bitmap = new BlockBitmap(300);
    bitmap.setRange(7, 3);
    t.false(bitmap.decodeChunk(0, Uint8Array.from(bytes)));
    t.deepEqual([...bitmap.runs()], [{ first: 7, count: 3 }]);
  });
}

test('bitmap: a device that grows keeps its marks, has no others, and takes new ones', (t) => {
  const sizes = fc.array(fc.oneof(fc.nat(3), fc.nat(100), fc.nat(2 * chunkBlocks)), { maxLength: 4 });
  const first = fc.oneof(fc.constant(0), fc.nat(2 * chunkBlocks));
  const count = fc.oneof(fc.nat(3), fc.nat(2 * chunkBlocks));
  fc.assert(
    fc.property(fc.nat(2 * chunkBlocks), sizes, fc.array(fc.tuple(first, count)), (size, growth, ranges) => {
      let blocks = size;
      const bitmap = new BlockBitmap(blocks);
      const model = new Uint8Array(size + growth.reduce((sum, more) => sum + more, 0));
      for (const more of [...growth, 0]) {
        for (const [from, length] of ranges) {
          const start = Math.min(from, blocks);
          const end = Math.min(start + length, blocks);
          bitmap.setRange(start, end - start);
          model.fill(1, start, end);
        }
        blocks += more;
        bitmap.grow(blocks);
        t.is(bitmap.blockCount, blocks);
        t.is(
          bitmap.countSet,
          model.reduce((sum, flag) => sum + flag, 0),
        );
        const again = new BlockBitmap(blocks);
        for (const chunk of bitmap.dirtyChunks()) {
          t.true(again.decodeChunk(chunk, bitmap.encodeChunk(chunk) ?? new Uint8Array(0)));
        }
        t.deepEqual([...again.runs()], [...bitmap.runs()]);
        t.true(
          [...bitmap.runs()].every((run) => model.subarray(run.first, run.first + run.count).every(Boolean)),
        );
      }
      bitmap.clearRange(0, blocks);
      return bitmap.isEmpty && [...bitmap.runs()].length === 0;
    }),
    { numRuns: 60 },
  );
  t.throws(() => new BlockBitmap(5).grow(4), { instanceOf: RangeError });
});

test('bitmap: an image for a chunk the device does not have is refused', (t) => {
  const bitmap = new BlockBitmap(300);
  for (const chunk of [-1, 1, 0.5]) t.false(bitmap.decodeChunk(chunk, Uint8Array.of(2, 0, 0)));
});

test('bitmap: the bytes of an image are as documented', (t) => {
  const bitmap = new BlockBitmap(70_000);
  t.is(bitmap.encodeChunk(0), null);
  bitmap.setRange(258, 2);
  t.deepEqual(bitmap.encodeChunk(0), Uint8Array.of(2, 2, 1, 3, 1));
  bitmap.setRange(65_536, 4464);
  t.deepEqual(bitmap.encodeChunk(1), Uint8Array.of(1, 0x70, 0x11, 0, 0));
  bitmap.setRange(8, 5000);
  const bits = bitmap.encodeChunk(0);
  t.is(bits?.length, 8193);
  t.deepEqual(bits?.slice(0, 4), Uint8Array.of(3, 0, 0xff, 0xff));
});

test('bitmap: a clean 16 TiB device costs next to nothing, a full one little, a sparse one what is marked', (t) => {
  const bitmap = new BlockBitmap(sixteenTebibytes);
  t.true(bitmap.memoryBytes < 1024);
  bitmap.setRange(0, sixteenTebibytes);
  t.is(bitmap.countSet, sixteenTebibytes);
  t.true(bitmap.memoryBytes < 64 * 1024);
  t.deepEqual([...bitmap.runs()], [{ first: 0, count: sixteenTebibytes }]);
  bitmap.clearRange(1, sixteenTebibytes - 1);
  t.deepEqual([...bitmap.runs()], [{ first: 0, count: 1 }]);
  bitmap.clear();
  for (let i = 0; i < 1000; i++) bitmap.setRange(i * 4_000_000, 1);
  t.true(bitmap.memoryBytes < 512 * 1024);
  bitmap.clearRange(0, sixteenTebibytes);
  t.is(bitmap.countSet, 0);
  t.true(bitmap.memoryBytes < 64 * 1024);
});

test('bitmap: a dense chunk costs no more than one bit per block', (t) => {
  const bitmap = new BlockBitmap(chunkBlocks);
  for (let block = 0; block < chunkBlocks; block += 2) bitmap.setRange(block, 1);
  t.true(bitmap.memoryBytes < 9 * 1024);
  for (let block = 0; block < chunkBlocks; block += 2) if (block % 1024 !== 0) bitmap.clearRange(block, 1);
  t.is(bitmap.countSet, 64);
  t.true(bitmap.memoryBytes < 5 * 1024);
});

test('bitmap: ranges outside the device are bugs', (t) => {
  const bitmap = new BlockBitmap(100);
  t.throws(() => bitmap.setRange(99, 2), { instanceOf: RangeError });
  t.throws(() => bitmap.clearRange(-1, 1), { instanceOf: RangeError });
  t.throws(() => bitmap.isSet(100), { instanceOf: RangeError });
  t.throws(() => bitmap.setRange(0.5, 1), { instanceOf: RangeError });
});
