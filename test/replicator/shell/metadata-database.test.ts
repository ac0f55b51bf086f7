/** The metadata file: what is stored is read back, and what is foreign, newer or damaged is refused. */
import {
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { Superblock, Transaction } from '../../../replicator/core/metadata.ts';
import type { RefusalCode } from '../../../replicator/core/refusal.ts';
import { formatVersion } from '../../../replicator/shell/metadata-format.ts';
import { openMetadataDatabase } from '../../../replicator/shell/metadata-database.ts';
import type {
  MetadataContent,
  MetadataDatabase,
  MetadataFormat,
} from '../../../replicator/shell/metadata-database.ts';
import { bitwiseCrc32c } from '../../support/bitwise-crc32c.ts';
import { attributeBinding, someSuperblock } from '../../support/metadata.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

function at(t: ExecutionContext): string {
  return join(temporaryDirectory(t), 'r0.sqlite');
}

function location(path: string) {
  return { path, resourceName: 'r0', nodeName: 'alpha' };
}

function open(
  path: string,
  format?: MetadataFormat,
): { database: MetadataDatabase; content: MetadataContent } {
  const opened = openMetadataDatabase(location(path), format);
  if (!opened.ok) throw new Error(`${opened.refusal.code}: ${opened.refusal.reason}`);
  return opened;
}

/** What is there after closing and opening again. */
function reopened(path: string): MetadataContent {
  const { database, content } = open(path);
  database.close();
  return content;
}

function withTransactions(path: string, ...transactions: Transaction[]): MetadataContent {
  const { database } = open(path);
  database.commit([
    { transaction: { superblock: someSuperblock }, binding: attributeBinding },
    ...transactions.map((transaction) => ({ transaction, binding: null })),
  ]);
  database.close();
  return reopened(path);
}

function refusalCode(t: ExecutionContext, path: string, names = {}): RefusalCode | null {
  const opened = openMetadataDatabase({ ...location(path), ...names });
  if (opened.ok) {
    opened.database.close();
    return null;
  }
  t.true(opened.refusal.reason.includes(path), opened.refusal.reason);
  t.true(opened.refusal.nextStep.length > 0);
  return opened.refusal.code;
}

/** Changes the file behind our back. */
function tamper(path: string, ...sql: string[]): void {
  const database = new Database(path);
  for (const statement of sql) database.exec(statement);
  database.close();
}

test('new metadata has an identity that stays, and nothing recorded until the first superblock', (t) => {
  const path = at(t);
  const first = reopened(path);
  t.is(first.recorded, null);
  t.regex(first.identity, /^[0-9a-f]{32}$/);
  t.deepEqual(reopened(path), first);
  t.is(withTransactions(path).identity, first.identity);
  t.not(reopened(at(t)).identity, first.identity);
});

test('a superblock comes back as it was, with 64-bit generations', (t) => {
  const path = at(t);
  const { recorded } = withTransactions(path);
  t.deepEqual(recorded, {
    image: { superblock: someSuperblock, active: [], chunks: [] },
    binding: attributeBinding,
  });
  const full: Superblock = {
    ...someSuperblock,
    origin: 'settled',
    disk: 'UpToDate',
    bitmap: [],
    history: Array.from({ length: 32 }, (_, index) => 2n ** 64n - 1n - BigInt(index)),
    primary: false,
    writer: true,
  };
  const { database } = open(path);
  database.commit([{ transaction: { superblock: full }, binding: null }]);
  database.close();
  t.deepEqual(reopened(path).recorded?.image.superblock, full);
});

test('ranges of the activity log come and go one by one', (t) => {
  const content = withTransactions(
    at(t),
    {
      activate: [
        { first: 5, count: 1 },
        { first: 5, count: 100 },
        { first: 0, count: 1 },
        { first: 5, count: 1 },
      ],
    },
    { deactivate: [{ first: 5, count: 1 }] },
    { activate: [{ first: 4_194_303, count: 1 }] },
  );
  t.deepEqual(content.recorded?.image.active, [
    { first: 0, count: 1 },
    { first: 5, count: 100 },
    { first: 4_194_303, count: 1 },
  ]);
});

test('a range that leaves and enters in one transaction is active', (t) => {
  const range = { first: 7, count: 3 };
  const content = withTransactions(at(t), { activate: [range] }, { deactivate: [range], activate: [range] });
  t.deepEqual(content.recorded?.image.active, [range]);
});

test('chunks are put, replaced, removed, and cleared before new ones are put', (t) => {
  const path = at(t);
  const image = (value: number) => Uint8Array.from([value, 0, 255]);
  const chunksAfter = (...transactions: Transaction[]) =>
    withTransactions(path, ...transactions).recorded?.image.chunks.map(({ chunk, image: bytes }) => [
      chunk,
      [...bytes],
    ]);
  t.deepEqual(
    chunksAfter(
      {
        chunks: [
          { chunk: 65_535, image: image(1) },
          { chunk: 0, image: image(2) },
          { chunk: 3, image: image(3) },
        ],
      },
      {
        chunks: [
          { chunk: 0, image: image(4) },
          { chunk: 3, image: null },
          { chunk: 9, image: null },
        ],
      },
    ),
    [
      [0, [4, 0, 255]],
      [65_535, [1, 0, 255]],
    ],
  );
  t.deepEqual(chunksAfter({ clearChunks: true, chunks: [{ chunk: 8, image: image(8) }] }), [
    [8, [8, 0, 255]],
  ]);
});

test('what could not be read back is not committed, nor is anything with it', (t) => {
  const path = at(t);
  const before = withTransactions(path, { activate: [{ first: 1, count: 1 }] });
  const unfit: Transaction[] = [
    { superblock: { ...someSuperblock, current: 0n } },
    { superblock: { ...someSuperblock, current: 2n ** 64n } },
    { superblock: { ...someSuperblock, sizeBytes: 0 } },
    { superblock: { ...someSuperblock, history: Array.from({ length: 33 }, () => 1n) } },
    { superblock: { ...someSuperblock, bitmap: Array.from({ length: 9 }, () => 1n) } },
    { activate: [{ first: 0, count: 0 }] },
    { activate: [{ first: 4_194_303, count: 2 }] },
    { chunks: [{ chunk: 65_536, image: Uint8Array.of(1) }] },
    { chunks: [{ chunk: 0, image: new Uint8Array(16 * 1024 + 1) }] },
  ];
  const { database } = open(path);
  for (const transaction of unfit) {
    t.throws(() =>
      database.commit([
        { transaction: { activate: [{ first: 2, count: 1 }] }, binding: null },
        { transaction, binding: null },
      ]),
    );
  }
  database.close();
  t.deepEqual(reopened(path), before);
});

test('new metadata takes nothing before a superblock and the backing it belongs to', (t) => {
  const path = at(t);
  const { database } = open(path);
  t.throws(() =>
    database.commit([{ transaction: { activate: [{ first: 1, count: 1 }] }, binding: attributeBinding }]),
  );
  t.throws(() => database.commit([{ transaction: { superblock: someSuperblock }, binding: null }]));
  database.close();
  t.is(reopened(path).recorded, null);
});

test('metadata of another resource or node is refused and stays as it is', (t) => {
  const path = at(t);
  withTransactions(path);
  const before = readFileSync(path);
  t.is(refusalCode(t, path, { resourceName: 'r1' }), 'metadata-foreign');
  t.is(refusalCode(t, path, { nodeName: 'beta' }), 'metadata-foreign');
  t.true(readFileSync(path).equals(before));
  t.is(refusalCode(t, path), null);
});

test('a database of another program is refused and stays as it is', (t) => {
  const path = at(t);
  tamper(path, 'CREATE TABLE theirs (x)', 'INSERT INTO theirs VALUES (1)');
  const before = readFileSync(path);
  t.is(refusalCode(t, path), 'metadata-foreign');
  t.true(readFileSync(path).equals(before));
});

test('metadata of a newer version is refused and stays as it is', (t) => {
  const path = at(t);
  withTransactions(path);
  tamper(path, `PRAGMA user_version = ${formatVersion + 1}`);
  const before = readFileSync(path);
  t.is(refusalCode(t, path), 'metadata-newer');
  t.true(readFileSync(path).equals(before));
});

test('what is no database is refused', (t) => {
  const path = at(t);
  for (const content of ['x', 'not a database, but longer than a header '.repeat(200)]) {
    writeFileSync(path, content);
    t.is(refusalCode(t, path), 'metadata-corrupt', content.slice(0, 10));
    t.is(readFileSync(path, 'utf8'), content);
  }
});

const damages: Readonly<Record<string, readonly string[]>> = {
  'an unknown disk state': ["UPDATE superblock SET disk = 'Fine'"],
  'an unknown origin': ["UPDATE superblock SET origin = ''"],
  'a generation cut short': ["UPDATE superblock SET current = x'01'"],
  'a generation of zero': ["UPDATE superblock SET current = x'0000000000000000'"],
  'two current generations': ["UPDATE superblock SET current = x'00000000000000010000000000000001'"],
  'a history cut short': ["UPDATE superblock SET history = x'0102030405060708090a'"],
  'a flag that is neither': ['UPDATE superblock SET writer = 2'],
  'a flag that was flipped': ['UPDATE superblock SET peer_excluded = 1'],
  'a size that is negative': ['UPDATE superblock SET size_bytes = -1'],
  'a size beyond 2^53': ['UPDATE superblock SET size_bytes = 9007199254740993'],
  'no superblock': ['DELETE FROM superblock'],
  'no owner': ['DELETE FROM meta'],
  'an identity that is none': ["UPDATE meta SET identity = 'abc'"],
  'a binding that is none': ["UPDATE meta SET binding = 'here'"],
  'a superblock without a binding': ['UPDATE meta SET binding = NULL'],
  'an empty range': ['INSERT INTO activity_log VALUES (3, 0)'],
  'a range beyond the largest device': ['INSERT INTO activity_log VALUES (4194303, 2)'],
  'a bit flipped in a chunk': ["UPDATE bitmap SET image = x'010003'"],
  'a chunk under the wrong number': ['UPDATE bitmap SET chunk = 5'],
  'a chunk number out of range': ['UPDATE bitmap SET chunk = 65536'],
  'a missing table': ['DROP TABLE activity_log'],
  'a version of zero': ['PRAGMA user_version = 0'],
};

for (const [name, sql] of Object.entries(damages)) {
  test(`refused as corrupt: ${name}`, (t) => {
    const path = at(t);
    withTransactions(path, { chunks: [{ chunk: 4, image: Uint8Array.of(1, 0, 2) }] });
    tamper(path, ...sql);
    t.is(refusalCode(t, path), 'metadata-corrupt');
  });
}

test('refused as corrupt: pages cut off or overwritten', (t) => {
  const path = at(t);
  const chunks = Array.from({ length: 40 }, (_, chunk) => ({
    chunk,
    image: new Uint8Array(8000).fill(chunk),
  }));
  withTransactions(path, { chunks });
  const whole = readFileSync(path);
  truncateSync(path, whole.byteLength - 8192);
  t.is(refusalCode(t, path), 'metadata-corrupt');

  writeFileSync(path, whole);
  const fd = openSync(path, 'r+');
  for (let page = 1; page < whole.byteLength / 4096; page++)
    writeSync(fd, Buffer.alloc(64, 0xa5), 0, 64, page * 4096);
  closeSync(fd);
  t.is(refusalCode(t, path), 'metadata-corrupt');
});

test('metadata that is open already is refused', (t) => {
  const path = at(t);
  const { database } = open(path);
  t.is(refusalCode(t, path), 'metadata-in-use');
  database.close();
  t.is(refusalCode(t, path), null);
});

test('a path where no file can be is refused', (t) => {
  const path = at(t);
  t.is(refusalCode(t, join(path, 'no', 'such', 'directory')), 'metadata-failed');
  mkdirSync(path);
  t.is(refusalCode(t, path), 'metadata-failed');
});

/** Makes it what version 1 wrote: without the column that version 2 added, and with the checksum over the others. */
function asVersion1(path: string): void {
  const raw = new Database(path);
  raw.exec('ALTER TABLE superblock DROP COLUMN parted_as_primary');
  const hex = (generations: readonly bigint[]): string =>
    generations.map((generation) => generation.toString(16).padStart(16, '0')).join('');
  const { sizeBytes, origin, current, bitmap, history, disk } = someSuperblock;
  const flags = [1, 0, 1, 0, 1];
  const text = [sizeBytes, origin, hex([current]), hex(bitmap), hex(history), disk, ...flags].join('|');
  raw.prepare('UPDATE superblock SET crc32c = ?').run(bitwiseCrc32c(Buffer.from(text)));
  raw.pragma('user_version = 1');
  raw.close();
}

test('metadata of version 1: who was Primary when the copies parted is not known, all else stays', (t) => {
  const path = at(t);
  const before = withTransactions(path, { activate: [{ first: 1, count: 1 }] });
  asVersion1(path);
  const superblock = { ...someSuperblock, partedAsPrimary: false };
  t.deepEqual(reopened(path).recorded?.image, { ...before.recorded?.image, superblock });
  t.true(existsSync(`${path}.v1`));
  t.deepEqual(reopened(path).recorded?.image.superblock, superblock);
  const { database } = open(path);
  database.commit([{ transaction: { superblock: someSuperblock }, binding: null }]);
  database.close();
  t.deepEqual(reopened(path), before);
});

test('metadata of version 1 that was damaged is not given a new checksum', (t) => {
  const path = at(t);
  withTransactions(path);
  asVersion1(path);
  const raw = new Database(path);
  raw.exec('UPDATE superblock SET writer = 1');
  raw.close();
  t.is(refusalCode(t, path), 'metadata-corrupt');
  t.is(refusalCode(t, path), 'metadata-corrupt');
});

test('metadata of version 1 in which nothing was recorded yet', (t) => {
  const path = at(t);
  const { database, content } = open(path);
  database.close();
  const raw = new Database(path);
  raw.exec('ALTER TABLE superblock DROP COLUMN parted_as_primary');
  raw.pragma('user_version = 1');
  raw.close();
  t.deepEqual(reopened(path), content);
});

test('older metadata is migrated step by step, after a copy of it was kept', (t) => {
  const path = at(t);
  const before = withTransactions(path, { activate: [{ first: 1, count: 1 }] });
  const steps: number[] = [];
  const format: MetadataFormat = {
    version: formatVersion + 2,
    migrations: [
      {
        from: formatVersion + 1,
        run: (database) => void (steps.push(2), database.exec('DELETE FROM activity_log')),
      },
      {
        from: formatVersion,
        run: () => {
          t.true(existsSync(`${path}.v${formatVersion}`));
          steps.push(1);
        },
      },
    ],
  };
  const migrated = open(path, format);
  migrated.database.close();
  t.deepEqual(steps, [1, 2]);
  t.deepEqual(migrated.content.recorded?.image.active, []);
  t.is(refusalCode(t, path), 'metadata-newer');
  open(path, format).database.close();
  t.deepEqual(steps, [1, 2]);
  t.deepEqual(reopened(`${path}.v${formatVersion}`), before);
});

test('a migration that fails leaves the last version that worked', (t) => {
  const path = at(t);
  const before = withTransactions(path);
  const format: MetadataFormat = {
    version: formatVersion + 1,
    migrations: [
      {
        from: formatVersion,
        run: (database) => {
          database.exec('DELETE FROM superblock');
          throw new Error('no');
        },
      },
    ],
  };
  writeFileSync(`${path}.v${formatVersion}.part`, 'what a crash left of an earlier copy');
  t.false(openMetadataDatabase(location(path), format).ok);
  t.deepEqual(reopened(path), before);
  t.deepEqual(reopened(`${path}.v${formatVersion}`), before);
  t.false(existsSync(`${path}.v${formatVersion}.part`));
});

test('a version without a way to the present one is refused', (t) => {
  const path = at(t);
  withTransactions(path);
  const opened = openMetadataDatabase(location(path), { version: formatVersion + 1, migrations: [] });
  t.is(opened.ok ? null : opened.refusal.code, 'metadata-corrupt');
});

test('commits go to a write-ahead log', (t) => {
  const path = at(t);
  const { database } = open(path);
  database.commit([{ transaction: { superblock: someSuperblock }, binding: attributeBinding }]);
  t.true(existsSync(`${path}-wal`));
  database.close();
  const raw = new Database(path);
  t.is(raw.pragma('journal_mode', { simple: true }), 'wal');
  raw.close();
});
