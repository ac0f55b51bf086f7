/**
 * Compares two backing images byte by byte. Ranges that are holes in both are skipped, so large sparse images cost
 * what they hold.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import koffi from 'koffi';

export type FileComparison =
  | { readonly equal: true }
  | { readonly equal: false; readonly reason: 'size'; readonly sizes: readonly [number, number] }
  | {
      readonly equal: false;
      readonly reason: 'content';
      /** Offset of the first byte that differs. */
      readonly firstOffset: number;
      /** Blocks of 4 KiB with a difference. */
      readonly differingBlocks: number;
    };

export function compareFiles(pathA: string, pathB: string): FileComparison {
  const a = openSync(pathA, 'r');
  try {
    const b = openSync(pathB, 'r');
    try {
      return compareOpen(a, b);
    } finally {
      closeSync(b);
    }
  } finally {
    closeSync(a);
  }
}

function compareOpen(a: number, b: number): FileComparison {
  const size = fstatSync(a).size;
  const sizeB = fstatSync(b).size;
  if (size !== sizeB) return { equal: false, reason: 'size', sizes: [size, sizeB] };

  const bufferA = Buffer.allocUnsafe(chunkBytes);
  const bufferB = Buffer.allocUnsafe(chunkBytes);
  let firstOffset: number | null = null;
  let differingBlocks = 0;
  let position = 0;
  for (;;) {
    const data = Math.min(nextData(a, position, size), nextData(b, position, size));
    if (data >= size) break;
    // A hole may end within a block; what is compared begins and ends with one.
    const start = data - (data % blockBytes);
    const length = Math.min(chunkBytes, size - start);
    readFully(a, bufferA, start, length);
    readFully(b, bufferB, start, length);
    if (bufferA.compare(bufferB, 0, length, 0, length) !== 0) {
      for (let at = 0; at < length; at += blockBytes) {
        const end = Math.min(at + blockBytes, length);
        if (bufferA.compare(bufferB, at, end, at, end) === 0) continue;
        differingBlocks++;
        firstOffset ??= start + firstDifference(bufferA, bufferB, at);
      }
    }
    position = start + length;
  }
  return firstOffset === null
    ? { equal: true }
    : { equal: false, reason: 'content', firstOffset, differingBlocks };
}

const blockBytes = 4096;
const chunkBytes = 1024 * 1024;

/** lseek, which Node lacks; offsets of test images are far below 2^53. */
const lseek: (fd: number, offset: number, whence: number) => number = koffi
  .load('libc.so.6')
  .func('int64_t lseek(int fd, int64_t offset, int whence)');
/** From <unistd.h>; Linux. */
const seekData = 3;

/** Offset of the next byte that is not in a hole; `size` when there is none. */
function nextData(fd: number, offset: number, size: number): number {
  if (offset >= size) return size;
  const found = lseek(fd, offset, seekData);
  // The offset is within the file, so the one error left is ENXIO: nothing but a hole up to the end.
  return found < 0 ? size : found;
}

function readFully(fd: number, buffer: Buffer, offset: number, length: number): void {
  for (let done = 0; done < length;) {
    const count = readSync(fd, buffer, done, length - done, offset + done);
    if (count === 0) throw new Error(`the file ends at ${offset + done} while it is compared`);
    done += count;
  }
}

function firstDifference(a: Buffer, b: Buffer, from: number): number {
  let at = from;
  while (a[at] === b[at]) at++;
  return at;
}
