/**
 * One store's share of the thread pool, which all resources of the process have in common. What a slow or stuck disk holds
 * up waits here, not in the pool: behind its reads there is room for its writes, and for whatever else the node does. In
 * each lane operations start in the order of their calls.
 */
import { BoundedCalls } from './bounded-calls.ts';
import type { FileIo, IoDone } from './file-io.ts';

/** Threads that one store takes at most, by lane; the pool has 128 (server/thread-pool.ts). */
export interface PoolLimits {
  readonly reads: number;
  /** Writes and allocation. */
  readonly writes: number;
  readonly seeks: number;
}

/** Disks answer faster up to some sixteen requests at a time; flushes are one at a time already. */
export const defaultPoolLimits: PoolLimits = { reads: 16, writes: 8, seeks: 2 };

/** An operation under way for longer than this says that the disk is not to be waited for on the own thread. */
const stalledAfterMs = 250;

export class PoolShare {
  readonly io: FileIo;
  readonly #nowMs: () => number;
  /** When each operation in the pool began, oldest first. */
  readonly #begun = new Map<number, number>();
  #nextId = 1;

  constructor(io: FileIo, nowMs: () => number, limits: PoolLimits = defaultPoolLimits) {
    this.#nowMs = nowMs;
    const reads = new BoundedCalls(limits.reads);
    const writes = new BoundedCalls(limits.writes);
    const seeks = new BoundedCalls(limits.seeks);
    this.io = {
      writeNow: (...call) => io.writeNow(...call),
      readCached: (...call) => io.readCached(...call),
      readNow: (...call) => io.readNow(...call),
      fallocateNow: (...call) => io.fallocateNow(...call),
      seekNow: (...call) => io.seekNow(...call),
      read: (fd, data, position, done) =>
        reads.run((leave) => io.read(fd, data, position, this.#timed(leave, done))),
      write: (fd, data, position, done) =>
        writes.run((leave) => io.write(fd, data, position, this.#timed(leave, done))),
      fallocate: (fd, how, offset, length, done) =>
        writes.run((leave) => io.fallocate(fd, how, offset, length, this.#timed(leave, done))),
      fdatasync: (fd, done) => io.fdatasync(fd, this.#timed(nothing, done)),
      seek: (fd, offset, target, done) =>
        seeks.run((leave) => {
          const timed = this.#timed(leave, (error) => done(error, found));
          let found: number | null = null;
          io.seek(fd, offset, target, (error, answer) => {
            found = answer;
            timed(error);
          });
        }),
    };
  }

  /** The disk keeps somebody waiting just now: a write to the page cache may have to wait for it as well. */
  get isStalled(): boolean {
    for (const begunMs of this.#begun.values()) return this.#nowMs() - begunMs > stalledAfterMs;
    return false;
  }

  #timed(leave: () => void, done: IoDone): IoDone {
    const id = this.#nextId++;
    this.#begun.set(id, this.#nowMs());
    return (error) => {
      this.#begun.delete(id);
      // The next one sets out before the answer is dealt with: the disk need not wait for that.
      leave();
      done(error);
    };
  }
}

function nothing(): void {
  // Not in a lane.
}
