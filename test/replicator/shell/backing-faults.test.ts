/** A backing device that fails: for good with a flush, once for everything else; flushes that share a sync. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { BackingStore } from '../../../replicator/shell/backing-store.ts';
import { faultFileIo, faultyFileIo, processFileIo } from '../../../replicator/shell/fault-io.ts';
import type { FaultKind } from '../../../replicator/shell/fault-io.ts';
import { systemFileIo } from '../../../replicator/shell/file-io.ts';
import type { FileIo, IoDone } from '../../../replicator/shell/file-io.ts';
import { SystemCallError } from '../../../replicator/shell/libc.ts';
import { errorCode, openStore, outcome, readBytes } from '../../support/backing.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const mebibyte = 1024 * 1024;
const eio = new SystemCallError('fdatasync', 'EIO');

async function storeWith(t: ExecutionContext, io: FileIo): Promise<BackingStore> {
  return await openStore(t, { path: join(temporaryDirectory(t), 'data'), sizeBytes: 4 * mebibyte, io });
}

/** Syncs that end when the test says so. */
function heldSyncs(): { readonly io: FileIo; readonly running: IoDone[] } {
  const running: IoDone[] = [];
  return { io: { ...systemFileIo, fdatasync: (_fd, done) => void running.push(done) }, running };
}

/** Fails the n-th call of a kind, counted from 1. */
function failingOnce(kind: FaultKind, nth: number): FileIo {
  let calls = 0;
  return faultyFileIo((asked) => asked === kind && ++calls === nth);
}

const operations: Readonly<Record<string, (store: BackingStore) => Promise<string | null>>> = {
  'small write': (store) => outcome((done) => store.write(0, Buffer.alloc(512, 1), done)),
  'large write': (store) => outcome((done) => store.write(0, Buffer.alloc(mebibyte, 1), done)),
  'small trim': (store) => outcome((done) => store.trim(0, 4096, done)),
  'large trim': (store) => outcome((done) => store.trim(0, 2 * mebibyte, done)),
  zeroes: (store) => outcome((done) => store.writeZeroes(0, 4096, false, done)),
  flush: (store) => outcome((done) => store.flush(done)),
  read: (store) => outcome((done) => store.read(0, 512, (error) => done(error))),
  'block status': (store) => outcome((done) => store.blockStatus(0, 512, 1, (error) => done(error))),
};

test('a flush that fails makes every later operation fail', async (t) => {
  const store = await storeWith(t, failingOnce('failFlush', 2));
  t.is(await operations['flush']?.(store), null);
  t.is(await operations['flush']?.(store), 'EIO');
  t.is(errorCode(store.failure ?? new Error('works')), 'EIO');
  for (const [later, run] of Object.entries(operations)) t.is(await run(store), 'EIO', later);
});

// A full file system, say: what is there can be read and written again, and flushes still say what they have done.
for (const name of ['small write', 'large write', 'small trim', 'large trim', 'zeroes']) {
  test(`a ${name} that fails fails alone`, async (t) => {
    const store = await storeWith(t, failingOnce('failWrites', 2));
    const operation = operations[name];
    t.is(await operation?.(store), null);
    t.is(await operation?.(store), 'EIO');
    t.is(store.failure, null);
    for (const [later, run] of Object.entries(operations)) t.is(await run(store), null, later);
  });
}

test('a read that fails fails alone', async (t) => {
  let failing = true;
  const store = await storeWith(
    t,
    faultyFileIo((kind) => kind === 'failReads' && failing),
  );
  await t.throwsAsync(readBytes(store, 0, 512), { code: 'EIO' });
  t.is(store.failure, null);
  failing = false;
  t.is((await readBytes(store, 0, 512)).byteLength, 512);
});

test('what the page cache has only in part is completed from the disk', async (t) => {
  const store = await storeWith(t, {
    ...systemFileIo,
    readCached: (fd, data, position) => systemFileIo.readCached(fd, data.subarray(0, 1000), position),
  });
  const bytes = Buffer.from(Array.from({ length: 4096 }, (_, index) => index % 251));
  t.is(await outcome((done) => store.write(100, bytes, done)), null);
  t.true((await readBytes(store, 100, 4096)).equals(bytes));
});

test('what the page cache does not have, or cannot tell, is read from the disk', async (t) => {
  for (const answer of ['EAGAIN', 'ENOTSUP', 'EIO']) {
    const store = await storeWith(t, { ...systemFileIo, readCached: () => answer });
    t.is(await outcome((done) => store.write(0, Buffer.alloc(512, 8), done)), null);
    t.true((await readBytes(store, 0, 512)).every((byte) => byte === 8));
    t.true((await readBytes(store, 0, 512)).every((byte) => byte === 8));
  }
});

test('flushes that arrive while one is running wait for it and share the next', async (t) => {
  const { io, running } = heldSyncs();
  const store = await storeWith(t, io);
  const events: string[] = [];
  const flush = (name: string) =>
    store.flush((error) => events.push(`${name} ${error === null ? 'ok' : 'failed'}`));
  flush('a');
  flush('b');
  flush('c');
  t.is(running.length, 1);
  running[0]?.(null);
  t.deepEqual(events, ['a ok']);
  t.is(running.length, 2);
  flush('d');
  running[1]?.(null);
  t.deepEqual(events, ['a ok', 'b ok', 'c ok']);
  t.is(running.length, 3);
  running[2]?.(null);
  t.deepEqual(events, ['a ok', 'b ok', 'c ok', 'd ok']);
  t.is(running.length, 3);
});

test('a flush begun by the answer of a flush begins a sync of its own', async (t) => {
  const { io, running } = heldSyncs();
  const store = await storeWith(t, io);
  let again = 'waiting';
  store.flush(() => store.flush(() => (again = 'done')));
  running[0]?.(null);
  t.is(again, 'waiting');
  t.is(running.length, 2);
  running[1]?.(null);
  t.is(again, 'done');
});

test('a failed flush is told to all who share it and all who wait, and is never repeated', async (t) => {
  const { io, running } = heldSyncs();
  const store = await storeWith(t, io);
  const events: string[] = [];
  for (const name of ['a', 'b', 'c'])
    store.flush((error) => events.push(`${name} ${String(error?.message)}`));
  running[0]?.(null);
  store.flush((error) => events.push(`d ${String(error?.message)}`));
  running[1]?.(eio);
  t.deepEqual(events, ['a undefined', ...['b', 'c', 'd'].map((name) => `${name} fdatasync: EIO`)]);
  t.is(await outcome((done) => store.flush(done)), 'EIO');
  t.is(running.length, 2);
});

test('the fault file fails what it lists for as long as it exists', async (t) => {
  const faults = join(temporaryDirectory(t), 'faults.json');
  const store = await storeWith(t, faultFileIo(faults));
  t.is(await operations['read']?.(store), null);
  writeFileSync(faults, '{"failReads":true,"failWrites":false}');
  t.is(await operations['read']?.(store), 'EIO');
  t.is(await operations['small write']?.(store), null);
  rmSync(faults);
  t.is(await operations['read']?.(store), null);
  writeFileSync(faults, '{"failFlush":true}');
  t.is(await operations['small write']?.(store), null);
  t.is(await operations['flush']?.(store), 'EIO');
});

test('a bad sector of the fault file cannot be read until all of it is written', async (t) => {
  const faults = join(temporaryDirectory(t), 'faults.json');
  const store = await storeWith(t, faultFileIo(faults));
  const read = (offset: number): Promise<string | null> =>
    outcome((done) => store.read(offset, 512, (error) => done(error)));
  const write = (offset: number, length: number): Promise<string | null> =>
    outcome((done) => store.write(offset, Buffer.alloc(length, 1), done));
  writeFileSync(faults, '{"badSector":{"offset":4096,"length":1024}}');
  t.is(await read(0), null);
  t.is(await read(4096), 'EIO');
  t.is(await write(4096, 512), null);
  t.is(await read(4608), 'EIO');
  t.is(await write(0, 8192), null);
  t.is(await read(4096), null);
  t.is(await read(4608), null);
});

test('a fault file that cannot be understood fails everything', async (t) => {
  const faults = join(temporaryDirectory(t), 'faults.json');
  const store = await storeWith(t, faultFileIo(faults));
  writeFileSync(faults, '{"failWrites":');
  t.is(await operations['read']?.(store), 'EIO');
});

test('without the test environment the plain system calls are used', (t) => {
  t.is(processFileIo, systemFileIo);
});
