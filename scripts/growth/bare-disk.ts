/**
 * What a disk makes of misses of the activity log when nothing else is done: the system calls of queue 32 alone, of both
 * copies when both lie on it. Sixteen share a commit, as in a node, where half of what is under way waits for the other half.
 */
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';

const batch = 16;
const blockBytes = 4096;
/** What a transaction with sixteen extents appends to SQLite's log, about. */
const commitBytes = 8 * blockBytes;
/** The log is written again from its beginning after that much. */
const logBytes = 4 * 1024 ** 2;
/** Half of what can be active: then both copies are flushed, beside what goes on. */
const unstableMax = 618;

const sync = promisify(fdatasync);

/** Writes per second to `copies` sparse files of that size in `directory`, which are removed again. */
export async function bareMisses(
  directory: string,
  copies: number,
  sizeBytes: number,
  seconds: number,
): Promise<number> {
  const paths = Array.from({ length: copies + 1 }, (_, index) => join(directory, `bare-${index}`));
  const fds = paths.map((path) => openSync(path, 'w'));
  try {
    return await misses(fds, sizeBytes, seconds);
  } finally {
    for (const fd of fds) closeSync(fd);
    for (const path of paths) rmSync(path);
  }
}

async function misses(
  [log = 0, ...copies]: readonly number[],
  sizeBytes: number,
  seconds: number,
): Promise<number> {
  writeSync(log, Buffer.alloc(logBytes));
  fsyncSync(log);
  for (const fd of copies) ftruncateSync(fd, sizeBytes);
  const block = Buffer.alloc(blockBytes, 1);
  const change = Buffer.alloc(commitBytes, 1);
  let flushing: Promise<unknown> | null = null;
  let [writes, unstable] = [0, 0];
  const startMs = performance.now();
  const tookMs = (): number => performance.now() - startMs;
  for (let at = 0; tookMs() < seconds * 1000; at = (at + commitBytes) % logBytes) {
    writeSync(log, change, 0, commitBytes, at);
    fdatasyncSync(log);
    for (let index = 0; index < batch; index++) {
      const position = Math.floor(Math.random() * (sizeBytes / blockBytes)) * blockBytes;
      for (const fd of copies) writeSync(fd, block, 0, blockBytes, position);
    }
    writes += batch;
    unstable += batch;
    if (unstable > unstableMax) {
      await flushing;
      unstable = 0;
      flushing = Promise.all(copies.map((fd) => sync(fd)));
    }
    await setImmediate();
  }
  const rate = writes / (tookMs() / 1000);
  await flushing;
  return rate;
}
