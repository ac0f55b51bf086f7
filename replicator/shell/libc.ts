/**
 * The system calls that Node does not offer, bound with koffi: advisory locks, allocation, holes, extended
 * attributes, reads that never wait for the disk. Linux on x64 and arm64, where `off_t` has 64 bits and the
 * constants below are the same. What may wait for a disk has an off-thread form; the rest is known to be quick.
 */
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import type { KoffiFunc } from 'koffi';
import { BoundedCalls } from './bounded-calls.ts';

/** `null`: the libraries already in the process, so glibc and musl are both found under the right name. */
const libc = koffi.load(null);

const flockCall: KoffiFunc<(fd: number, operation: number) => number> = libc.func('flock', 'int', [
  'int',
  'int',
]);
const fallocateCall: KoffiFunc<(fd: number, mode: number, offset: number, length: number) => number> =
  libc.func('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']);
const lseekCall: KoffiFunc<(fd: number, offset: number, whence: number) => number | bigint> = libc.func(
  'lseek',
  'int64_t',
  ['int', 'int64_t', 'int'],
);
const getAttributeCall: KoffiFunc<(fd: number, name: string, value: Uint8Array, size: number) => number> =
  libc.func('fgetxattr', 'long', ['int', 'str', 'void *', 'size_t']);
const setAttributeCall: KoffiFunc<
  (fd: number, name: string, value: Uint8Array, size: number, flags: number) => number
> = libc.func('fsetxattr', 'int', ['int', 'str', 'void *', 'size_t', 'int']);
const ioctlCall: KoffiFunc<(fd: number, request: number, argument: Uint8Array) => number> = libc.func(
  'ioctl',
  'int',
  ['int', 'unsigned long', 'void *'],
);
const exitCall: KoffiFunc<(status: number) => void> = libc.func('_exit', 'void', ['int']);
const yieldCall: KoffiFunc<() => number> = libc.func('sched_yield', 'int', []);
const preadv2Call = bindPreadv2();

const LOCK_EX = 2;
const LOCK_NB = 4;
const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_PUNCH_HOLE = 0x02;
const FALLOC_FL_ZERO_RANGE = 0x10;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const RWF_NOWAIT = 8;
/** _IOR(0x12, 114, size_t) of linux/fs.h. */
const BLKGETSIZE64 = 0x80081272;

const maxAttributeBytes = 4096;

/** koffi throws from 256 calls at a time on (`max_async_calls`), and the thread pool runs a few at a time anyway. */
const offThread = new BoundedCalls(64);

/** Lets others run that wait for this processor; returns at once when nobody does. */
export function yieldProcessor(): void {
  yieldCall();
}

/** Ends this process, with all its threads, in this instant: nothing is waited for, and no handler runs any more. */
export function endProcess(status: number): void {
  exitCall(status);
}

/** A failed system call; `code` is the name of its errno ("EIO"), as in Node's own file system errors. */
export class SystemCallError extends Error {
  readonly code: string;
  constructor(call: string, code: string) {
    super(`${call}: ${code}`);
    this.name = 'SystemCallError';
    this.code = code;
  }
}

/**
 * punch: give the blocks up, the range reads as zeroes; zeroRange: zeroes that stay allocated; allocate: back the
 * holes of the range with blocks. None changes the size of the file (fallocate(2)).
 */
export type Allocation = 'punch' | 'zeroRange' | 'allocate';

const allocationModes: Readonly<Record<Allocation, number>> = {
  punch: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  zeroRange: FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
  allocate: FALLOC_FL_KEEP_SIZE,
};

/** Takes the exclusive lock of flock(2); false when another open file holds one. It goes with the descriptor. */
export function tryLock(fd: number): boolean {
  for (;;) {
    if (flockCall(fd, LOCK_EX | LOCK_NB) === 0) return true;
    const code = lastErrorCode();
    if (code === 'EAGAIN' || code === 'EWOULDBLOCK') return false;
    if (code !== 'EINTR') throw new SystemCallError('flock', code);
  }
}

/** On this thread: for short ranges. Throws SystemCallError; ENOTSUP where the file system cannot. */
export function fallocateNow(fd: number, how: Allocation, offset: number, length: number): void {
  while (fallocateCall(fd, allocationModes[how], offset, length) !== 0) {
    const code = lastErrorCode();
    if (code !== 'EINTR') throw new SystemCallError(`fallocate ${how}`, code);
  }
}

/** Off-thread: a long range may take seconds. */
export function fallocate(
  fd: number,
  how: Allocation,
  offset: number,
  length: number,
  done: (error: SystemCallError | null) => void,
): void {
  offThread.run((ended) =>
    fallocateCall.async(fd, allocationModes[how], offset, length, (failure: Error | null, result) => {
      // First of all: errno is the call's only until anything else runs.
      const code = result === 0 ? null : lastErrorCode();
      ended();
      if (failure !== null) done(new SystemCallError(`fallocate ${how}: ${failure.message}`, 'EIO'));
      else if (code === 'EINTR') fallocate(fd, how, offset, length, done);
      else done(code === null ? null : new SystemCallError(`fallocate ${how}`, code));
    }),
  );
}

export type SeekTarget = 'data' | 'hole';

/**
 * The first byte at or after `offset` that lies in data or in a hole; the end of the file counts as a hole.
 * Null when there is none (no data up to the end, or `offset` is beyond it). Throws SystemCallError.
 */
export function seekNow(fd: number, offset: number, target: SeekTarget): number | null {
  const found = Number(lseekCall(fd, offset, whenceOf(target)));
  if (found >= 0) return found;
  const code = lastErrorCode();
  if (code === 'ENXIO') return null;
  throw new SystemCallError(`lseek ${target}`, code);
}

/** The same off-thread: what the file system has to load to answer may come from the disk. */
export function seek(
  fd: number,
  offset: number,
  target: SeekTarget,
  done: (error: SystemCallError | null, found: number | null) => void,
): void {
  offThread.run((ended) =>
    lseekCall.async(fd, offset, whenceOf(target), (failure: Error | null, result) => {
      const found = Number(result);
      const code = found >= 0 ? null : lastErrorCode();
      ended();
      if (failure !== null) done(new SystemCallError(`lseek ${target}: ${failure.message}`, 'EIO'), null);
      else if (code === null) done(null, found);
      else if (code === 'ENXIO') done(null, null);
      else done(new SystemCallError(`lseek ${target}`, code), null);
    }),
  );
}

/** Null when the file has no such attribute. Throws SystemCallError; ENOTSUP where there are no attributes. */
export function getAttribute(fd: number, name: string): string | null {
  const value = Buffer.alloc(maxAttributeBytes);
  const length = getAttributeCall(fd, name, value, value.byteLength);
  if (length >= 0) return value.toString('latin1', 0, length);
  const code = lastErrorCode();
  if (code === 'ENODATA') return null;
  throw new SystemCallError('fgetxattr', code);
}

/** Throws SystemCallError; ENOTSUP where there are no attributes. */
export function setAttribute(fd: number, name: string, value: string): void {
  const bytes = Buffer.from(value, 'latin1');
  if (setAttributeCall(fd, name, bytes, bytes.byteLength, 0) !== 0) {
    throw new SystemCallError('fsetxattr', lastErrorCode());
  }
}

/** Size of a block device in bytes. Throws SystemCallError. */
export function blockDeviceBytes(fd: number): number {
  const answer = Buffer.alloc(8);
  if (ioctlCall(fd, BLKGETSIZE64, answer) !== 0) {
    throw new SystemCallError('ioctl BLKGETSIZE64', lastErrorCode());
  }
  const bytes = answer.readBigUInt64LE();
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw new SystemCallError('ioctl BLKGETSIZE64', 'EOVERFLOW');
  return Number(bytes);
}

/** struct iovec { void *base; size_t len; }, used by one call at a time: the call never outlives the function. */
const vector = Buffer.alloc(16);

/**
 * Reads what the page cache holds, into `data`, without waiting for the disk: the number of bytes read (fewer
 * than asked when the rest is not cached), or the name of the error: EAGAIN when nothing is cached, ENOTSUP
 * where the file system cannot tell (preadv2(2), RWF_NOWAIT).
 */
export function readCached(fd: number, data: Uint8Array, position: number): number | string {
  if (preadv2Call === null) return 'ENOTSUP';
  vector.writeBigUInt64LE(koffi.address(data), 0);
  vector.writeBigUInt64LE(BigInt(data.byteLength), 8);
  const length = preadv2Call(fd, vector, 1, position, RWF_NOWAIT);
  return length >= 0 ? length : lastErrorCode();
}

type Preadv2 = (fd: number, vector: Uint8Array, count: number, position: number, flags: number) => number;

/** Absent from old C libraries; reads then go to the thread pool. */
function bindPreadv2(): Preadv2 | null {
  try {
    const bound: KoffiFunc<Preadv2> = libc.func('preadv2', 'long', [
      'int',
      'void *',
      'int',
      'int64_t',
      'int',
    ]);
    return bound;
  } catch {
    return null;
  }
}

function whenceOf(target: SeekTarget): number {
  return target === 'data' ? SEEK_DATA : SEEK_HOLE;
}

/** Linux has one number for ENOTSUP and EOPNOTSUPP; Node calls it ENOTSUP. */
function lastErrorCode(): string {
  const errno = koffi.errno();
  return errno === 0 ? 'EIO' : getSystemErrorName(-errno);
}
