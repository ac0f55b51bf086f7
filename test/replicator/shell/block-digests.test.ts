/** Hashes of blocks on a real file, against the hash of each computed by itself. */
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { BackingStore } from '../../../replicator/shell/backing-store.ts';
import { BlockDigests, DigestQueue } from '../../../replicator/shell/block-digests.ts';
import type { Hashing } from '../../../replicator/shell/block-digests.ts';
import { coarseBytes, CoarseHash } from '../../../replicator/shell/coarse-hash.ts';
import { faultyFileIo } from '../../../replicator/shell/fault-io.ts';
import { systemFileIo } from '../../../replicator/shell/file-io.ts';
import { asBytes } from '../../../replicator/shell/core-device.ts';
import { LocalIo } from '../../../replicator/shell/local-io.ts';
import type { Event } from '../../../replicator/core/event.ts';
import { openStore, outcome } from '../../support/backing.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const mebibyte = 1024 * 1024;
/** Of some session, and of another one. */
const coarse = new CoarseHash(randomBytes(32), randomBytes(32));
const otherCoarse = new CoarseHash(randomBytes(32), randomBytes(32));

async function emptyStore(t: ExecutionContext, sizeBytes = 8 * mebibyte): Promise<BackingStore> {
  return openStore(t, { path: join(temporaryDirectory(t), 'data'), sizeBytes });
}

async function write(store: BackingStore, offset: number, data: Buffer): Promise<void> {
  const error = await outcome((done) => store.write(offset, data, done));
  if (error !== null) throw new Error(error);
}

function digest(
  store: BackingStore,
  offset: number,
  length: number,
  { queue = new DigestQueue(), hashing = 'fine' }: { queue?: DigestQueue; hashing?: Hashing } = {},
): Promise<BlockDigests | null> {
  return new Promise((resolve) => queue.digest(store, offset, length, hashing, resolve));
}

/** By other means than the code under test. */
function expected(data: Buffer): string {
  const hashes: Buffer[] = [];
  for (let at = 0; at < data.length; at += 4096) {
    hashes.push(
      createHash('sha256')
        .update(data.subarray(at, at + 4096))
        .digest(),
    );
  }
  return Buffer.concat(hashes).toString('hex');
}

function expectedCoarse(data: Buffer, by = coarse): string {
  const hashes = Buffer.alloc(Math.ceil(data.length / coarseBytes) * 32);
  for (let at = 0; at < data.length; at += coarseBytes) {
    by.write(data.subarray(at, at + coarseBytes), hashes, (at / coarseBytes) * 32);
  }
  return hashes.toString('hex');
}

test('one SHA-256 per block, or coarse per 32 from the beginning of the range, for data, holes and both', async (t) => {
  const store = await emptyStore(t);
  const data = randomBytes(3 * mebibyte);
  await write(store, mebibyte, data);
  const whole = Buffer.concat([Buffer.alloc(mebibyte), data, Buffer.alloc(4 * mebibyte)]);
  for (const [offset, length] of [
    [0, 8 * mebibyte],
    [mebibyte, 4096],
    [mebibyte - 8192, 3 * 4096],
    [5 * mebibyte, 3 * mebibyte],
    [2 * mebibyte - 4096, mebibyte + 8192],
  ] as const) {
    const digests = await digest(store, offset, length);
    t.is(digests?.bytes.toString('hex'), expected(whole.subarray(offset, offset + length)));
    t.is(digests?.byteLength, (length / 4096) * 32);
    for (const hashing of [coarse, otherCoarse]) {
      const digests = await digest(store, offset, length, { hashing });
      t.is(digests?.bytes.toString('hex'), expectedCoarse(whole.subarray(offset, offset + length), hashing));
      t.is(digests?.byteLength, Math.ceil(length / 4096 / 32) * 32);
    }
  }
});

test('the last block of a device may be short', async (t) => {
  const store = await emptyStore(t, 4096 + 512);
  const data = randomBytes(4096 + 512);
  await write(store, 0, data);
  t.is((await digest(store, 0, 4608))?.bytes.toString('hex'), expected(data));
  t.is((await digest(store, 4096, 512))?.bytes.toString('hex'), expected(data.subarray(4096)));
  const digests = await digest(store, 0, 4608, { hashing: coarse });
  t.is(digests?.bytes.toString('hex'), expectedCoarse(data));
});

test('the short last block of a device may be a hole', async (t) => {
  const store = await emptyStore(t, 4096 + 512);
  t.is((await digest(store, 0, 4608))?.bytes.toString('hex'), expected(Buffer.alloc(4608)));
  const digests = await digest(store, 0, 4608, { hashing: coarse });
  t.is(digests?.bytes.toString('hex'), expectedCoarse(Buffer.alloc(4608)));
});

test('hashed for two sessions, equal data and equal holes differ everywhere, which fine hashes settle', async (t) => {
  const store = await emptyStore(t, 2 * mebibyte + 4096);
  await write(store, 0, randomBytes(mebibyte));
  const length = 2 * mebibyte + 4096;
  const one = await digest(store, 0, length, { hashing: coarse });
  const same = await digest(store, 0, length, { hashing: coarse });
  const other = await digest(store, 0, length, { hashing: otherCoarse });
  if (one === null || same === null || other === null) return t.fail('it cannot be read');
  t.deepEqual(one.differing(same.bytes), []);
  t.deepEqual(one.differing(other.bytes), [{ first: 0, count: length / 4096 }]);
  const fine = await digest(store, 0, length);
  t.deepEqual(fine?.differing((await digest(store, 0, length))?.bytes ?? Buffer.alloc(0)), []);
});

test('a range is hashed for one session from its beginning to its end, whichever is asked for meanwhile', async (t) => {
  const store = await emptyStore(t);
  const data = randomBytes(4 * mebibyte);
  await write(store, 0, data);
  const queue = new DigestQueue();
  const [one, other] = await Promise.all(
    [coarse, otherCoarse].map((hashing) => digest(store, 0, 4 * mebibyte, { queue, hashing })),
  );
  t.is(one?.bytes.toString('hex'), expectedCoarse(data));
  t.is(other?.bytes.toString('hex'), expectedCoarse(data, otherCoarse));
});

test('several ranges at once do not get into each other', async (t) => {
  const store = await emptyStore(t);
  const data = randomBytes(8 * mebibyte);
  await write(store, 0, data);
  const queue = new DigestQueue();
  const starts = [0, 1, 2, 3, 4, 5].map((at) => at * mebibyte + 4096 * at);
  const all = await Promise.all(starts.map((start) => digest(store, start, 2 * mebibyte, { queue })));
  starts.forEach((start, at) =>
    t.is(all[at]?.bytes.toString('hex'), expected(data.subarray(start, start + 2 * mebibyte))),
  );
});

test('a range is read into the same memory again and again, whether the page cache has it or not', async (t) => {
  for (const io of [systemFileIo, { ...systemFileIo, readCached: () => 'EAGAIN' }]) {
    const path = join(temporaryDirectory(t), 'data');
    const store = await openStore(t, { path, sizeBytes: 8 * mebibyte, io });
    const data = randomBytes(8 * mebibyte);
    await write(store, 0, data);
    const used = new Set<ArrayBufferLike>();
    let reads = 0;
    const read = store.read.bind(store);
    store.read = (offset, length, done) =>
      read(offset, length, (error, bytes) => {
        reads++;
        if (bytes !== null) used.add(bytes.buffer);
        done(error, bytes);
      });
    t.is((await digest(store, 0, 8 * mebibyte))?.bytes.toString('hex'), expected(data));
    t.true(reads >= 8 && used.size <= 3, `${used.size} buffers for ${reads} reads`);
  }
});

test('a hole is hashed without being read', async (t) => {
  const store = await emptyStore(t);
  let reads = 0;
  const read = store.read.bind(store);
  store.read = (...args) => {
    reads++;
    read(...args);
  };
  t.is((await digest(store, 0, 8 * mebibyte))?.bytes.toString('hex'), expected(Buffer.alloc(8 * mebibyte)));
  t.is(reads, 0);
});

test('other work of the thread gets its turns while a range is hashed', async (t) => {
  const store = await emptyStore(t);
  await write(store, 0, randomBytes(mebibyte));
  let turns = 0;
  let running = true;
  const count = (): void => {
    turns++;
    if (running) setImmediate(count);
  };
  const read = store.read.bind(store);
  store.read = (offset, length, done) =>
    read(offset, length, (error, data) => {
      // From here on there is nothing to do but to hash.
      setImmediate(count);
      done(error, data);
    });
  await digest(store, 0, mebibyte);
  running = false;
  t.true(turns >= 2, `${turns} turns`);
});

test('differing names exactly the blocks whose hash is another one', (t) => {
  const of = (...blocks: string[]): Buffer => Buffer.concat(blocks.map((text) => Buffer.alloc(32, text)));
  const ours = new BlockDigests(of('a', 'b', 'c', 'd', 'e'), 5, false);
  t.deepEqual(ours.differing(of('a', 'b', 'c', 'd', 'e')), []);
  t.deepEqual(ours.differing(of('a', 'x', 'y', 'd', 'z')), [
    { first: 1, count: 2 },
    { first: 4, count: 1 },
  ]);
  const lastByte = of('a', 'b', 'c', 'd', 'e');
  lastByte.writeUInt8(0, 31);
  t.deepEqual(ours.differing(lastByte), [{ first: 0, count: 1 }]);
  t.throws(() => ours.differing(of('a')), { instanceOf: TypeError });
  const ofMany = new BlockDigests(of('a', 'b', 'c'), 70, true);
  t.deepEqual(ofMany.differing(of('a', 'x', 'y')), [{ first: 32, count: 38 }]);
});

test('ranges that are hashed at the same time are ready one after the other', async (t) => {
  const store = await emptyStore(t);
  await write(store, 0, randomBytes(8 * mebibyte));
  const queue = new DigestQueue();
  const began: number[] = [];
  const ready: number[] = [];
  const read = store.read.bind(store);
  store.read = (offset, length, done) => {
    began.push(Math.floor(offset / (2 * mebibyte)));
    read(offset, length, done);
  };
  await Promise.all(
    [0, 1, 2, 3].map(async (range) => {
      await digest(store, range * 2 * mebibyte, 2 * mebibyte, { queue });
      ready.push(range);
    }),
  );
  t.deepEqual(ready, [0, 1, 2, 3]);
  // The first piece of each is read when it is asked for.
  t.deepEqual(began.slice(4), began.slice(4).toSorted());
});

test('as a payload hashes are their bytes', (t) => {
  const bytes = Buffer.alloc(64, 7);
  t.is(asBytes(new BlockDigests(bytes, 2, false)), bytes);
});

test('a range that cannot be read has no hashes', async (t) => {
  const broken = faultyFileIo((kind) => kind === 'failReads');
  const path = join(temporaryDirectory(t), 'data');
  const store = await openStore(t, { path, sizeBytes: mebibyte, io: broken });
  await write(store, 0, randomBytes(mebibyte));
  t.is(await digest(store, 0, mebibyte), null);
  t.is(await digest(store, 4096, 4096), null);
});

test('local-io: hashes come back as an event, or null without a session or once the store is detached', async (t) => {
  const store = await emptyStore(t);
  const events: Event[] = [];
  let arrived: () => void = () => undefined;
  const io = new LocalIo(store, (event) => {
    events.push(event);
    arrived();
  });
  await new Promise<void>((resolve) => {
    arrived = resolve;
    io.digest(7, 0, 8192, 'fine');
  });
  io.digest(9, 0, 8192, null);
  t.deepEqual(events.pop(), { kind: 'localDigested', id: 9, digests: null }, 'for no session');
  io.detach();
  io.digest(8, 0, 8192, 'fine');
  t.like(events[0], { kind: 'localDigested', id: 7 });
  t.true(events[0]?.kind === 'localDigested' && events[0].digests?.byteLength === 64);
  t.deepEqual(events[1], { kind: 'localDigested', id: 8, digests: null });
  await io.close();
});
