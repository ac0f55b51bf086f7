/**
 * Disk errors on demand, for end-to-end tests against real processes. Only with LOCKSTEP_TEST=1 in the environment
 * at start, and LOCKSTEP_TEST_FAULT_FILE naming a file: while that file exists, the operations it lists fail
 * with EIO, for instance `{"failWrites":true}`. Otherwise the plain system calls are used, at no cost.
 */
import { readFileSync } from 'node:fs';
import { SystemCallError } from './libc.ts';
import { systemFileIo } from './file-io.ts';
import type { FileIo } from './file-io.ts';

const faultFilePath =
  process.env['LOCKSTEP_TEST'] === '1' ? (process.env['LOCKSTEP_TEST_FAULT_FILE'] ?? null) : null;

/** What the stores of this process use, decided once at start. */
export const processFileIo: FileIo = faultFilePath === null ? systemFileIo : faultFileIo(faultFilePath);

export type FaultKind = 'failWrites' | 'failReads' | 'failFlush';

/** `writes` covers punching and zeroing too. A fault file that is no JSON object of booleans fails everything. */
export function faultFileIo(path: string): FileIo {
  return faultyFileIo((kind) => {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      return false;
    }
    return isListed(text, kind);
  });
}

/** The system's calls, except those for which `fails` says yes; it is asked once per call. */
export function faultyFileIo(fails: (kind: FaultKind) => boolean, io: FileIo = systemFileIo): FileIo {
  const refuse = (kind: FaultKind): void => {
    if (fails(kind)) throw injected(kind);
  };
  /** Injected errors arrive like real ones: later, in a callback. */
  const unless = (kind: FaultKind, done: (error: Error) => void, call: () => void): void => {
    if (fails(kind)) setImmediate(() => done(injected(kind)));
    else call();
  };
  return {
    writeNow(fd, data, position) {
      refuse('failWrites');
      io.writeNow(fd, data, position);
    },
    write(fd, data, position, done) {
      unless('failWrites', done, () => io.write(fd, data, position, done));
    },
    readCached(fd, data, position) {
      // The read that follows in the pool is the one that fails.
      return fails('failReads') ? 'EAGAIN' : io.readCached(fd, data, position);
    },
    readNow(fd, data, position) {
      refuse('failReads');
      io.readNow(fd, data, position);
    },
    read(fd, data, position, done) {
      unless('failReads', done, () => io.read(fd, data, position, done));
    },
    fdatasync(fd, done) {
      unless('failFlush', done, () => io.fdatasync(fd, done));
    },
    fallocateNow(fd, how, offset, length) {
      refuse('failWrites');
      io.fallocateNow(fd, how, offset, length);
    },
    fallocate(fd, how, offset, length, done) {
      unless('failWrites', done, () => io.fallocate(fd, how, offset, length, done));
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

function isListed(text: string, kind: FaultKind): boolean {
  try {
    const listed: unknown = JSON.parse(text);
    if (typeof listed !== 'object' || listed === null) return true;
    return Object.entries(listed).some(([key, value]) => key === kind && value !== false);
  } catch {
    return true;
  }
}
