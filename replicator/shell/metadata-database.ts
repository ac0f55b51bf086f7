/**
 * One resource's metadata in SQLite, synchronously; runs in the metadata worker. A transaction that has returned is on
 * stable storage: WAL with synchronous=FULL syncs the log at every commit. The file is locked for as long as it is
 * open, so that two processes never work on the same resource.
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import Database from 'better-sqlite3';
import type { MetadataImage, Transaction } from '../core/metadata.ts';
import type { Refusal, RefusalCode } from '../core/refusal.ts';
import { formatBinding } from './backing-identity.ts';
import type { Binding } from './backing-identity.ts';
import {
  MetadataFormatError,
  applicationId,
  checkRange,
  chunkCountMax,
  encodeChunk,
  encodeSuperblock,
  formatVersion,
  parseChunk,
  parseMeta,
  parseRange,
  parseSuperblock,
  schema,
  superblockColumns,
} from './metadata-format.ts';
import { migrations } from './metadata-migrations.ts';
import type { Migration } from './metadata-migrations.ts';
import { syncDirectory } from './directory.ts';

export interface MetadataLocation {
  readonly path: string;
  readonly resourceName: string;
  readonly nodeName: string;
}

export interface MetadataFormat {
  readonly version: number;
  /** One for every older version that can still be read. The table `meta` has stayed the same since version 1. */
  readonly migrations: readonly Migration[];
}

const currentFormat: MetadataFormat = { version: formatVersion, migrations };

/** One unit of durable change: a transaction of the core; the first one also records the claimed backing. */
export interface MetadataChange {
  readonly transaction: Transaction;
  readonly binding: Binding | null;
}

export interface MetadataContent {
  /** 32 hex digits, drawn when the metadata was created. */
  readonly identity: string;
  /** Null, both together, for new metadata: nothing has been recorded yet. */
  readonly recorded: { readonly image: MetadataImage; readonly binding: Binding } | null;
}

export type DatabaseOpened =
  | { readonly ok: true; readonly database: MetadataDatabase; readonly content: MetadataContent }
  | { readonly ok: false; readonly refusal: Refusal };

/** Opens, or creates where there is nothing. Changes nothing in a file it refuses. */
export function openMetadataDatabase(
  location: MetadataLocation,
  format: MetadataFormat = currentFormat,
): DatabaseOpened {
  let database: Database.Database | null = null;
  try {
    checkLength(location.path);
    database = new Database(location.path, { timeout: 0 });
    const content = prepare(database, location, format);
    return { ok: true, database: new MetadataDatabase(database, content.recorded !== null), content };
  } catch (error) {
    database?.close();
    return { ok: false, refusal: refusalOf(error, location.path) };
  }
}

export class MetadataDatabase {
  readonly #database: Database.Database;
  readonly #apply: (changes: readonly MetadataChange[]) => void;
  /** A superblock has been recorded; without one, nothing else may be. */
  #isRecorded: boolean;

  constructor(database: Database.Database, isRecorded: boolean) {
    this.#database = database;
    this.#isRecorded = isRecorded;
    const apply = statements(database);
    this.#apply = database.transaction((changes: readonly MetadataChange[]) => {
      for (const change of changes) apply(change);
    });
  }

  /** All of the changes, in their order, or an exception and none of them. Durable on return. */
  commit(changes: readonly MetadataChange[]): void {
    let isRecorded = this.#isRecorded;
    for (const { transaction, binding } of changes) {
      if (!isRecorded && (transaction.superblock === undefined || binding === null)) {
        throw new Error('new metadata must begin with a superblock and the claimed backing');
      }
      isRecorded = true;
    }
    this.#apply(changes);
    this.#isRecorded = isRecorded;
  }

  close(): void {
    this.#database.close();
  }
}

function statements(database: Database.Database): (change: MetadataChange) => void {
  const columns = superblockColumns.join(', ');
  const marks = superblockColumns.map(() => '?').join(', ');
  const bind = database.prepare('UPDATE meta SET binding = ?');
  const putSuperblock = database.prepare(`REPLACE INTO superblock (only, ${columns}) VALUES (1, ${marks})`);
  const activate = database.prepare('INSERT OR IGNORE INTO activity_log (first, count) VALUES (?, ?)');
  const deactivate = database.prepare('DELETE FROM activity_log WHERE first = ? AND count = ?');
  const putChunk = database.prepare('REPLACE INTO bitmap (chunk, image, crc32c) VALUES (?, ?, ?)');
  const removeChunk = database.prepare('DELETE FROM bitmap WHERE chunk = ?');
  const clearChunks = database.prepare('DELETE FROM bitmap');
  return ({ transaction, binding }) => {
    if (binding !== null) bind.run(formatBinding(binding));
    if (transaction.superblock !== undefined) putSuperblock.run(...encodeSuperblock(transaction.superblock));
    // A range that leaves and enters in one transaction is active after it.
    for (const range of transaction.deactivate ?? []) deactivate.run(range.first, range.count);
    for (const range of transaction.activate ?? []) {
      const { first, count } = checkRange(range);
      activate.run(first, count);
    }
    if (transaction.clearChunks === true) clearChunks.run();
    for (const { chunk, image } of transaction.chunks ?? []) {
      if (image === null) removeChunk.run(chunk);
      else putChunk.run(...encodeChunk(chunk, image));
    }
  };
}

function prepare(
  database: Database.Database,
  location: MetadataLocation,
  format: MetadataFormat,
): MetadataContent {
  // Before anything is read: the lock then stays until the file is closed, and no shared memory is needed.
  database.pragma('locking_mode = EXCLUSIVE');
  database.pragma('cell_size_check = ON');
  const isEmpty = database.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() === undefined;
  if (!isEmpty && simplePragma(database, 'application_id') !== applicationId) {
    throw new RefusalError(
      'metadata-foreign',
      `${location.path} is a database of another program.`,
      'Move it away, or put the metadata of this resource in its place.',
    );
  }
  if (!isEmpty) checkVersion(simplePragma(database, 'user_version'), location.path, format);
  if (database.pragma('journal_mode = WAL', { simple: true }) !== 'wal') {
    throw new Error('the file system does not allow a write-ahead log');
  }
  database.pragma('synchronous = FULL');
  if (simplePragma(database, 'synchronous') !== synchronousFull) {
    throw new Error('SQLite does not sync its log at every commit');
  }
  if (isEmpty) create(database, location, format);
  else {
    checkIntegrity(database);
    checkOwner(database, location);
    migrate(database, location.path, format);
  }
  return load(database);
}

/** SQLite takes a file shorter than its smallest page for an empty database, and would write over it. */
function checkLength(path: string): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() === true && stats.size > 0 && stats.size < smallestPageBytes) {
    throw new MetadataFormatError(`it is only ${stats.size} bytes long`);
  }
}

const smallestPageBytes = 512;
/** What PRAGMA synchronous answers for FULL. */
const synchronousFull = 2;

function checkVersion(version: unknown, path: string, format: MetadataFormat): void {
  if (typeof version !== 'number' || version < 1)
    throw new MetadataFormatError(`format version ${String(version)}`);
  if (version > format.version) {
    throw new RefusalError(
      'metadata-newer',
      `${path} has metadata format ${version}; this program knows formats up to ${format.version}.`,
      'Run the version of Lockstep that wrote it, or a newer one.',
    );
  }
}

function create(database: Database.Database, location: MetadataLocation, format: MetadataFormat): void {
  database.transaction(() => {
    database.pragma(`application_id = ${applicationId}`);
    database.pragma(`user_version = ${format.version}`);
    database.exec(schema);
    database
      .prepare('INSERT INTO meta (only, resource, node, identity, binding) VALUES (1, ?, ?, ?, NULL)')
      .run(location.resourceName, location.nodeName, randomBytes(16).toString('hex'));
  })();
  syncDirectory(dirname(location.path));
}

function checkIntegrity(database: Database.Database): void {
  const result = database.pragma('quick_check(1)', { simple: true });
  if (result !== 'ok')
    throw new MetadataFormatError(`integrity check: ${String(result).replaceAll(/\s+/g, ' ')}`);
}

function checkOwner(database: Database.Database, location: MetadataLocation): void {
  const meta = parseMeta(database.prepare('SELECT * FROM meta').get());
  if (meta.resource === location.resourceName && meta.node === location.nodeName) return;
  throw new RefusalError(
    'metadata-foreign',
    `${location.path} holds the metadata of resource ${meta.resource} on node ${meta.node}, ` +
      `not of ${location.resourceName} on ${location.nodeName}.`,
    'Start with the resource and node name it was created with, or give another metadata path.',
  );
}

/** A copy named after its version is kept before the first step; each step is a transaction of its own. */
function migrate(database: Database.Database, path: string, format: MetadataFormat): void {
  const oldest = Number(simplePragma(database, 'user_version'));
  if (oldest === format.version) return;
  keepCopy(database, path, `${path}.v${oldest}`);
  for (let version = oldest; version < format.version; version++) {
    const migration = format.migrations.find((candidate) => candidate.from === version);
    if (migration === undefined) throw new MetadataFormatError(`no way from format version ${version}`);
    database.transaction(() => {
      migration.run(database);
      database.pragma(`user_version = ${version + 1}`);
    })();
  }
}

function keepCopy(database: Database.Database, path: string, copyPath: string): void {
  // The name appears only when the copy is whole: a crash in between leaves the part, which is begun anew.
  const partPath = `${copyPath}.part`;
  rmSync(partPath, { force: true });
  database.prepare('VACUUM INTO ?').run(partPath);
  const fd = openSync(partPath, 'r+');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(partPath, copyPath);
  syncDirectory(dirname(path));
}

function load(database: Database.Database): MetadataContent {
  const meta = parseMeta(database.prepare('SELECT * FROM meta').get());
  const row = database.prepare('SELECT * FROM superblock').get();
  if (meta.binding === null) {
    if (row !== undefined) throw new MetadataFormatError('a superblock without a claimed backing');
    return { identity: meta.identity, recorded: null };
  }
  const superblock = parseSuperblock(row);
  const active = database
    .prepare('SELECT first, count FROM activity_log ORDER BY first, count')
    .all()
    .map(parseRange);
  const chunks = database
    .prepare('SELECT * FROM bitmap ORDER BY chunk LIMIT ?')
    .all(chunkCountMax)
    .map(parseChunk);
  return {
    identity: meta.identity,
    recorded: { image: { superblock, active, chunks }, binding: meta.binding },
  };
}

function simplePragma(database: Database.Database, name: string): unknown {
  return database.pragma(name, { simple: true });
}

class RefusalError extends Error {
  readonly refusal: Refusal;
  constructor(code: RefusalCode, reason: string, nextStep: string) {
    super(reason);
    this.refusal = { code, reason, nextStep };
  }
}

function refusalOf(error: unknown, path: string): Refusal {
  if (error instanceof RefusalError) return error.refusal;
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Database.SqliteError ? error.code : '';
  if (code.startsWith('SQLITE_BUSY')) {
    return {
      code: 'metadata-in-use',
      reason: `${path} is in use by another process.`,
      nextStep: 'Stop the other Lockstep that serves this resource.',
    };
  }
  const isCorrupt =
    error instanceof MetadataFormatError || code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB';
  if (isCorrupt || isMissingTable(message)) {
    return {
      code: 'metadata-corrupt',
      reason: `${path} is not intact metadata: ${message}.`,
      nextStep:
        'Restore it together with the backing; or, if the peer has the data, remove both and let this node be resynced from it.',
    };
  }
  return {
    code: 'metadata-failed',
    reason: `${path} cannot be opened as metadata: ${message}.`,
    nextStep: 'Check the path, its permissions and the disk under it.',
  };
}

/** Our application id, but not our tables. */
function isMissingTable(message: string): boolean {
  return /^no such (table|column)/.test(message);
}
