/**
 * Disk errors on demand, for end-to-end tests against real processes. Only with LOCKSTEP_TEST=1 in the environment
 * at start, and LOCKSTEP_TEST_FAULT_FILE naming a file: while that file exists, the operations it lists fail
 * with EIO, for instance `{"failWrites":true}`. `{"badSector":{"offset":8192,"length":4096}}` fails reads that touch these
 * bytes until all of them were written in one go, as a disk does that then takes a spare sector. `{"stall":{"backing":PATH,
 * "fifo":PATH}}` is a disk that hangs: reads of that backing hold a thread of the pool, each until it gets a byte from the
 * fifo. Otherwise the plain system calls are used, at no cost.
 */
import { constants, openSync, read, readFileSync, readlinkSync } from 'node:fs';
import { SystemCallError } from './libc.ts';
import { systemFileIo } from './file-io.ts';
import type { FileIo } from './file-io.ts';

const faultFilePath =
  process.env['LOCKSTEP_TEST'] === '1' ? (process.env['LOCKSTEP_TEST_FAULT_FILE'] ?? null) : null;

/** What the stores of this process use, decided once at start. */
export const processFileIo: FileIo =
  faultFilePath === null ? systemFileIo : faultFileIo(faultFilePath, stallingFileIo(faultFilePath));

export type FaultKind = 'failWrites' | 'failReads' | 'failFlush';

/** The bytes that an operation is about; null for a flush. */
export type FaultRange = { readonly offset: number; readonly length: number } | null;

/** `failWrites` covers punching and zeroing too. A fault file that is no JSON object fails everything. */
export function faultFileIo(path: string, io: FileIo = systemFileIo): FileIo {
  const repaired = new Set<string>();
  return faultyFileIo((kind, range) => {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      return false;
    }
    const listed = parseFaults(text);
    if (listed === null) return true;
    const bad = listed.badSector;
    if (bad !== null && range !== null) {
      const name = `${bad.offset}+${bad.length}`;
      if (kind === 'failWrites' && covers(range, bad)) repaired.add(name);
      if (kind === 'failReads' && touches(range, bad) && !repaired.has(name)) return true;
    }
    return listed.kinds.has(kind);
  }, io);
}

/** The system's calls, but reads of the backing that the file names hang until its fifo lets them go. */
export function stallingFileIo(path: string, io: FileIo = systemFileIo): FileIo {
  const fifos = new Map<string, number>();
  /** The fifo that reads of this descriptor wait for; null when they do not. */
  const stallOf = (fd: number): number | null => {
    const stall = listedStall(path);
    if (stall === null || readlinkSync(`/proc/self/fd/${fd}`) !== stall.backing) return null;
    const fifo = fifos.get(stall.fifo) ?? openSync(stall.fifo, constants.O_RDWR);
    fifos.set(stall.fifo, fifo);
    return fifo;
  };
  return {
    ...io,
    readCached: (fd, data, position) => (stallOf(fd) === null ? io.readCached(fd, data, position) : 'EAGAIN'),
    read(fd, data, position, done) {
      const fifo = stallOf(fd);
      if (fifo === null) return io.read(fd, data, position, done);
      read(fifo, Buffer.alloc(1), 0, 1, null, () => io.read(fd, data, position, done));
    },
  };
}

function listedStall(path: string): { readonly backing: string; readonly fifo: string } | null {
  try {
    const listed: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof listed !== 'object' || listed === null || !('stall' in listed)) return null;
    const { stall } = listed;
    if (typeof stall !== 'object' || stall === null || !('backing' in stall) || !('fifo' in stall))
      return null;
    const { backing, fifo } = stall;
    return typeof backing === 'string' && typeof fifo === 'string' ? { backing, fifo } : null;
  } catch {
    return null;
  }
}

/** The system's calls, except those for which `fails` says yes; it is asked once per call. */
export function faultyFileIo(
  fails: (kind: FaultKind, range: FaultRange) => boolean,
  io: FileIo = systemFileIo,
): FileIo {
  const refuse = (kind: FaultKind, offset: number, length: number): void => {
    if (fails(kind, { offset, length })) throw injected(kind);
  };
  /** Injected errors arrive like real ones: later, in a callback. */
  const unless = (
    kind: FaultKind,
    range: FaultRange,
    done: (error: Error) => void,
    call: () => void,
  ): void => {
    if (fails(kind, range)) setImmediate(() => done(injected(kind)));
    else call();
  };
  return {
    writeNow(fd, data, position) {
      refuse('failWrites', position, data.byteLength);
      io.writeNow(fd, data, position);
    },
    write(fd, data, position, done) {
      unless('failWrites', rangeOf(data, position), done, () => io.write(fd, data, position, done));
    },
    readCached(fd, data, position) {
      // The read that follows in the pool is the one that fails.
      return fails('failReads', rangeOf(data, position)) ? 'EAGAIN' : io.readCached(fd, data, position);
    },
    readNow(fd, data, position) {
      refuse('failReads', position, data.byteLength);
      io.readNow(fd, data, position);
    },
    read(fd, data, position, done) {
      unless('failReads', rangeOf(data, position), done, () => io.read(fd, data, position, done));
    },
    fdatasync(fd, done) {
      unless('failFlush', null, done, () => io.fdatasync(fd, done));
    },
    fallocateNow(fd, how, offset, length) {
      refuse('failWrites', offset, length);
      io.fallocateNow(fd, how, offset, length);
    },
    fallocate(fd, how, offset, length, done) {
      unless('failWrites', { offset, length }, done, () => io.fallocate(fd, how, offset, length, done));
    },
    seekNow: (fd, offset, target) => io.seekNow(fd, offset, target),
    seek(fd, offset, target, done) {
      io.seek(fd, offset, target, done);
    },
  };
}

function injected(kind: FaultKind): Error {
  return new SystemCallError(`injected by the fault file: ${kind}`, 'EIO');
}

interface Faults {
  readonly kinds: ReadonlySet<string>;
  readonly badSector: { readonly offset: number; readonly length: number } | null;
}

/** Null: no JSON object. */
function parseFaults(text: string): Faults | null {
  try {
    const listed: unknown = JSON.parse(text);
    if (typeof listed !== 'object' || listed === null) return null;
    const kinds = new Set<string>();
    let badSector: Faults['badSector'] = null;
    for (const [key, value] of Object.entries(listed)) {
      if (key === 'badSector') badSector = parseRange(value);
      else if (value !== false) kinds.add(key);
    }
    return { kinds, badSector };
  } catch {
    return null;
  }
}

function parseRange(value: unknown): Faults['badSector'] {
  if (typeof value !== 'object' || value === null || !('offset' in value) || !('length' in value))
    return null;
  const { offset, length } = value;
  return typeof offset === 'number' && typeof length === 'number' ? { offset, length } : null;
}

function rangeOf(data: Uint8Array, offset: number): NonNullable<FaultRange> {
  return { offset, length: data.byteLength };
}

function covers(outer: NonNullable<FaultRange>, inner: NonNullable<FaultRange>): boolean {
  return outer.offset <= inner.offset && inner.offset + inner.length <= outer.offset + outer.length;
}

function touches(one: NonNullable<FaultRange>, other: NonNullable<FaultRange>): boolean {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}
