/** Opening a backing device: locked, recognised, refused with the reason. */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { checkClaim, formatBinding, parseBinding } from '../../../replicator/shell/backing-identity.ts';
import type { Binding } from '../../../replicator/shell/backing-identity.ts';
import { openBackingStore } from '../../../replicator/shell/backing-opening.ts';
import type { BackingOpened, BackingOptions } from '../../../replicator/shell/backing-opening.ts';
import { systemFileIo } from '../../../replicator/shell/file-io.ts';
import { SystemCallError, getAttribute } from '../../../replicator/shell/libc.ts';
import { findLockHolder } from '../../../replicator/shell/lock-holder.ts';
import { otherIdentity, readBytes, someIdentity } from '../../support/backing.ts';
import { startChild } from '../../support/child.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const mebibyte = 1024 * 1024;

function at(t: ExecutionContext): string {
  return join(temporaryDirectory(t), 'data');
}

async function open(path: string, options: Partial<BackingOptions> = {}): Promise<BackingOpened> {
  return await openBackingStore({
    path,
    sizeBytes: mebibyte,
    create: false,
    identity: someIdentity,
    binding: null,
    ...options,
  });
}

/** Opens, closes, and answers what there was to learn. */
async function openAndClose(t: ExecutionContext, path: string, options: Partial<BackingOptions> = {}) {
  const opened = await open(path, options);
  if (!opened.ok) {
    t.true(opened.refusal.reason.length > 0 && opened.refusal.nextStep.length > 0);
    return { code: opened.refusal.code, reason: opened.refusal.reason, origin: null, binding: null };
  }
  await opened.store.close();
  return { code: null, reason: null, origin: opened.origin, binding: opened.binding };
}

const attributeBinding: Binding = { kind: 'attribute' };

function writeSparse(path: string, sizeBytes: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
}

test('a file is created sparse, in size, with nothing in it and the id beside it', async (t) => {
  const path = at(t);
  const { origin, binding } = await openAndClose(t, path, { create: true });
  t.is(origin, 'created-empty');
  t.deepEqual(binding, attributeBinding);
  t.is(statSync(path).size, mebibyte);
  t.true(readFileSync(path).every((byte) => byte === 0));
  const fd = openSync(path, 'r');
  t.is(getAttribute(fd, 'user.lockstep.resource'), someIdentity);
  closeSync(fd);
});

test('a missing file is refused unless it may be created', async (t) => {
  t.is((await openAndClose(t, at(t))).code, 'backing-missing');
});

test('a missing file that the metadata knows is never replaced by an empty one', async (t) => {
  const { code } = await openAndClose(t, at(t), { create: true, binding: attributeBinding });
  t.is(code, 'backing-missing');
});

test('a creation that a crash cut short is taken up again', async (t) => {
  const path = at(t);
  writeFileSync(path, '');
  t.is((await openAndClose(t, path, { create: true })).origin, 'created-empty');
  // Claimed, but the metadata was not told.
  t.is((await openAndClose(t, path, { create: true })).origin, 'created-empty');
  t.is((await openAndClose(t, path, { binding: attributeBinding })).origin, 'settled');
});

test('a file that is too small is refused and not extended', async (t) => {
  const path = at(t);
  writeFileSync(path, 'precious');
  t.is((await openAndClose(t, path, { create: true })).code, 'backing-too-small');
  t.is(readFileSync(path, 'utf8'), 'precious');
  writeFileSync(path, '');
  t.is((await openAndClose(t, path)).code, 'backing-too-small');
});

test('a larger file is taken as it is', async (t) => {
  const path = at(t);
  writeSparse(path, 3 * mebibyte);
  t.is((await openAndClose(t, path)).origin, 'created-empty');
  t.is(statSync(path).size, 3 * mebibyte);
});

test('an existing file without id is adopted, and told apart by its content', async (t) => {
  const directory = temporaryDirectory(t);
  const sparse = join(directory, 'sparse');
  writeSparse(sparse, mebibyte);
  t.is((await openAndClose(t, sparse)).origin, 'created-empty');

  const zeroes = join(directory, 'zeroes');
  writeFileSync(zeroes, Buffer.alloc(mebibyte + 5));
  t.is((await openAndClose(t, zeroes)).origin, 'created-empty');

  const lastByte = join(directory, 'last-byte');
  const bytes = Buffer.alloc(mebibyte);
  bytes[mebibyte - 1] = 1;
  writeFileSync(lastByte, bytes);
  t.is((await openAndClose(t, lastByte)).origin, 'created-with-data');
  t.true(readFileSync(lastByte).equals(bytes));

  const behind = join(directory, 'behind');
  writeFileSync(behind, Buffer.concat([Buffer.alloc(mebibyte), Buffer.from('not part of the device')]));
  t.is((await openAndClose(t, behind)).origin, 'created-empty');
});

test('the search for data ends after 64 MiB of allocated zeroes', async (t) => {
  const path = at(t);
  writeSparse(path, 200 * mebibyte);
  let reads = 0;
  const { origin } = await openAndClose(t, path, {
    sizeBytes: 200 * mebibyte,
    io: {
      ...systemFileIo,
      seek: (_fd, offset, _target, done) => done(null, offset),
      read: (_fd, _data, _position, done) => {
        reads += 1;
        done(null);
      },
    },
  });
  t.is(origin, 'created-with-data');
  t.is(reads, 64);
});

test('a file of another resource is refused, with new metadata and with known', async (t) => {
  const path = at(t);
  await openAndClose(t, path, { create: true, identity: otherIdentity });
  t.is((await openAndClose(t, path, { create: true })).code, 'backing-not-ours');
  t.is((await openAndClose(t, path, { binding: attributeBinding })).code, 'backing-not-ours');
  t.is((await openAndClose(t, path, { identity: otherIdentity, binding: attributeBinding })).code, null);
});

test('a known file that lost its id is refused', async (t) => {
  const path = at(t);
  writeSparse(path, mebibyte);
  const { code, reason } = await openAndClose(t, path, { binding: attributeBinding });
  t.is(code, 'backing-not-ours');
  t.regex(reason ?? '', /carries no id/);
});

test('where there are no attributes the inode tells', (t) => {
  const path = at(t);
  writeSparse(path, mebibyte);
  const stats = statSync(path, { bigint: true });
  const fd = openSync(path, 'r');
  const binding: Binding = { kind: 'inode', device: String(stats.dev), inode: String(stats.ino) };
  t.true(checkClaim(fd, stats, someIdentity, binding).ok);
  t.false(checkClaim(fd, stats, someIdentity, { ...binding, inode: String(stats.ino + 1n) }).ok);
  t.false(checkClaim(fd, stats, someIdentity, { kind: 'device' }).ok);
  closeSync(fd);
});

test('bindings survive being written down, and nothing else is read as one', (t) => {
  for (const binding of [
    attributeBinding,
    { kind: 'device' },
    { kind: 'inode', device: '65', inode: '123' },
  ] as const) {
    t.deepEqual(parseBinding(formatBinding(binding)), binding);
  }
  for (const text of ['', 'inode', 'inode:1', 'inode:1:x', 'inode:1:2:3', 'Attribute'])
    t.is(parseBinding(text), null);
});

test('directories, devices that hold no blocks, and unreadable paths are refused', async (t) => {
  const path = at(t);
  mkdirSync(path);
  t.is((await openAndClose(t, path)).code, 'backing-failed');
  t.is((await openAndClose(t, '/dev/null')).code, 'backing-failed');
  t.is((await openAndClose(t, join(path, 'no', 'such'), { create: true })).code, 'backing-failed');
});

test('a file that fails to be read while it is adopted is refused and given up', async (t) => {
  const path = at(t);
  writeFileSync(path, Buffer.alloc(mebibyte, 1));
  const { code } = await openAndClose(t, path, {
    io: { ...systemFileIo, read: (_fd, _data, _position, done) => done(new SystemCallError('read', 'EIO')) },
  });
  t.is(code, 'backing-failed');
  t.is((await openAndClose(t, path)).code, null);
});

test('a file that another process uses is refused with its pid, and free when that process dies', async (t) => {
  const path = at(t);
  const holder = startChild(t, new URL('../../support/backing-holder.ts', import.meta.url), [
    path,
    String(mebibyte),
  ]);
  t.is((await holder.lines.next()).value, 'open');
  const { code, reason } = await openAndClose(t, path);
  t.is(code, 'backing-in-use');
  t.true(reason?.includes(`process ${holder.pid} (`), reason ?? '');
  await holder.kill();
  t.is((await openAndClose(t, path)).code, null);
});

test('a file that this process uses already is refused, also under another name', async (t) => {
  const path = at(t);
  const opened = await open(path, { create: true });
  t.true(opened.ok);
  t.is((await openAndClose(t, path)).code, 'backing-in-use');
  renameSync(path, `${path}-moved`);
  t.is((await openAndClose(t, `${path}-moved`)).code, 'backing-in-use');
  if (opened.ok) {
    t.is((await readBytes(opened.store, 0, 1))[0], 0);
    await opened.store.close();
  }
});

test('the holder of a lock is found by device and inode', (t) => {
  const locks = [
    '1: POSIX  ADVISORY  WRITE 11 08:02:77 0 EOF',
    '2: FLOCK  ADVISORY  WRITE 22 08:02:78 0 EOF',
    '3: FLOCK  ADVISORY  WRITE 33 103:100005:77 0 EOF',
    '3: -> FLOCK  ADVISORY  WRITE 34 08:02:77 0 EOF',
    '4: FLOCK  ADVISORY  WRITE 44 08:02:77 0 EOF',
  ].join('\n');
  t.is(findLockHolder(locks, 0x802n, 77n), 44);
  // major 0x103, minor 0x100005, as makedev(3) packs them.
  t.is(findLockHolder(locks, (0x1000n << 20n) | (0x103n << 8n) | 0x05n, 77n), 33);
  t.is(findLockHolder(locks, 0x802n, 1n), null);
});
