/**
 * The steps that bring older metadata to the present format. A step reads what its own version looked like, checksum
 * included, and knows nothing of later ones: a row that was damaged stays damaged, it is not given a new checksum.
 */
import type Database from 'better-sqlite3';
import { MetadataFormatError, superblockChecksum } from './metadata-format.ts';

/** Brings a database from version `from` to the next; runs inside a transaction. */
export interface Migration {
  readonly from: number;
  readonly run: (database: Database.Database) => void;
}

const superblockColumnsOfVersion1: readonly string[] = [
  'size_bytes',
  'origin',
  'current',
  'bitmap',
  'history',
  'disk',
  'is_primary',
  'writer',
  'linked',
  'peer_excluded',
  'detached',
];

/**
 * `parted_as_primary`: who was Primary when two copies parted was not recorded before. Where they are apart just now, both
 * count as if they had not been; a policy that asks then goes by the number of marked blocks, as for two that were not.
 */
function addPartedAsPrimary(database: Database.Database): void {
  const row = database.prepare('SELECT * FROM superblock').get();
  database.exec('ALTER TABLE superblock ADD COLUMN parted_as_primary INTEGER NOT NULL DEFAULT 0');
  if (row === undefined) return;
  const columns = new Map<string, unknown>(
    typeof row === 'object' && row !== null ? Object.entries(row) : [],
  );
  const values = superblockColumnsOfVersion1.map((column) => checksummed(column, columns.get(column)));
  if (columns.get('crc32c') !== superblockChecksum(values)) throw unfit('crc32c');
  database.prepare('UPDATE superblock SET crc32c = ?').run(superblockChecksum([...values, 0]));
}

function checksummed(column: string, value: unknown): number | string | Uint8Array {
  if (typeof value === 'number' || typeof value === 'string' || value instanceof Uint8Array) return value;
  throw unfit(column);
}

function unfit(column: string): MetadataFormatError {
  return new MetadataFormatError(`superblock: column ${column} does not hold what it should`);
}

export const migrations: readonly Migration[] = [{ from: 1, run: addPartedAsPrimary }];
