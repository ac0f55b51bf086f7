/**
 * Backing files and metadata that are missing, damaged, foreign or in use when a node starts. Each case has a resource
 * of its own, all on one node: what is wrong with one must not keep the node or another resource from working.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import Database from 'better-sqlite3';
import { connectNbd } from '../../nbd/client.ts';
import { bitwiseCrc32c } from '../support/bitwise-crc32c.ts';
import { startChild } from '../support/child.ts';
import { startNode, startPair } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const sizeBytes = 1024 * 1024;

interface Place {
  readonly backing: string;
  readonly metadata: string;
  /** Of the case after it: what belongs to another resource. */
  readonly other: { readonly backing: string; readonly metadata: string };
}

interface Case {
  readonly name: string;
  /** Backing in the data directory rather than at a path that was given. */
  readonly ownPath?: true;
  /** While the node is down; returns what takes the cause away, while it runs. */
  readonly harm: (place: Place, t: ExecutionContext) => Promise<() => unknown>;
  readonly code: string;
  /** Matched against what the API answers to `attach`. */
  readonly detail: RegExp;
}

const cases: readonly Case[] = [
  {
    name: 'backing-missing',
    harm: ({ backing }) => setAside(backing, () => undefined),
    code: 'backing-missing',
    detail: /backing-missing\.img does not exist\. Put the file back \(or mount the file system it is on\)/,
  },
  {
    // The one that was created by default is not created again: that would be zeroes in place of data.
    name: 'own-backing-missing',
    ownPath: true,
    harm: ({ backing }) => setAside(backing, () => undefined),
    code: 'backing-missing',
    detail: /own-backing-missing\/data\.img does not exist\. Put the file back/,
  },
  {
    name: 'backing-too-small',
    harm: ({ backing }) => {
      truncateSync(backing, sizeBytes / 2);
      return Promise.resolve(() => truncateSync(backing, sizeBytes));
    },
    code: 'backing-too-small',
    detail: /backing-too-small\.img has 524288 bytes, the device needs 1048576\. Put the whole of it back/,
  },
  {
    name: 'backing-of-another',
    harm: ({ backing, other }) => setAside(backing, () => copyFileSync(other.backing, backing)),
    code: 'backing-not-ours',
    detail: /backing-of-another\.img is not the backing of this resource: .* Put the right file back/,
  },
  {
    name: 'backing-a-directory',
    harm: ({ backing }) => setAside(backing, () => mkdirSync(backing)),
    code: 'backing-failed',
    detail: /backing-a-directory\.img is neither a regular file nor a block device/,
  },
  {
    name: 'backing-in-use',
    harm: async ({ backing }, t) => {
      const child = startChild(t, new URL('../support/file-locker.ts', import.meta.url), [backing]);
      t.is((await child.lines.next()).value, 'locked');
      return () => child.kill();
    },
    code: 'backing-in-use',
    detail: /backing-in-use\.img is in use by (process \d+ \(node.*\)|another process)\. Stop what uses it/,
  },
  {
    name: 'metadata-of-another',
    harm: ({ metadata, other }) => setAside(metadata, () => copyFileSync(other.metadata, metadata)),
    code: 'metadata-foreign',
    detail: /holds the metadata of resource metadata-newer on node alpha, not of metadata-of-another/,
  },
  {
    name: 'metadata-newer',
    harm: ({ metadata }) => setAside(metadata, (aside) => raiseVersion(aside, metadata)),
    code: 'metadata-newer',
    detail: /metadata format 99; this program knows formats up to \d+\. Run the version/,
  },
  {
    name: 'metadata-garbage',
    harm: ({ metadata }) => setAside(metadata, () => writeFileSync(metadata, 'x'.repeat(20_000))),
    code: 'metadata-corrupt',
    detail: /metadata-garbage\/metadata\.db is not intact metadata: .* if the peer has the data, remove both/,
  },
  {
    name: 'metadata-truncated',
    harm: ({ metadata }) =>
      setAside(metadata, (aside) => {
        const bytes = readFileSync(aside);
        writeFileSync(metadata, bytes.subarray(0, bytes.byteLength / 2));
      }),
    code: 'metadata-corrupt',
    detail: /metadata-truncated\/metadata\.db is not intact metadata/,
  },
  {
    name: 'metadata-damaged-page',
    harm: ({ metadata }) =>
      setAside(metadata, (aside) => {
        const bytes = readFileSync(aside);
        bytes.fill(0x5a, 4096, 8192);
        writeFileSync(metadata, bytes);
      }),
    code: 'metadata-corrupt',
    detail: /metadata-damaged-page\/metadata\.db is not intact metadata/,
  },
  {
    // New metadata would call the data its own, whatever its peer knows of it.
    name: 'metadata-lost',
    harm: ({ metadata }) => setAside(metadata, () => undefined),
    code: 'backing-not-ours',
    detail:
      /metadata-lost\.img is not the backing of this resource: it carries the id [0-9a-f]{32} of another/,
  },
  {
    name: 'metadata-in-use',
    harm: ({ metadata }) => {
      const database = new Database(metadata);
      database.exec('BEGIN EXCLUSIVE');
      return Promise.resolve(() => database.close());
    },
    code: 'metadata-in-use',
    detail: /metadata-in-use\/metadata\.db is in use by another process\. Stop the other Lockstep/,
  },
];

test('what cannot start says why and what to do, stops nothing else, and starts once the cause is gone', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  const images = temporaryDirectory(t);
  const backingOf = ({ name, ownPath }: Case): string =>
    ownPath === true ? join(node.dir, 'resources', name, 'data.img') : join(images, `${name}.img`);
  const metadataOf = ({ name }: Case): string => join(node.dir, 'resources', name, 'metadata.db');

  await node.call('PUT', '/v1/resources/well', { size: sizeBytes });
  for (const [index, each] of cases.entries()) {
    const given = each.ownPath === true ? {} : { backing: { path: backingOf(each) } };
    if (each.ownPath !== true) {
      writeFileSync(backingOf(each), '');
      truncateSync(backingOf(each), sizeBytes);
    }
    await node.call('PUT', `/v1/resources/${each.name}`, { size: sizeBytes, ...given });
    await withDevice(node.dir, each.name, (device) => device.write(0, contentOf(index)));
  }
  t.is(await node.stop(), 0);

  const cures: (() => unknown)[] = [];
  for (const [index, each] of cases.entries()) {
    const next = cases[(index + 1) % cases.length] ?? each;
    const other = { backing: backingOf(next), metadata: metadataOf(next) };
    cures.push(await each.harm({ backing: backingOf(each), metadata: metadataOf(each), other }, t));
  }
  await node.start();
  t.is((await node.status('well')).role, 'Primary');

  for (const [index, each] of cases.entries()) {
    const path = `/v1/resources/${each.name}`;
    t.like(
      await node.call('GET', path),
      { role: 'Secondary', diskState: 'Diskless', error: { code: each.code } },
      each.name,
    );
    for (const verb of ['attach', 'promote', 'failover']) {
      const answer = await node.api('POST', `${path}/${verb}`);
      t.is(answer.status, 409, `${each.name}: ${verb}: ${JSON.stringify(answer.body)}`);
      t.like(answer.body, { code: each.code }, `${each.name}: ${verb}`);
      if (verb === 'attach') t.regex(detailOf(answer.body), each.detail);
      else t.regex(detailOf(answer.body), /is not started on this node: .* use attach\.$/, each.name);
    }
    if (each.code === 'backing-missing') t.false(existsSync(backingOf(each)), each.name);

    await cures[index]?.();
    await node.call('POST', `${path}/attach`);
    t.is((await node.status(each.name)).role, 'Primary', each.name);
    await withDevice(node.dir, each.name, async (device) => {
      t.true((await device.read(0, 4096)).equals(contentOf(index)), `${each.name}: nothing is lost`);
    });
  }
});

test('damaged metadata of a mirrored copy: as told, both files are removed and the peer brings the data back', async (t) => {
  const pair = await startPair(t, { sizeBytes });
  const { alpha, beta, resource } = pair;
  await alpha.order('promote');
  const device = await connectNbd({
    address: { host: '127.0.0.1', port: alpha.nbdPort },
    exportName: resource,
  });
  await device.write(0, contentOf(1));
  await beta.node.stop();
  await device.write(65536, contentOf(2));
  await device.flush();

  const metadata = join(beta.node.dir, 'resources', resource, 'metadata.db');
  writeFileSync(metadata, 'x'.repeat(20_000));
  await beta.node.start();
  const { backing } = await beta.status();
  t.like(await beta.node.call('GET', `/v1/resources/${resource}`), { error: { code: 'metadata-corrupt' } });
  await device.write(131072, contentOf(3));
  rmSync(metadata);
  rmSync(backing.path);
  await beta.order('attach');
  await pair.mirroring();
  t.deepEqual(compareFiles((await alpha.status()).backing.path, backing.path), { equal: true });

  await device.disconnect();
  await alpha.waitFor((status) => status.nbd.clients === 0, 'no client attached');
  await beta.order('failover');
  const other = await connectNbd({
    address: { host: '127.0.0.1', port: beta.nbdPort },
    exportName: resource,
  });
  for (const [index, offset] of [0, 65536, 131072].entries()) {
    t.true((await other.read(offset, 4096)).equals(contentOf(index + 1)));
  }
  await other.disconnect();
});

test('metadata of an older format is brought up to date at start, after a copy of it was kept', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  await node.call('PUT', '/v1/resources/old', { size: sizeBytes });
  await withDevice(node.dir, 'old', (device) => device.write(0, contentOf(1)));
  t.is(await node.stop(), 0);
  const metadata = join(node.dir, 'resources', 'old', 'metadata.db');
  const older = asVersion1(metadata);

  await node.start();
  t.is((await node.status('old')).role, 'Primary');
  await withDevice(node.dir, 'old', async (device) => {
    t.true((await device.read(0, 4096)).equals(contentOf(1)), 'nothing is lost');
  });
  t.is(await node.stop(), 0);
  t.deepEqual(superblockIn(`${metadata}.v1`), { version: 1, row: older });
  const migrated = superblockIn(metadata);
  t.true(Number(migrated.version) > 1);
  t.like(migrated.row, { current: older['current'], history: older['history'] });
});

/** What version 1 would have written: without the column that version 2 added, and a checksum over the others. */
function asVersion1(path: string): Readonly<Record<string, unknown>> {
  const database = new Database(path);
  database.exec('ALTER TABLE superblock DROP COLUMN parted_as_primary');
  const blobs = ['current', 'bitmap', 'history'].map((name) => `lower(hex(${name}))`);
  const flags = ['is_primary', 'writer', 'linked', 'peer_excluded', 'detached'];
  const columns = ['size_bytes', 'origin', ...blobs, 'disk', ...flags].join(" || '|' || ");
  const text = String(database.prepare(`SELECT ${columns} FROM superblock`).pluck().get());
  database.prepare('UPDATE superblock SET crc32c = ?').run(bitwiseCrc32c(Buffer.from(text)));
  database.pragma('user_version = 1');
  database.close();
  return superblockIn(path).row;
}

function superblockIn(path: string): {
  readonly version: unknown;
  readonly row: Readonly<Record<string, unknown>>;
} {
  const database = new Database(path, { fileMustExist: true });
  try {
    const version = database.pragma('user_version', { simple: true });
    return { version, row: { ...(database.prepare('SELECT * FROM superblock').get() ?? {}) } };
  } finally {
    database.close();
  }
}

/** Moves a file away and lets `replace` put something in its place; the cure moves it back. */
function setAside(path: string, replace: (aside: string) => void): Promise<() => void> {
  const aside = `${path}.aside`;
  renameSync(path, aside);
  replace(aside);
  return Promise.resolve(() => {
    // What the node may have begun in its place goes as well.
    for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { recursive: true, force: true });
    renameSync(aside, path);
  });
}

function raiseVersion(from: string, to: string): void {
  copyFileSync(from, to);
  const database = new Database(to);
  database.pragma('user_version = 99');
  database.close();
}

type Device = Awaited<ReturnType<typeof connectNbd>>;

async function withDevice(
  directory: string,
  name: string,
  use: (device: Device) => Promise<unknown>,
): Promise<void> {
  const socket = join(directory, 'resources', name, 'nbd.sock');
  const device = await connectNbd({ address: { path: socket }, exportName: name });
  try {
    await use(device);
  } finally {
    await device.disconnect();
  }
}

function contentOf(index: number): Buffer {
  return Buffer.alloc(4096, `case ${index} `);
}

function detailOf(body: unknown): string {
  if (typeof body === 'object' && body !== null && 'detail' in body && typeof body.detail === 'string') {
    return body.detail;
  }
  throw new Error(`no problem: ${JSON.stringify(body)}`);
}
