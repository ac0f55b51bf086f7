/** A store's share of the thread pool: what hangs holds up its own kind only, and says so. */
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { systemFileIo } from '../../../replicator/shell/file-io.ts';
import type { FileIo } from '../../../replicator/shell/file-io.ts';
import { PoolShare } from '../../../replicator/shell/pool-share.ts';
import { openStore, outcome } from '../../support/backing.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const limits = { reads: 2, writes: 1, seeks: 1 };

/** A pool whose reads and syncs end when the test says so; everything else is the system's. */
function hangingPool() {
  const reads: { readonly position: number; readonly end: () => void }[] = [];
  const syncs: (() => void)[] = [];
  const pooledWrites: number[] = [];
  const io: FileIo = {
    ...systemFileIo,
    readCached: () => 'EAGAIN',
    read: (_fd, _data, position, done) => void reads.push({ position, end: () => done(null) }),
    write: (fd, data, position, done) => {
      pooledWrites.push(position);
      systemFileIo.write(fd, data, position, done);
    },
    fdatasync: (_fd, done) => void syncs.push(() => done(null)),
  };
  return { io, reads, syncs, pooledWrites };
}

function storeOn(t: ExecutionContext, io: FileIo) {
  return openStore(t, { path: join(temporaryDirectory(t), 'data'), sizeBytes: 1024 * 1024, io });
}

test('reads that hang take the threads of their lane, and no more; the others follow in order', (t) => {
  const { io, reads } = hangingPool();
  const share = new PoolShare(io, () => 0, limits);
  const ended: number[] = [];
  for (let position = 0; position < 5; position++) {
    share.io.read(3, Buffer.alloc(1), position, () => ended.push(position));
  }
  t.deepEqual(
    reads.map(({ position }) => position),
    [0, 1],
  );
  reads[1]?.end();
  t.deepEqual(
    reads.map(({ position }) => position),
    [0, 1, 2],
  );
  for (let index = 0; index < 5; index++) if (index !== 1) reads[index]?.end();
  t.deepEqual(ended, [1, 0, 2, 3, 4]);
});

test('a write and a flush go on beside any number of reads that hang', async (t) => {
  const { io, reads, syncs } = hangingPool();
  const store = await storeOn(t, io);
  const answers = Array.from({ length: 100 }, (_, index) =>
    outcome((done) => store.read(index * 512, 512, (error) => done(error))),
  );
  t.true(reads.length < answers.length);
  t.is(await outcome((done) => store.write(0, Buffer.alloc(4096, 1), done)), null);
  t.is(await outcome((done) => store.write(0, Buffer.alloc(512 * 1024, 1), done)), null);
  const flushed = outcome((done) => store.flush(done));
  t.is(syncs.length, 1);
  syncs[0]?.();
  t.is(await flushed, null);
  for (const { end } of reads) end();
  // Each that ends makes room for one more.
  for (let index = 0; index < reads.length; index++) reads[index]?.end();
  t.deepEqual(new Set(await Promise.all(answers)), new Set([null]));
});

test('the disk counts as stalled while its oldest operation is old, and no longer', (t) => {
  const { io, syncs, reads } = hangingPool();
  let nowMs = 1000;
  const share = new PoolShare(io, () => nowMs, limits);
  t.false(share.isStalled);
  share.io.fdatasync(3, () => undefined);
  t.false(share.isStalled);
  nowMs += 1000;
  t.true(share.isStalled);
  share.io.read(3, Buffer.alloc(1), 0, () => undefined);
  syncs[0]?.();
  t.false(share.isStalled);
  reads[0]?.end();
  t.false(share.isStalled);
});

test('a seek keeps its answer through its lane', async (t) => {
  const io: FileIo = { ...systemFileIo, seek: (_fd, offset, _target, done) => done(null, offset + 7) };
  const share = new PoolShare(io, () => 0, limits);
  t.is(await new Promise((resolve) => share.io.seek(3, 35, 'data', (_error, found) => resolve(found))), 42);
});
