/** Memory to read into: whose it is, and that it is used again. */
import test from 'ava';
import { ReadBuffers } from '../../../replicator/shell/read-buffers.ts';

const mebibyte = 1024 * 1024;

test('what was given back is handed out again, for the same length, and to one at a time', (t) => {
  const buffers = new ReadBuffers();
  const first = buffers.take(4096);
  t.not(buffers.take(4096), first);
  buffers.giveBack(first);
  t.not(buffers.take(8192), first);
  t.is(buffers.take(4096), first);
  t.not(buffers.take(4096), first);
});

test('memory from elsewhere, a part of some, or what was given back before, is left alone', (t) => {
  const buffers = new ReadBuffers();
  const foreign = Buffer.alloc(4096);
  buffers.giveBack(foreign);
  const part = buffers.take(8192).subarray(0, 4096);
  buffers.giveBack(part);
  const once = buffers.take(4096);
  t.false(once === foreign || once === part);
  buffers.giveBack(once);
  buffers.giveBack(once);
  t.is(buffers.take(4096), once);
  t.not(buffers.take(4096), once);
});

test('lengths that are not asked for any more make room for those that are', (t) => {
  const buffers = new ReadBuffers();
  const rare = Array.from({ length: 64 }, (_, at) => buffers.take(mebibyte - 4096 * (at + 1)));
  for (const buffer of rare) buffers.giveBack(buffer);
  const usual = Array.from({ length: 8 }, () => buffers.take(mebibyte));
  for (const buffer of usual) buffers.giveBack(buffer);
  // By identity: what they hold is anything.
  const again = new Set(Array.from({ length: 8 }, () => buffers.take(mebibyte)));
  t.true(usual.every((buffer) => again.has(buffer)));
});

test('no more than 8 MiB wait for their next use', (t) => {
  const buffers = new ReadBuffers();
  const taken = Array.from({ length: 9 }, () => buffers.take(mebibyte));
  for (const buffer of taken) buffers.giveBack(buffer);
  const again = new Set(Array.from({ length: 9 }, () => buffers.take(mebibyte)));
  t.is(taken.filter((buffer) => again.has(buffer)).length, 8);
  buffers.giveBack(buffers.take(16 * mebibyte));
});
