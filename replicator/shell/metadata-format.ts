/**
 * The metadata of one resource as an SQLite database: tables, and rows to values and back. Every row that counts
 * carries a CRC32C, since SQLite has none: a bit that flips in a bitmap would otherwise absolve a block. Rows are
 * parsed strictly; what does not parse makes the metadata corrupt rather than guessed at.
 */
import { crc32c } from '@node-rs/crc32';
import type { ActiveRange, Origin, RecordedDisk, Superblock } from '../core/metadata.ts';
import { maxBitmapGenerations, maxHistory } from '../core/metadata.ts';
import type { Generation } from '../core/vocabulary.ts';
import { isIdentity, parseBinding } from './backing-identity.ts';
import type { Binding } from './backing-identity.ts';

/** "LKST", in the header of the file (PRAGMA application_id). */
export const applicationId = 0x4c4b5354;
/** PRAGMA user_version. */
export const formatVersion = 2;

/** 16 TiB in chunks of 256 MiB. */
export const chunkCountMax = 65_536;
/** 65,536 bits and a little; the encoding is bitmap.ts's own. */
export const chunkImageBytesMax = 16 * 1024;
/** 16 TiB in extents of 4 MiB. */
export const extentCountMax = 4_194_304;

export const schema = `
  CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    resource TEXT NOT NULL,
    node TEXT NOT NULL,
    identity TEXT NOT NULL,
    binding TEXT
  ) STRICT;
  CREATE TABLE superblock (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    size_bytes INTEGER NOT NULL,
    origin TEXT NOT NULL,
    current BLOB NOT NULL,
    bitmap BLOB NOT NULL,
    history BLOB NOT NULL,
    disk TEXT NOT NULL,
    is_primary INTEGER NOT NULL,
    writer INTEGER NOT NULL,
    linked INTEGER NOT NULL,
    peer_excluded INTEGER NOT NULL,
    detached INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    parted_as_primary INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE activity_log (
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (first, count)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE bitmap (
    chunk INTEGER PRIMARY KEY,
    image BLOB NOT NULL,
    crc32c INTEGER NOT NULL
  ) STRICT;
`;

export class MetadataFormatError extends Error {
  override readonly name = 'MetadataFormatError';
}

export interface MetaRow {
  readonly resource: string;
  readonly node: string;
  readonly identity: string;
  /** Null until the backing has been claimed. */
  readonly binding: Binding | null;
}

export function parseMeta(value: unknown): MetaRow {
  const row = rowOf('meta', value);
  const identity = row.text('identity');
  if (!isIdentity(identity)) throw row.unfit('identity');
  const bindingText = row.textOrNull('binding');
  const binding = bindingText === null ? null : parseBinding(bindingText);
  if (bindingText !== null && binding === null) throw row.unfit('binding');
  return { resource: row.text('resource'), node: row.text('node'), identity, binding };
}

/** Values of a superblock row, in the order of its columns after `only`. */
export type SuperblockRow = readonly (number | string | Uint8Array)[];

/** Throws MetadataFormatError for a superblock that could not be read back. */
export function encodeSuperblock(superblock: Superblock): SuperblockRow {
  if (superblock.current === 0n) throw new MetadataFormatError('superblock: the current generation is zero');
  if (superblock.bitmap.length > maxBitmapGenerations || superblock.history.length > maxHistory) {
    throw new MetadataFormatError('superblock: too many generations');
  }
  if (!Number.isSafeInteger(superblock.sizeBytes) || superblock.sizeBytes <= 0) {
    throw new MetadataFormatError(`superblock: size ${superblock.sizeBytes}`);
  }
  const values = [
    superblock.sizeBytes,
    superblock.origin,
    encodeGenerations([superblock.current]),
    encodeGenerations(superblock.bitmap),
    encodeGenerations(superblock.history),
    superblock.disk,
    Number(superblock.primary),
    Number(superblock.writer),
    Number(superblock.linked),
    Number(superblock.peerExcluded),
    Number(superblock.detached),
    Number(superblock.partedAsPrimary),
  ];
  return [...values, superblockChecksum(values)];
}

export const superblockColumns = [
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
  'parted_as_primary',
  'crc32c',
] as const;

export function parseSuperblock(value: unknown): Superblock {
  const row = rowOf('superblock', value);
  const [current, ...more] = row.generations('current', 1);
  if (current === undefined || current === 0n || more.length > 0) throw row.unfit('current');
  const superblock: Superblock = {
    sizeBytes: row.integer('size_bytes', 1, Number.MAX_SAFE_INTEGER),
    origin: row.oneOf('origin', origins),
    current,
    bitmap: row.generations('bitmap', maxBitmapGenerations),
    history: row.generations('history', maxHistory),
    disk: row.oneOf('disk', recordedDisks),
    primary: row.flag('is_primary'),
    writer: row.flag('writer'),
    linked: row.flag('linked'),
    peerExcluded: row.flag('peer_excluded'),
    detached: row.flag('detached'),
    partedAsPrimary: row.flag('parted_as_primary'),
  };
  if (encodeSuperblock(superblock).at(-1) !== row.integer('crc32c', 0, 0xffffffff)) throw row.unfit('crc32c');
  return superblock;
}

/** Throws MetadataFormatError for a range that could not be read back. */
export function checkRange(range: ActiveRange): ActiveRange {
  const isFit =
    Number.isInteger(range.first) &&
    Number.isInteger(range.count) &&
    range.first >= 0 &&
    range.count >= 1 &&
    range.first + range.count <= extentCountMax;
  if (!isFit) throw new MetadataFormatError(`activity log: ${range.count} extents from ${range.first}`);
  return range;
}

export function parseRange(value: unknown): ActiveRange {
  const row = rowOf('activity_log', value);
  return checkRange({
    first: row.integer('first', 0, extentCountMax),
    count: row.integer('count', 1, extentCountMax),
  });
}

/** Throws MetadataFormatError for a chunk that could not be read back. */
export function encodeChunk(chunk: number, image: Uint8Array): readonly [number, Uint8Array, number] {
  if (!Number.isInteger(chunk) || chunk < 0 || chunk >= chunkCountMax) {
    throw new MetadataFormatError(`bitmap: chunk ${chunk}`);
  }
  if (image.byteLength === 0 || image.byteLength > chunkImageBytesMax) {
    throw new MetadataFormatError(`bitmap: an image of ${image.byteLength} bytes for chunk ${chunk}`);
  }
  return [chunk, image, chunkChecksum(chunk, image)];
}

export function parseChunk(value: unknown): { readonly chunk: number; readonly image: Uint8Array } {
  const row = rowOf('bitmap', value);
  const chunk = row.integer('chunk', 0, chunkCountMax - 1);
  const image = row.blob('image');
  if (image.byteLength === 0 || image.byteLength > chunkImageBytesMax) throw row.unfit('image');
  if (row.integer('crc32c', 0, 0xffffffff) !== chunkChecksum(chunk, image)) throw row.unfit('crc32c');
  return { chunk, image };
}

const origins: readonly Origin[] = ['created-empty', 'created-with-data', 'settled'];
const recordedDisks: readonly RecordedDisk[] = ['Inconsistent', 'Outdated', 'Consistent', 'UpToDate'];

const generationBytes = 8;

function encodeGenerations(generations: readonly Generation[]): Uint8Array {
  const bytes = Buffer.alloc(generations.length * generationBytes);
  generations.forEach((generation, index) => bytes.writeBigUInt64BE(generation, index * generationBytes));
  return bytes;
}

/** The chunk's number is part of it: an image under the wrong number would clear and mark the wrong blocks. */
function chunkChecksum(chunk: number, image: Uint8Array): number {
  return crc32c(image, crc32c(`chunk ${chunk}:`));
}

/** Over the values in the order of `superblockColumns`, without the checksum itself. */
export function superblockChecksum(values: readonly (number | string | Uint8Array)[]): number {
  return crc32c(
    values
      .map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value)))
      .join('|'),
  );
}

function rowOf(table: string, value: unknown): Row {
  if (typeof value !== 'object' || value === null)
    throw new MetadataFormatError(`${table}: the row is missing`);
  return new Row(table, new Map(Object.entries(value)));
}

/** A row whose columns are parsed one by one; every method throws MetadataFormatError. */
class Row {
  readonly #table: string;
  readonly #columns: ReadonlyMap<string, unknown>;

  constructor(table: string, columns: ReadonlyMap<string, unknown>) {
    this.#table = table;
    this.#columns = columns;
  }

  text(column: string): string {
    const value = this.#columns.get(column);
    if (typeof value !== 'string') throw this.unfit(column);
    return value;
  }

  textOrNull(column: string): string | null {
    return this.#columns.get(column) === null ? null : this.text(column);
  }

  oneOf<Word extends string>(column: string, words: readonly Word[]): Word {
    const value = this.text(column);
    const word = words.find((candidate) => candidate === value);
    if (word === undefined) throw this.unfit(column);
    return word;
  }

  integer(column: string, min: number, max: number): number {
    const value = this.#columns.get(column);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw this.unfit(column);
    }
    return value;
  }

  flag(column: string): boolean {
    return this.integer(column, 0, 1) === 1;
  }

  blob(column: string): Uint8Array {
    const value = this.#columns.get(column);
    if (!(value instanceof Uint8Array)) throw this.unfit(column);
    return value;
  }

  generations(column: string, countMax: number): Generation[] {
    const blob = this.blob(column);
    const count = blob.byteLength / generationBytes;
    if (!Number.isInteger(count) || count > countMax) throw this.unfit(column);
    const bytes = Buffer.from(blob.buffer, blob.byteOffset, blob.byteLength);
    return Array.from({ length: count }, (_, index) => bytes.readBigUInt64BE(index * generationBytes));
  }

  unfit(column: string): MetadataFormatError {
    return new MetadataFormatError(`${this.#table}: column ${column} does not hold what it should`);
  }
}
