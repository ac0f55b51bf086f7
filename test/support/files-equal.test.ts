/** The image comparison that other tests rest on. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { compareFiles } from './files-equal.ts';

const gibibyte = 1024 ** 3;

test('a hole equals zeroes, and sparse images of terabytes are compared at once', (t) => {
  const image = imageMaker(t);
  const sizeBytes = 4096 * gibibyte;
  const data = Buffer.from('some data in the middle');
  const a = image(sizeBytes, [[3 * gibibyte + 5, data]]);
  const b = image(sizeBytes, [
    [0, Buffer.alloc(3 * 4096)],
    [3 * gibibyte + 5, data],
    [sizeBytes - 1, Buffer.alloc(1)],
  ]);
  t.true(statSync(b).blocks > 0);
  t.deepEqual(compareFiles(a, b), { equal: true });
  t.deepEqual(compareFiles(a, a), { equal: true });
});

test('the first difference and the number of differing blocks are told', (t) => {
  const image = imageMaker(t);
  const byte = Buffer.of(1);
  const a = image(gibibyte, [[4096 * 700 + 17, byte]]);
  const b = image(gibibyte, [
    [4096 * 700 + 18, byte],
    [4096 * 700 + 4095, byte],
    [4096 * 701, byte],
    [gibibyte - 1, byte],
  ]);
  const expected = {
    equal: false,
    reason: 'content',
    firstOffset: 4096 * 700 + 17,
    differingBlocks: 3,
  } as const;
  t.deepEqual(compareFiles(a, b), expected);
  t.deepEqual(compareFiles(b, a), expected);
});

test('a last block shorter than a block counts', (t) => {
  const image = imageMaker(t);
  const a = image(5000, []);
  const b = image(5000, [[4999, Buffer.of(1)]]);
  t.deepEqual(compareFiles(a, b), {
    equal: false,
    reason: 'content',
    firstOffset: 4999,
    differingBlocks: 1,
  });
  t.deepEqual(compareFiles(a, image(4999, [])), { equal: false, reason: 'size', sizes: [5000, 4999] });
});

type Write = readonly [offset: number, data: Buffer];

function imageMaker(t: ExecutionContext): (sizeBytes: number, writes: readonly Write[]) => string {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-images-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  let count = 0;
  return (sizeBytes, writes) => {
    const path = join(folder, String(count++));
    const fd = openSync(path, 'w');
    ftruncateSync(fd, sizeBytes);
    for (const [offset, data] of writes) writeSync(fd, data, 0, data.length, offset);
    closeSync(fd);
    return path;
  };
}
