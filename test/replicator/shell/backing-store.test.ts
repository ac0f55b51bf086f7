/** Bytes, zeroes and holes on real files, on disk and in memory. */
import { appendFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { BackingStore } from '../../../replicator/shell/backing-store.ts';
import { faultyFileIo } from '../../../replicator/shell/fault-io.ts';
import { systemFileIo } from '../../../replicator/shell/file-io.ts';
import type { FileIo } from '../../../replicator/shell/file-io.ts';
import { SystemCallError } from '../../../replicator/shell/libc.ts';
import { errorCode, extentsOf, openStore, outcome, readBytes } from '../../support/backing.ts';
import { temporaryDirectory, temporaryRoots } from '../../support/temporary.ts';

const mebibyte = 1024 * 1024;

async function storeIn(t: ExecutionContext, root: string, io?: FileIo): Promise<BackingStore> {
  const path = join(temporaryDirectory(t, root), 'data');
  return await openStore(t, { path, sizeBytes: 8 * mebibyte, ...(io === undefined ? {} : { io }) });
}

function fill(store: BackingStore, offset: number, length: number, value: number): Promise<string | null> {
  return outcome((done) => store.write(offset, Buffer.alloc(length, value), done));
}

function allocatedBytes(store: BackingStore): number {
  return statSync(store.path).blocks * 512;
}

/** Where a system call is missing, as on file systems that cannot punch or zero. */
function without(unsupported: readonly string[]): FileIo {
  return {
    ...systemFileIo,
    fallocateNow(fd, how, offset, length) {
      if (unsupported.includes(how)) throw new SystemCallError('fallocate', 'ENOTSUP');
      systemFileIo.fallocateNow(fd, how, offset, length);
    },
    fallocate(fd, how, offset, length, done) {
      if (unsupported.includes(how)) setImmediate(() => done(new SystemCallError('fallocate', 'ENOTSUP')));
      else systemFileIo.fallocate(fd, how, offset, length, done);
    },
  };
}

for (const root of temporaryRoots) {
  test(`${root}: what was written is read back, small and large, at any offset`, async (t) => {
    const store = await storeIn(t, root);
    for (const [offset, length] of [
      [0, 512],
      [4095, 3],
      [100_001, 4096],
      [mebibyte, 128 * 1024 + 1],
      [2 * mebibyte + 7, 3 * mebibyte],
    ] as const) {
      const data = Buffer.from(
        Array.from({ length: Math.min(length, 997) }, (_, i) => (i * 31 + offset) & 255),
      );
      const block = Buffer.alloc(length, data);
      t.is(await outcome((done) => store.write(offset, block, done)), null);
      t.true((await readBytes(store, offset, length)).equals(block));
    }
  });

  test(`${root}: small writes, cached reads and holes are answered before the call returns`, async (t) => {
    const told: (number | string)[] = [];
    const io: FileIo = {
      ...systemFileIo,
      readCached(fd, data, position) {
        const answer = systemFileIo.readCached(fd, data, position);
        told.push(answer);
        return answer;
      },
    };
    const store = await storeIn(t, root, io);
    const events: string[] = [];
    store.write(0, Buffer.alloc(4096, 7), () => events.push('written'));
    store.isHole(mebibyte, 4096, (_error, hole) => events.push(`hole ${hole}`));
    t.deepEqual(events, ['written', 'hole true']);
    store.read(0, 4096, (_error, data) => events.push(`read ${data?.[4095]}`));
    // In memory the cache is not asked; some file systems cannot tell what is cached.
    if (told.includes('ENOTSUP')) t.log(`${root} cannot tell what is cached`);
    else t.is(events[2], 'read 7');
  });

  test(`${root}: trim gives up whole blocks within the range and leaves the rest`, async (t) => {
    const store = await storeIn(t, root);
    await fill(store, 0, mebibyte, 0xaa);
    await outcome((done) => store.flush(done));
    const before = allocatedBytes(store);
    t.is(await outcome((done) => store.trim(1, 512 * 1024, done)), null);
    t.true(allocatedBytes(store) <= before - 500 * 1024);
    const bytes = await readBytes(store, 0, mebibyte);
    t.true(bytes.subarray(0, 4096).every((byte) => byte === 0xaa));
    t.true(bytes.subarray(4096, 512 * 1024).every((byte) => byte === 0));
    t.true(bytes.subarray(512 * 1024).every((byte) => byte === 0xaa));
  });

  test(`${root}: trim within one block does nothing`, async (t) => {
    const store = await storeIn(t, root);
    await fill(store, 0, 8192, 0xaa);
    t.is(await outcome((done) => store.trim(1, 4095 + 4095, done)), null);
    t.true((await readBytes(store, 0, 8192)).every((byte) => byte === 0xaa));
  });

  test(`${root}: trim of the whole device frees it`, async (t) => {
    const store = await storeIn(t, root);
    await fill(store, 0, 4 * mebibyte, 1);
    await outcome((done) => store.flush(done));
    t.is(await outcome((done) => store.trim(0, store.sizeBytes, done)), null);
    t.true(allocatedBytes(store) < 64 * 1024);
    t.is(statSync(store.path).size, store.sizeBytes);
  });

  for (const noHole of [false, true]) {
    for (const [name, unsupported] of [
      ['as the file system can', []],
      ['without zero range', ['zeroRange']],
      ['without punching', ['punch']],
      ['by writing', ['punch', 'zeroRange', 'allocate']],
    ] as const) {
      test(`${root}: zeroes are exact to the byte, noHole ${noHole}, ${name}`, async (t) => {
        const store = await storeIn(t, root, without(unsupported));
        await fill(store, 0, 4 * mebibyte, 0x55);
        const ranges = [
          [3, 10],
          [5000, 9000],
          [100_000, 2 * mebibyte + 17],
        ] as const;
        for (const [offset, length] of ranges) {
          t.is(await outcome((done) => store.writeZeroes(offset, length, noHole, done)), null);
        }
        const bytes = await readBytes(store, 0, 4 * mebibyte);
        const isZeroed = (at: number) =>
          ranges.some(([offset, length]) => at >= offset && at < offset + length);
        t.is(
          bytes.findIndex((byte, at) => byte !== (isZeroed(at) ? 0 : 0x55)),
          -1,
        );
      });
    }
  }

  test(`${root}: zeroes without noHole free the blocks, with it they keep or get them`, async (t) => {
    const store = await storeIn(t, root);
    await fill(store, 0, 2 * mebibyte, 1);
    await outcome((done) => store.flush(done));
    await outcome((done) => store.writeZeroes(0, 2 * mebibyte, false, done));
    t.true(allocatedBytes(store) < 64 * 1024);
    await outcome((done) => store.writeZeroes(0, 2 * mebibyte, true, done));
    t.true(allocatedBytes(store) >= 2 * mebibyte);
    t.true((await readBytes(store, 0, 2 * mebibyte)).every((byte) => byte === 0));
  });

  test(`${root}: block status tells data from holes, also before a flush`, async (t) => {
    const store = await storeIn(t, root);
    await fill(store, mebibyte, mebibyte, 1);
    await fill(store, 4 * mebibyte, 4096, 1);
    t.deepEqual(await extentsOf(store, 0, store.sizeBytes, 16), [
      { lengthBytes: mebibyte, hole: true, zero: true },
      { lengthBytes: mebibyte, hole: false, zero: false },
      { lengthBytes: 2 * mebibyte, hole: true, zero: true },
      { lengthBytes: 4096, hole: false, zero: false },
      { lengthBytes: 4 * mebibyte - 4096, hole: true, zero: true },
    ]);
    t.deepEqual(await extentsOf(store, mebibyte + 100, mebibyte, 1), [
      { lengthBytes: mebibyte - 100, hole: false, zero: false },
    ]);
  });

  test(`${root}: a read beyond what somebody cut off fails, and the store goes on`, async (t) => {
    const store = await storeIn(t, root);
    truncateSync(store.path, mebibyte);
    await t.throwsAsync(readBytes(store, mebibyte - 100, 4096), { code: 'EIO' });
    t.is(store.failure, null);
    t.is(await fill(store, 0, 512, 1), null);
  });
}

test('without punching, trim succeeds and changes nothing', async (t) => {
  const [root = ''] = temporaryRoots;
  const store = await storeIn(t, root, without(['punch']));
  await fill(store, 0, 8192, 9);
  t.is(await outcome((done) => store.trim(0, 8192, done)), null);
  t.true((await readBytes(store, 0, 8192)).every((byte) => byte === 9));
});

test('zeroes are fast until the file system is known to have no way', async (t) => {
  const [root = ''] = temporaryRoots;
  const store = await storeIn(t, root, without(['punch', 'zeroRange']));
  t.true(store.zeroesFast);
  await outcome((done) => store.writeZeroes(0, 4096, false, done));
  t.false(store.zeroesFast);
});

test('where holes are not told, everything counts as data', async (t) => {
  const [root = ''] = temporaryRoots;
  const { open } = await import('node:fs/promises');
  const handle = await open(join(temporaryDirectory(t, root), 'data'), 'w+');
  await handle.truncate(mebibyte);
  const store = new BackingStore({
    fd: handle.fd,
    path: 'data',
    sizeBytes: mebibyte,
    kind: 'file',
    tellsHoles: false,
    inMemory: false,
    io: systemFileIo,
    nowMs: () => 0,
  });
  t.deepEqual(await extentsOf(store, 0, mebibyte, 4), [{ lengthBytes: mebibyte, hole: false, zero: false }]);
  store.isHole(0, mebibyte, (error, hole) => t.deepEqual([error, hole], [null, false]));
  await handle.close();
});

test('on a block device only whole blocks are zeroed by the device, the edges are written', async (t) => {
  const [root = ''] = temporaryRoots;
  const { open } = await import('node:fs/promises');
  const handle = await open(join(temporaryDirectory(t, root), 'data'), 'w+');
  await handle.writeFile(Buffer.alloc(64 * 1024, 3));
  const zeroed: string[] = [];
  const io: FileIo = {
    ...systemFileIo,
    fallocateNow(fd, how, offset, length) {
      zeroed.push(`${how} ${offset}+${length}`);
      systemFileIo.fallocateNow(fd, how, offset, length);
    },
  };
  const store = new BackingStore({
    fd: handle.fd,
    path: 'data',
    sizeBytes: 64 * 1024,
    kind: 'device',
    tellsHoles: false,
    inMemory: false,
    io,
    nowMs: () => 0,
  });
  t.is(await outcome((done) => store.writeZeroes(1000, 10_000, false, done)), null);
  t.is(await outcome((done) => store.writeZeroes(20_000, 100, false, done)), null);
  t.deepEqual(zeroed, ['punch 4096+4096']);
  const bytes = await readBytes(store, 0, 64 * 1024);
  const isZeroed = (at: number) => (at >= 1000 && at < 11_000) || (at >= 20_000 && at < 20_100);
  t.is(
    bytes.findIndex((byte, at) => byte !== (isZeroed(at) ? 0 : 3)),
    -1,
  );
  await handle.close();
});

test('slow writes, seeks and punches move to the thread pool and still give the right answers', async (t) => {
  const [root = ''] = temporaryRoots;
  const { open } = await import('node:fs/promises');
  const handle = await open(join(temporaryDirectory(t, root), 'data'), 'w+');
  await handle.truncate(mebibyte);
  let nowMs = 0;
  const pooled: string[] = [];
  const store = new BackingStore({
    fd: handle.fd,
    path: 'data',
    sizeBytes: mebibyte,
    kind: 'file',
    tellsHoles: true,
    inMemory: true,
    io: {
      ...systemFileIo,
      write(...call) {
        pooled.push('write');
        systemFileIo.write(...call);
      },
      read(...call) {
        pooled.push('read');
        systemFileIo.read(...call);
      },
      seek(...call) {
        pooled.push('seek');
        systemFileIo.seek(...call);
      },
      fallocate(...call) {
        pooled.push('fallocate');
        systemFileIo.fallocate(...call);
      },
    },
    // Every look at the clock is 10 ms later: whatever runs on this thread seems slow.
    nowMs: () => (nowMs += 10),
  });
  const round = async (value: number) => {
    t.is(await fill(store, 4096, 4096, value), null);
    t.is((await readBytes(store, 4096, 4096))[0], value);
    t.deepEqual(
      (await extentsOf(store, 0, 12_288, 3)).map((extent) => extent.hole),
      [true, false, true],
    );
    t.is(await outcome((done) => store.trim(4096, 4096, done)), null);
    t.is((await readBytes(store, 4096, 4096))[0], 0);
  };
  await round(1);
  await round(2);
  t.deepEqual([...new Set(pooled)].sort(), ['fallocate', 'read', 'seek', 'write']);
  await handle.close();
});

test('growing extends the file by a hole, and never shrinks it', async (t) => {
  const [root = ''] = temporaryRoots;
  const store = await storeIn(t, root);
  t.is(await fill(store, 8 * mebibyte - 4096, 4096, 3), null);
  const before = allocatedBytes(store);
  t.is(await outcome((done) => store.growTo(16 * mebibyte, done)), null);
  t.is(statSync(store.path).size, 16 * mebibyte);
  t.is(allocatedBytes(store), before);
  t.is(await fill(store, 16 * mebibyte - 512, 512, 1), null);
  t.not(await outcome((done) => store.growTo(8 * mebibyte, done)), null);
  t.is(store.sizeBytes, 16 * mebibyte);
  t.deepEqual(await readBytes(store, 8 * mebibyte - 4096, 4096), Buffer.alloc(4096, 3));
});

for (const unsupported of [[], ['punch'], ['punch', 'zeroRange']]) {
  test(`growing over what a larger file holds leaves zeroes${unsupported.length > 0 ? ` without ${unsupported.join()}` : ''}`, async (t) => {
    const [root = ''] = temporaryRoots;
    const store = await storeIn(t, root, without(unsupported));
    t.is(await fill(store, 8 * mebibyte - 4096, 4096, 3), null);
    appendFileSync(store.path, Buffer.alloc(8 * mebibyte, 7));
    t.is(await outcome((done) => store.growTo(9 * mebibyte + 4096, done)), null);
    t.is(statSync(store.path).size, 16 * mebibyte);
    t.deepEqual(await readBytes(store, 8 * mebibyte - 4096, 4096), Buffer.alloc(4096, 3));
    // Not deepEqual: that takes seconds a MiB, and tests that run beside it wait.
    t.true((await readBytes(store, 8 * mebibyte, mebibyte + 4096)).equals(Buffer.alloc(mebibyte + 4096)));
    // Half of what follows is in the file already.
    t.is(await outcome((done) => store.growTo(20 * mebibyte, done)), null);
    t.is(statSync(store.path).size, 20 * mebibyte);
    t.true((await readBytes(store, 9 * mebibyte, 11 * mebibyte)).equals(Buffer.alloc(11 * mebibyte)));
  });
}

test('growth that fails leaves the device as it is, and working', async (t) => {
  const [root = ''] = temporaryRoots;
  let isBroken = false;
  const io = faultyFileIo((kind) => isBroken && kind === 'failWrites');
  const store = await storeIn(t, root, io);
  truncateSync(store.path, 32 * mebibyte);
  isBroken = true;
  t.is(await outcome((done) => store.growTo(16 * mebibyte, done)), 'EIO');
  isBroken = false;
  t.is(store.sizeBytes, 8 * mebibyte);
  t.is(await fill(store, 0, 4096, 1), null);
  t.is(await outcome((done) => store.growTo(16 * mebibyte, done)), null);
});

test('closing ends a growth between two pieces', async (t) => {
  const [root = ''] = temporaryRoots;
  const store = await storeIn(t, root);
  truncateSync(store.path, 1024 * mebibyte);
  const growing = outcome((done) => store.growTo(1024 * mebibyte, done));
  await store.close();
  t.is(await growing, `${store.path} is closed`);
});

test('an operation beyond the device is a bug and throws', async (t) => {
  const [root = ''] = temporaryRoots;
  const store = await storeIn(t, root);
  const { sizeBytes } = store;
  t.throws(() => store.write(sizeBytes - 1, Buffer.alloc(2), () => t.fail()), { instanceOf: RangeError });
  t.throws(() => store.read(-1, 1, () => t.fail()), { instanceOf: RangeError });
  t.throws(() => store.trim(0, sizeBytes + 1, () => t.fail()), { instanceOf: RangeError });
  t.throws(() => store.writeZeroes(0, 0, false, () => t.fail()), { instanceOf: RangeError });
});

test('closing waits for what is in flight, and refuses what comes after', async (t) => {
  const [root = ''] = temporaryRoots;
  const store = await storeIn(t, root);
  const events: string[] = [];
  store.write(0, Buffer.alloc(4 * mebibyte, 1), (error) => events.push(`written ${String(error)}`));
  store.flush((error) => events.push(`flushed ${String(error)}`));
  const closed = store.close().then(() => events.push('closed'));
  store.read(0, 1, (error) => events.push(error === null ? 'read' : `refused: ${errorCode(error)}`));
  await closed;
  t.is(events[0], `refused: ${store.path} is closed`);
  t.deepEqual(events.slice(1, 3).sort(), ['flushed null', 'written null']);
  t.is(events[3], 'closed');
});
