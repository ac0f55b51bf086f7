/** What is known of the data in a file is not asked for again, and is forgotten with the first deallocation. */
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { BackingStore } from '../../../replicator/shell/backing-store.ts';
import type { FileIo } from '../../../replicator/shell/file-io.ts';
import { systemFileIo } from '../../../replicator/shell/file-io.ts';
import { KnownData } from '../../../replicator/shell/known-data.ts';
import { openStore, outcome } from '../../support/backing.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const mebibyte = 1024 * 1024;

test('what is learnt is known, together with what it touches', (t) => {
  const known = new KnownData();
  t.false(known.covers(0, 1));
  known.learn(100, 200, known.age);
  known.learn(200, 300, known.age);
  t.true(known.covers(100, 200));
  t.false(known.covers(100, 201));
  t.false(known.covers(99, 2));
  known.learn(150, 160, known.age);
  t.true(known.covers(100, 200));
  known.learn(400, 500, known.age);
  t.true(known.covers(400, 100));
  t.false(known.covers(300, 110));
});

test('what was asked before something was deallocated is not learnt after it', (t) => {
  const known = new KnownData();
  const asked = known.age;
  known.learn(0, 100, asked);
  known.forget();
  t.false(known.covers(0, 1));
  known.learn(0, 100, asked);
  t.false(known.covers(0, 1));
});

interface Counted {
  readonly store: BackingStore;
  readonly holeSeeks: () => number;
}

async function countedStore(t: ExecutionContext): Promise<Counted> {
  let seeks = 0;
  const io: FileIo = {
    ...systemFileIo,
    seekNow(fd, offset, target) {
      if (target === 'hole') seeks++;
      return systemFileIo.seekNow(fd, offset, target);
    },
    seek(fd, offset, target, done) {
      if (target === 'hole') seeks++;
      systemFileIo.seek(fd, offset, target, done);
    },
  };
  const path = join(temporaryDirectory(t), 'data');
  const store = await openStore(t, { path, sizeBytes: 8 * mebibyte, io });
  const error = await outcome((done) => store.write(0, Buffer.alloc(4 * mebibyte, 1), done));
  if (error !== null) throw new Error(error);
  return { store, holeSeeks: () => seeks };
}

function isHoleAt(store: BackingStore, offset: number): Promise<boolean | undefined> {
  return new Promise((resolve, reject) =>
    store.blockStatus(offset, 4096, 1, (error, extents) => {
      if (error === null) resolve(extents[0]?.hole);
      else reject(error);
    }),
  );
}

test('the end of the data is looked for once for all pieces of it', async (t) => {
  const { store, holeSeeks } = await countedStore(t);
  for (let at = 0; at < 4 * mebibyte; at += 256 * 1024) t.false(await isHoleAt(store, at));
  t.is(holeSeeks(), 1);
  t.true(await isHoleAt(store, 5 * mebibyte));
});

test('a hole that is punched into known data is one', async (t) => {
  const { store } = await countedStore(t);
  t.false(await isHoleAt(store, mebibyte));
  t.is(await outcome((done) => store.writeZeroes(mebibyte, mebibyte, false, done)), null);
  t.true(await isHoleAt(store, mebibyte));
  t.false(await isHoleAt(store, 2 * mebibyte));
  t.is(await outcome((done) => store.trim(2 * mebibyte, mebibyte, done)), null);
  t.true(await isHoleAt(store, 2 * mebibyte));
});

test('data written behind what is known is data', async (t) => {
  const { store } = await countedStore(t);
  t.false(await isHoleAt(store, 0));
  t.is(await outcome((done) => store.write(4 * mebibyte, Buffer.alloc(mebibyte, 2), done)), null);
  t.false(await isHoleAt(store, 4 * mebibyte));
});
