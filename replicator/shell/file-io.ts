/**
 * Everything the backing store asks of the operating system for the device's bytes, as one interface, so that tests
 * can fail the n-th call. Errors carry the errno name in `code`.
 */
import { fdatasync, read, write, writeSync, readSync } from 'node:fs';
import * as libc from './libc.ts';
import type { Allocation, SeekTarget } from './libc.ts';

export type IoDone = (error: Error | null) => void;

export interface FileIo {
  /** On this thread; all of `data` or an exception. */
  writeNow(fd: number, data: Uint8Array, position: number): void;
  /** In the thread pool; all of `data` or an error. */
  write(fd: number, data: Uint8Array, position: number, done: IoDone): void;
  /** What is in the page cache, on this thread: bytes read, or the name of an error (EAGAIN, ENOTSUP). */
  readCached(fd: number, data: Uint8Array, position: number): number | string;
  /** On this thread, for files that live in memory; all of `data` or an exception. */
  readNow(fd: number, data: Uint8Array, position: number): void;
  read(fd: number, data: Uint8Array, position: number, done: IoDone): void;
  fdatasync(fd: number, done: IoDone): void;
  fallocateNow(fd: number, how: Allocation, offset: number, length: number): void;
  fallocate(fd: number, how: Allocation, offset: number, length: number, done: IoDone): void;
  seekNow(fd: number, offset: number, target: SeekTarget): number | null;
  seek(
    fd: number,
    offset: number,
    target: SeekTarget,
    done: (error: Error | null, found: number | null) => void,
  ): void;
}

export const systemFileIo: FileIo = {
  writeNow(fd, data, position) {
    let written = 0;
    while (written < data.byteLength) {
      // A short write is asked again for its rest: the answer then says why (ENOSPC, EIO).
      const count = writeSync(fd, data, written, data.byteLength - written, position + written);
      if (count === 0) throw new libc.SystemCallError('pwrite wrote nothing', 'EIO');
      written += count;
    }
  },
  write(fd, data, position, done) {
    writeRest(fd, data, 0, position, done);
  },
  readCached: libc.readCached,
  readNow(fd, data, position) {
    let filled = 0;
    while (filled < data.byteLength) {
      const count = readSync(fd, data, filled, data.byteLength - filled, position + filled);
      if (count === 0) throw endOfFile(position + filled);
      filled += count;
    }
  },
  read(fd, data, position, done) {
    readRest(fd, data, 0, position, done);
  },
  fdatasync(fd, done) {
    fdatasync(fd, done);
  },
  fallocateNow: libc.fallocateNow,
  fallocate: libc.fallocate,
  seekNow: libc.seekNow,
  seek: libc.seek,
};

function writeRest(fd: number, data: Uint8Array, written: number, position: number, done: IoDone): void {
  write(fd, data, written, data.byteLength - written, position + written, (error, count) => {
    if (error !== null) done(error);
    else if (count === 0) done(new libc.SystemCallError('pwrite wrote nothing', 'EIO'));
    else if (written + count < data.byteLength) writeRest(fd, data, written + count, position, done);
    else done(null);
  });
}

function readRest(fd: number, data: Uint8Array, filled: number, position: number, done: IoDone): void {
  read(fd, data, filled, data.byteLength - filled, position + filled, (error, count) => {
    if (error !== null) done(error);
    else if (count === 0) done(endOfFile(position + filled));
    else if (filled + count < data.byteLength) readRest(fd, data, filled + count, position, done);
    else done(null);
  });
}

/** The device is checked to fit in the file: its end within the device means that somebody cut the file short. */
function endOfFile(position: number): Error {
  return new libc.SystemCallError(`read met the end of the file at byte ${position}`, 'EIO');
}
