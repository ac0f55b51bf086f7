/**
 * What a node remembers of its own: its name and the definitions of its resources. The data of the resources
 * and their metadata are files of the replicator's. SQLite, WAL, synchronous=FULL: a definition that was
 * answered as stored survives a power cut.
 *
 * The connection holds its lock for as long as it is open, so this file also keeps a second process out of the
 * data directory; the kernel drops that lock with the process, however it ends.
 */
import Database from 'better-sqlite3';
import { Type } from 'typebox';
import { ResourceDefinition } from './schemas/resource-definition.ts';
import { checker } from './validation.ts';

/** "Lkst": tells our files from other SQLite files. */
const applicationId = 0x4c6b7374;
const schemaVersion = 1;

/** What an operator can do something about; the message says what. */
export class NodeStoreError extends Error {}

export interface NodeStore {
  /** All definitions, by name. */
  definitions(): readonly ResourceDefinition[];
  definition(name: string): ResourceDefinition | null;
  /** Durable when it returns. */
  save(definition: ResourceDefinition): void;
  remove(name: string): void;
  close(): void;
}

/**
 * Opens or creates `path`. Throws NodeStoreError when another process has it, when it is of a newer version, of
 * another node, or damaged.
 */
export function openNodeStore(path: string, nodeName: string): NodeStore {
  let database: Database.Database | null = null;
  try {
    database = new Database(path, { timeout: 0 });
    prepare(database, path, nodeName);
    const store = new SqliteNodeStore(database, path);
    store.definitions();
    return store;
  } catch (error) {
    database?.close();
    throw explain(error, path);
  }
}

function prepare(database: Database.Database, path: string, nodeName: string): void {
  database.pragma('locking_mode = EXCLUSIVE');
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  // In exclusive mode the first write takes the lock and nothing gives it back before close.
  database.exec('BEGIN EXCLUSIVE; COMMIT');
  const id = integerPragma(database, 'application_id');
  const version = integerPragma(database, 'user_version');
  if (id !== 0 && id !== applicationId) {
    throw new NodeStoreError(`${path} is a SQLite file, but not one of Lockstep. Choose another --data-dir.`);
  }
  if (version > schemaVersion) {
    throw new NodeStoreError(
      `${path} was written by a newer Lockstep (format ${version}, this one knows ${schemaVersion}). Start the newer version.`,
    );
  }
  const check: unknown = database.pragma('quick_check(1)', { simple: true });
  if (check !== 'ok') throw new NodeStoreError(damaged(path, String(check)));
  if (version < schemaVersion) create(database);
  claim(database, path, nodeName);
}

function create(database: Database.Database): void {
  database.exec(`
    BEGIN;
    CREATE TABLE node (name TEXT NOT NULL) STRICT;
    CREATE TABLE resource (name TEXT PRIMARY KEY, definition TEXT NOT NULL) STRICT;
    PRAGMA application_id = ${applicationId};
    PRAGMA user_version = ${schemaVersion};
    COMMIT;
  `);
}

/** A data directory belongs to one node name: the metadata of its resources names it as well. */
function claim(database: Database.Database, path: string, nodeName: string): void {
  const row = database.prepare<[], unknown>('SELECT name FROM node').get();
  if (row === undefined) {
    database.prepare('INSERT INTO node (name) VALUES (?)').run(nodeName);
    return;
  }
  const checked = checkNodeRow(row);
  if (!checked.ok) throw new NodeStoreError(damaged(path, 'the name of the node is unreadable'));
  if (checked.value.name !== nodeName) {
    throw new NodeStoreError(
      `${path} belongs to the node "${checked.value.name}", not to "${nodeName}". Use --name ${checked.value.name}, or another --data-dir.`,
    );
  }
}

class SqliteNodeStore implements NodeStore {
  readonly #database: Database.Database;
  readonly #path: string;

  constructor(database: Database.Database, path: string) {
    this.#database = database;
    this.#path = path;
  }

  definitions(): readonly ResourceDefinition[] {
    const rows = this.#database
      .prepare<[], unknown>('SELECT name, definition FROM resource ORDER BY name')
      .all();
    return rows.map((row) => this.#parse(row));
  }

  definition(name: string): ResourceDefinition | null {
    const row = this.#database
      .prepare<[string], unknown>('SELECT name, definition FROM resource WHERE name = ?')
      .get(name);
    return row === undefined ? null : this.#parse(row);
  }

  save(definition: ResourceDefinition): void {
    this.#database
      .prepare(
        'INSERT INTO resource (name, definition) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET definition = excluded.definition',
      )
      .run(definition.name, JSON.stringify(definition));
  }

  remove(name: string): void {
    this.#database.prepare('DELETE FROM resource WHERE name = ?').run(name);
  }

  close(): void {
    this.#database.close();
  }

  #parse(value: unknown): ResourceDefinition {
    const row = checkResourceRow(value);
    if (!row.ok) throw new NodeStoreError(damaged(this.#path, 'a row of the resource table is unreadable'));
    const { name, definition } = row.value;
    const parsed = checkDefinition(parseJson(definition));
    if (!parsed.ok || parsed.value.name !== name) {
      // The mistakes name keys only; the text itself may hold the secret and stays out of the message.
      const why = parsed.ok ? 'it names another resource' : parsed.mistakes.map((m) => m.message).join('; ');
      throw new NodeStoreError(damaged(this.#path, `the definition of ${name}: ${why}`));
    }
    return parsed.value;
  }
}

const checkNodeRow = checker(Type.Object({ name: Type.String() }));
const checkResourceRow = checker(Type.Object({ name: Type.String(), definition: Type.String() }));
const checkDefinition = checker(ResourceDefinition);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

function integerPragma(database: Database.Database, name: string): number {
  const value: unknown = database.pragma(name, { simple: true });
  if (typeof value !== 'number') throw new NodeStoreError(`PRAGMA ${name} answered ${String(value)}`);
  return value;
}

function damaged(path: string, what: string): string {
  return `${path} is damaged: ${what}. The data of the resources is in files of their own; restore this one from a backup, or move it away and define the resources again with the same settings.`;
}

function explain(error: unknown, path: string): Error {
  if (error instanceof NodeStoreError || !(error instanceof Database.SqliteError)) {
    return error instanceof Error ? error : new Error(String(error));
  }
  if (error.code.startsWith('SQLITE_BUSY') || error.code.startsWith('SQLITE_LOCKED')) {
    return new NodeStoreError(
      `another process has ${path} open: a node is running on this data directory. Stop it, or choose another --data-dir.`,
      { cause: error },
    );
  }
  if (error.code === 'SQLITE_NOTADB' || error.code.startsWith('SQLITE_CORRUPT')) {
    return new NodeStoreError(damaged(path, error.message), { cause: error });
  }
  return new NodeStoreError(`cannot open ${path}: ${error.message} (${error.code})`, { cause: error });
}
