/**
 * The device's bytes in a regular file or on a block device: reads, writes, zeroes, holes, flushes. It decides what
 * runs on the calling thread and what in the thread pool; which operations may overlap is the caller's business
 * (the core never has overlapping ones in flight). Opening and claiming a file is backing-opening.ts's.
 *
 * A write, zeroing, trim or flush that fails makes the store fail for good: what the disk holds is then not known
 * any more, and after a failed fdatasync the kernel may have dropped the very pages a second one would have to
 * write. A read that fails does not.
 */
import { close, fstat, ftruncate } from 'node:fs';
import type { Stats } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { AllocationExtent } from '../../nbd/block-device.ts';
import { allocationExtents, isHoleWalk } from './allocation-map.ts';
import type { SeekQuestion, SeekWalk } from './allocation-map.ts';
import { zeroRange } from './backing-growth.ts';
import type { FileIo } from './file-io.ts';
import { KnownData } from './known-data.ts';
import { blockDeviceBytes } from './libc.ts';
import type { Allocation } from './libc.ts';
import { PoolShare } from './pool-share.ts';
import { QuickPath, defaultQuickPath } from './quick-path.ts';
import { ReadBuffers } from './read-buffers.ts';

/**
 * Larger ones go to the thread pool at once. Bytes. A long write into the page cache is worth a processor of its own where
 * there is one to spare; on two, which a client or the peer need as well, waking a thread of the pool costs more than it brings.
 */
const quickWriteBytesMax = (availableParallelism() > 2 ? 128 : 1024) * 1024;
const quickReadBytesMax = 256 * 1024;
const quickAllocationBytesMax = 1024 * 1024;
/** Zeroes are written in pieces of this size where the file system can do no better. */
const zeroPieceBytes = 1024 * 1024;
/** Trim rounds inward to this; a block device takes nothing finer. */
const trimGranularityBytes = 4096;

export interface BackingStoreOptions {
  readonly fd: number;
  readonly path: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'device';
  /** SEEK_DATA tells the truth here also of what has just been written; otherwise everything counts as data. */
  readonly tellsHoles: boolean;
  /** The file system is memory: reading never waits for a disk. */
  readonly inMemory: boolean;
  readonly io: FileIo;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
}

/** A block device without room for the size that is asked for. */
export class BackingTooSmall extends Error {
  override readonly name = 'BackingTooSmall';

  constructor(path: string, roomBytes: number, neededBytes: number) {
    super(`${path} has ${roomBytes} bytes, the device needs ${neededBytes}`);
  }
}

/** `null` is success. May be called before the method returns; exactly once. */
export type StoreDone = (error: Error | null) => void;

export class BackingStore {
  readonly path: string;
  readonly #fd: number;
  readonly #kind: 'file' | 'device';
  readonly #tellsHoles: boolean;
  readonly #inMemory: boolean;
  readonly #io: FileIo;
  readonly #share: PoolShare;
  readonly #readBuffers = new ReadBuffers();
  readonly #quickWrites: QuickPath;
  readonly #quickReads: QuickPath;
  readonly #quickAllocation: QuickPath;
  readonly #quickSeeks: QuickPath;
  readonly #unsupported = new Set<Allocation>();
  readonly #knownData = new KnownData();
  #sizeBytes: number;
  #readsCached: boolean;
  #failure: Error | null = null;
  #closing: Promise<void> | null = null;
  /** Operations handed to the thread pool and not yet answered; the descriptor stays open for them. */
  #inFlight = 0;
  #whenIdle: (() => void) | null = null;
  #flushRunning = false;
  #flushWaiting: StoreDone[] = [];

  constructor(options: BackingStoreOptions) {
    this.path = options.path;
    this.#fd = options.fd;
    this.#sizeBytes = options.sizeBytes;
    this.#kind = options.kind;
    this.#tellsHoles = options.tellsHoles;
    this.#inMemory = options.inMemory;
    this.#readsCached = !options.inMemory;
    this.#share = new PoolShare(options.io, options.nowMs);
    this.#io = this.#share.io;
    const quick = { ...defaultQuickPath, nowMs: options.nowMs };
    this.#quickWrites = new QuickPath(quick);
    this.#quickReads = new QuickPath(quick);
    this.#quickAllocation = new QuickPath(quick);
    this.#quickSeeks = new QuickPath(quick);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /**
   * The error of a flush that failed: nothing is done any more, since what it should have saved may be gone, and the next one
   * would not say so. Null while the store works; another operation that fails (a full file system) fails alone.
   */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Zeroes cost no writing of zeroes here, as far as is known (NBD_CMD_FLAG_FAST_ZERO). */
  get zeroesFast(): boolean {
    return !this.#unsupported.has('punch') || !this.#unsupported.has('zeroRange');
  }

  write(offset: number, data: Uint8Array, done: StoreDone): void {
    this.#assertRange(offset, data.byteLength);
    if (this.#isRefused(done)) return;
    if (data.byteLength <= quickWriteBytesMax && !this.#share.isStalled && this.#quickWrites.isOpen()) {
      done(attempt(() => this.#quickWrites.run(() => this.#io.writeNow(this.#fd, data, offset))));
      return;
    }
    this.#io.write(this.#fd, data, offset, this.#counted(done));
  }

  /** On success `data` has exactly `lengthBytes`, is the caller's, and is not touched again. */
  read(
    offset: number,
    lengthBytes: number,
    done: (error: Error | null, data: Uint8Array | null) => void,
  ): void {
    this.#assertRange(offset, lengthBytes);
    const data = this.takeMemory(lengthBytes);
    this.readInto(offset, data, (error) => done(error, error === null ? data : null));
  }

  /** To read into; holds anything. For `recycle` in the end, or the garbage collector. */
  takeMemory(lengthBytes: number): Buffer {
    return this.#readBuffers.take(lengthBytes);
  }

  /** The data of a read, which nobody looks at any more. */
  recycle(data: Uint8Array): void {
    this.#readBuffers.giveBack(data);
  }

  /** Fills `data`. */
  readInto(offset: number, data: Uint8Array, done: StoreDone): void {
    const lengthBytes = data.byteLength;
    this.#assertRange(offset, lengthBytes);
    if (this.#isRefused(done)) return;
    let cached = 0;
    if (lengthBytes <= quickReadBytesMax) {
      if (this.#inMemory && this.#quickReads.isOpen()) {
        done(attempt(() => this.#quickReads.run(() => this.#io.readNow(this.#fd, data, offset))));
        return;
      }
      if (this.#readsCached) cached = this.#readCached(data, offset);
      if (cached === lengthBytes) {
        done(null);
        return;
      }
    }
    this.#io.read(this.#fd, data.subarray(cached), offset + cached, this.#counted(done));
  }

  /**
   * A hint: gives up the 4 KiB blocks that lie wholly in the range; what is left reads as zeroes, or, where the
   * file system cannot punch holes, as before. Never slow. Two replicas on different file systems may thus differ
   * afterwards: whoever needs the same bytes on both asks for `writeZeroes` of the rounded range.
   */
  trim(offset: number, lengthBytes: number, done: StoreDone): void {
    this.#assertRange(offset, lengthBytes);
    if (this.#isRefused(done)) return;
    const { start, end } = roundInward(offset, offset + lengthBytes);
    if (start >= end) {
      done(null);
      return;
    }
    this.#allocate('punch', start, end - start, (error) => done(error));
  }

  /** Exact to the byte. `noHole`: the range stays or becomes allocated, where the file system has a way to. */
  writeZeroes(offset: number, lengthBytes: number, noHole: boolean, done: StoreDone): void {
    this.#assertRange(offset, lengthBytes);
    if (this.#isRefused(done)) return;
    if (this.#kind === 'file') {
      this.#zero(offset, lengthBytes, noHole, done);
      return;
    }
    // A block device zeroes whole blocks only; the edges are written.
    const end = offset + lengthBytes;
    const inner = roundInward(offset, end);
    if (inner.start >= inner.end) {
      this.#writeZeroPieces(offset, end, done);
      return;
    }
    inOrder(
      [
        (next) => this.#writeZeroPieces(offset, inner.start, next),
        (next) => this.#zero(inner.start, inner.end - inner.start, noHole, next),
        (next) => this.#writeZeroPieces(inner.end, end, next),
      ],
      done,
    );
  }

  /**
   * Everything whose `done` came before this call is on stable storage (fdatasync(2)). Flushes that arrive while
   * one is running wait for it and share the next: only a sync begun after a write is known to cover it.
   */
  flush(done: StoreDone): void {
    if (this.#isRefused(done)) return;
    this.#flushWaiting.push(done);
    if (!this.#flushRunning) this.#runFlush();
  }

  /** See BlockDevice.blockStatus; `maxExtents` at least 1. */
  blockStatus(
    offset: number,
    lengthBytes: number,
    maxExtents: number,
    done: (error: Error | null, extents: readonly AllocationExtent[]) => void,
  ): void {
    this.#assertRange(offset, lengthBytes);
    const allData = [{ lengthBytes, hole: false, zero: false }];
    if (this.#refusal() === null && this.#knownData.covers(offset, lengthBytes)) {
      done(null, allData);
      return;
    }
    this.#walk(allocationExtents(offset, lengthBytes, maxExtents), allData, (error, extents) =>
      done(error, extents ?? []),
    );
  }

  /** Whether nothing of the range is allocated, so that it reads as zeroes. False when in doubt. */
  isHole(offset: number, lengthBytes: number, done: (error: Error | null, hole: boolean) => void): void {
    this.#assertRange(offset, lengthBytes);
    if (this.#refusal() === null && this.#knownData.covers(offset, 1)) {
      done(null, false);
      return;
    }
    this.#walk(isHoleWalk(offset, lengthBytes), false, (error, hole) => done(error, hole ?? false));
  }

  /**
   * Makes room for a larger device: extends a file, or checks that a block device is large enough. What the backing had
   * there before is replaced by zeroes, so that two replicas that grow stay equal. Durable with the next flush. Reads and
   * writes of the device go on meanwhile. On an error the device stays as it is, and the store goes on working.
   */
  growTo(sizeBytes: number, done: StoreDone): void {
    if (this.#isRefused(done)) return;
    if (sizeBytes < this.#sizeBytes) {
      done(new Error(`${this.path} cannot shrink from ${this.#sizeBytes} to ${sizeBytes} bytes`));
      return;
    }
    const finish = this.#counted((error: Error | null) => {
      this.#knownData.forget();
      if (error === null) this.#sizeBytes = sizeBytes;
      done(error);
    });
    /** `usedBytes`: the backing's bytes up to there may hold something. */
    const zeroUpTo = (usedBytes: number): void => {
      const stopReason = (): Error | null => this.#refusal();
      const range = { fd: this.#fd, io: this.#io, start: this.#sizeBytes, end: usedBytes, stopReason };
      zeroRange(range, finish);
    };
    if (this.#kind === 'device') {
      const room = attemptValue(() => blockDeviceBytes(this.#fd));
      if (room instanceof Error) finish(room);
      else if (room < sizeBytes) finish(new BackingTooSmall(this.path, room, sizeBytes));
      else zeroUpTo(sizeBytes);
      return;
    }
    fstat(this.#fd, (error: Error | null, stats: Stats) => {
      if (error !== null) finish(error);
      else if (stats.size >= sizeBytes) zeroUpTo(sizeBytes);
      else {
        ftruncate(this.#fd, sizeBytes, (failure) => {
          if (failure === null) zeroUpTo(stats.size);
          else finish(failure);
        });
      }
    });
  }

  /** Ends what is in flight, then gives the file up (and with it the lock). Flushes nothing. Resolves once, for all callers. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await new Promise<void>((resolve, reject) => {
      close(this.#fd, (error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  }

  #runFlush(): void {
    const sharing = this.#flushWaiting;
    this.#flushWaiting = [];
    this.#flushRunning = true;
    const finish = this.#counted((error: Error | null) => {
      this.#flushRunning = false;
      this.#failure ??= error;
      // Those that came later would be told the same: nothing they wait for can become stable any more.
      const failed = this.#failure === null ? [] : this.#flushWaiting.splice(0);
      for (const done of sharing) done(error);
      for (const done of failed) done(this.#failure);
      if (!this.#flushRunning && this.#flushWaiting.length > 0) this.#runFlush();
    });
    this.#io.fdatasync(this.#fd, finish);
  }

  /** Zeroes by the cheapest way the file system has. */
  #zero(offset: number, lengthBytes: number, noHole: boolean, done: StoreDone): void {
    const byWriting: Way = (next) =>
      this.#writeZeroPieces(offset, offset + lengthBytes, (e) => next(e, true));
    const by =
      (how: Allocation): Way =>
      (next) =>
        this.#allocate(how, offset, lengthBytes, next);
    /** tmpfs has no zero range, but holes and allocation. */
    const byAllocating: Way = (next) =>
      this.#allocate('punch', offset, lengthBytes, (error, punched) => {
        if (error !== null || !punched) next(error, punched);
        else this.#allocate('allocate', offset, lengthBytes, next);
      });
    firstThatWorks(
      noHole ? [by('zeroRange'), byAllocating, byWriting] : [by('punch'), by('zeroRange'), byWriting],
      done,
    );
  }

  /** `worked` is false, without error, where the file system has no such operation. */
  #allocate(
    how: Allocation,
    offset: number,
    lengthBytes: number,
    next: (error: Error | null, worked: boolean) => void,
  ): void {
    if (this.#unsupported.has(how)) {
      next(null, false);
      return;
    }
    this.#knownData.forget();
    const answer = (error: Error | null): void => {
      this.#knownData.forget();
      if (error !== null && this.#isUnsupported(error)) {
        this.#unsupported.add(how);
        next(null, false);
      } else next(error, error === null);
    };
    if (lengthBytes <= quickAllocationBytesMax && !this.#share.isStalled && this.#quickAllocation.isOpen()) {
      const call = (): void => this.#io.fallocateNow(this.#fd, how, offset, lengthBytes);
      answer(attempt(() => this.#quickAllocation.run(call)));
      return;
    }
    this.#io.fallocate(this.#fd, how, offset, lengthBytes, this.#counted(answer));
  }

  #isUnsupported(error: Error): boolean {
    const code = codeOf(error);
    // A block device answers EINVAL when its own blocks are larger than the range's alignment.
    return code === 'ENOTSUP' || code === 'ENOSYS' || (this.#kind === 'device' && code === 'EINVAL');
  }

  #writeZeroPieces(start: number, end: number, done: StoreDone): void {
    if (start >= end) {
      done(null);
      return;
    }
    const length = Math.min(zeroPieceBytes, end - start);
    this.#io.write(
      this.#fd,
      zeroes.subarray(0, length),
      start,
      this.#counted((error) => {
        if (error === null) this.#writeZeroPieces(start + length, end, done);
        else done(error);
      }),
    );
  }

  /** Bytes of `data` filled from the page cache without waiting. */
  #readCached(data: Uint8Array, offset: number): number {
    const answer = this.#io.readCached(this.#fd, data, offset);
    if (typeof answer === 'number') return answer;
    if (answer === 'ENOTSUP' || answer === 'ENOSYS') this.#readsCached = false;
    return 0;
  }

  /** Runs a walk on this thread while that is quick, otherwise off it. `unknown`: the answer where holes are not told. */
  #walk<Result>(
    walk: SeekWalk<Result>,
    unknown: Result,
    done: (error: Error | null, result: Result | null) => void,
  ): void {
    const refusal = this.#refusal();
    if (refusal !== null) done(refusal, null);
    else if (!this.#tellsHoles) done(null, unknown);
    else if (!this.#share.isStalled && this.#quickSeeks.isOpen()) {
      let result: Result | null = null;
      const error = attempt(() => {
        result = this.#quickSeeks.run(() => {
          let turn = walk.next();
          while (turn.done !== true) {
            const found = this.#io.seekNow(this.#fd, turn.value.offset, turn.value.target);
            this.#noteFound(turn.value, found, this.#knownData.age);
            turn = walk.next(found);
          }
          return turn.value;
        });
      });
      done(error, result);
    } else this.#walkPooled(walk, walk.next(), done);
  }

  #walkPooled<Result>(
    walk: SeekWalk<Result>,
    turn: ReturnType<SeekWalk<Result>['next']>,
    done: (error: Error | null, result: Result | null) => void,
  ): void {
    if (turn.done === true) {
      done(null, turn.value);
      return;
    }
    const { age } = this.#knownData;
    const answer = this.#counted((error: Error | null, found: number | null) => {
      if (error !== null) {
        done(error, null);
        return;
      }
      this.#noteFound(turn.value, found, age);
      this.#walkPooled(walk, walk.next(found), done);
    });
    this.#io.seek(this.#fd, turn.value.offset, turn.value.target, answer);
  }

  #noteFound({ offset, target }: SeekQuestion, found: number | null, age: number): void {
    if (target === 'hole' && found !== null) this.#knownData.learn(offset, found, age);
  }

  #counted<Answer extends unknown[]>(answer: (...values: Answer) => void): (...values: Answer) => void {
    this.#inFlight += 1;
    return (...values) => {
      // A follow-up begun by the answer (the next piece, the next seek) is counted before this one ends.
      answer(...values);
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#whenIdle?.();
    };
  }

  #refusal(): Error | null {
    return this.#closing === null ? this.#failure : new Error(`${this.path} is closed`);
  }

  #isRefused(done: StoreDone): boolean {
    const refusal = this.#refusal();
    if (refusal !== null) done(refusal);
    return refusal !== null;
  }

  /** The callers have checked; a write beyond the device would grow the file, so it is checked again here. */
  #assertRange(offset: number, lengthBytes: number): void {
    const isWithin =
      Number.isSafeInteger(offset) &&
      offset >= 0 &&
      lengthBytes > 0 &&
      offset + lengthBytes <= this.#sizeBytes;
    if (!isWithin) {
      throw new RangeError(
        `${lengthBytes} bytes at ${offset} are not within the ${this.#sizeBytes} of ${this.path}`,
      );
    }
  }
}

const zeroes = Buffer.alloc(zeroPieceBytes);

/** One way of zeroing: tells whether it worked here, or failed. */
type Way = (next: (error: Error | null, worked: boolean) => void) => void;

function firstThatWorks(ways: readonly Way[], done: StoreDone): void {
  const [way, ...others] = ways;
  if (way === undefined) throw new Error('the last way always works');
  way((error, worked) => {
    if (error !== null || worked) done(error);
    else firstThatWorks(others, done);
  });
}

function inOrder(steps: readonly ((next: StoreDone) => void)[], done: StoreDone): void {
  const [step, ...others] = steps;
  if (step === undefined) {
    done(null);
    return;
  }
  step((error) => {
    if (error === null) inOrder(others, done);
    else done(error);
  });
}

function roundInward(start: number, end: number): { readonly start: number; readonly end: number } {
  return {
    start: Math.ceil(start / trimGranularityBytes) * trimGranularityBytes,
    end: Math.floor(end / trimGranularityBytes) * trimGranularityBytes,
  };
}

function attemptValue<Value>(operation: () => Value): Value | Error {
  try {
    return operation();
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function attempt(operation: () => void): Error | null {
  try {
    operation();
    return null;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function codeOf(error: Error): string | null {
  return 'code' in error && typeof error.code === 'string' ? error.code : null;
}
