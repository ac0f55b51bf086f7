/**
 * Blocks of the Primary's disk that cannot be read are written again with the peer's data, which lets a disk put a spare
 * sector in place of a bad one, and are read once more to see whether it did (W9). The client's own read is not kept
 * waiting for that: read-path.ts has the peer answer it.
 *
 * While both replicas take part they are equal but for writes in flight. The range is locked first, then the peer is asked:
 * its answer holds every write that was sent before, and none can be sent until what it answered is written here. So the
 * rewrite neither loses a newer write nor changes what any copy holds: it needs no bit, epoch or extent of its own.
 *
 * Only the Primary asks its peer while it holds a lock, so no two nodes ever wait for each other. The other failed reads
 * are of data that whoever asked does not have (a resync, a Primary without these blocks): there is nothing to repair
 * them with, and they are answered as failed.
 */
import { blocksTouched } from './blocks.ts';
import type { Core } from './core.ts';
import type { Payload } from './packet.ts';
import { UnreadableBlocks } from './unreadable-blocks.ts';
import { blockBytes, formatGeneration } from './vocabulary.ts';

/** Of a long read that failed, only the pieces that cannot be read alone are written again. */
const pieceBytes = 16 * blockBytes;

/**
 * A disk that needs more than this is not one with a few bad sectors: each error may have cost its reader seconds, and the
 * rewrite of a dying disk finds fewer and fewer spares. It is detached, as it would be without repair.
 */
const maxRepairs = 16;
const maxRepairsWithinMs = 60_000;

interface Repair {
  readonly offset: number;
  readonly length: number;
  /** Of the piece in hand, from the start of the device. */
  at: number;
  /** While the peer's answer is awaited: stops waiting, and lets go of the lock. */
  giveUp: (() => void) | null;
}

export class ReadRepair {
  readonly #core: Core;
  readonly #running = new Set<Repair>();
  /** Known to be unreadable on both nodes. */
  readonly #lost = new UnreadableBlocks();
  /** When the last repairs began. */
  #begunMs: number[] = [];

  constructor(core: Core) {
    this.#core = core;
  }

  /** A read of this range has failed here, and the peer has the data. Too many of these, and the disk is detached. */
  begin(offset: number, length: number): void {
    const core = this.#core;
    const { first, count } = blocksTouched(offset, length);
    const repair: Repair = {
      offset: first * blockBytes,
      length: count * blockBytes,
      at: first * blockBytes,
      giveUp: null,
    };
    for (const other of this.#running) if (overlaps(other, repair)) return;
    const { nowMs } = core.out;
    this.#begunMs = this.#begunMs.filter((atMs) => nowMs - atMs < maxRepairsWithinMs);
    this.#begunMs.push(nowMs);
    if (this.#begunMs.length > maxRepairs) {
      this.#begunMs = [];
      return core.disks.fail(
        `reads from the backing device failed more than ${maxRepairs} times within ${maxRepairsWithinMs / 1000} s`,
      );
    }
    core.out.log(
      'warn',
      `a read of ${length} bytes at ${offset} failed on the backing device: the peer answers it, and the blocks are written again`,
    );
    this.#running.add(repair);
    this.#nextPiece(repair);
  }

  #nextPiece(repair: Repair): void {
    const end = repair.offset + repair.length;
    if (repair.at >= end) return void this.#running.delete(repair);
    const core = this.#core;
    const offset = repair.at;
    const length = Math.min(pieceBytes, end - offset);
    repair.at += length;
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'exclusive', () => {
      if (!this.#isPossible(offset, length)) return this.#abandon(repair, key);
      if (repair.length <= pieceBytes) return this.#ask(repair, key, offset, length);
      core.disk.read(offset, length, false, (payload) => {
        if (!this.#isPossible(offset, length)) return this.#abandon(repair, key);
        if (payload === null) return this.#ask(repair, key, offset, length);
        core.disk.unlock(key);
        this.#nextPiece(repair);
      });
    });
  }

  #ask(repair: Repair, key: number, offset: number, length: number): void {
    const core = this.#core;
    const id = core.reads.fetch(offset, length, (answer) => {
      repair.giveUp = null;
      if (answer.kind === 'gone' || !core.hasDisk) return this.#abandon(repair, key);
      if (answer.kind === 'data') return this.#rewrite(repair, key, offset, length, answer.payload);
      // Detaching this disk would only take away the other blocks' second copy.
      this.#onLost(offset, length);
      core.disk.unlock(key);
      this.#nextPiece(repair);
    });
    repair.giveUp = () => {
      repair.giveUp = null;
      core.reads.forget(id);
      this.#abandon(repair, key);
    };
  }

  /** Clients get EIO until it is written again. Said once: they may try for ever. */
  #onLost(offset: number, length: number): void {
    const { out } = this.#core;
    const blocks = blocksTouched(offset, length);
    if (!this.#lost.add(blocks)) return;
    const lost = new UnreadableBlocks();
    lost.add(blocks);
    const result = `${lost.describe()} can be read neither here nor on the peer: clients get EIO until they write there`;
    out.decide('disk', 'unreadable-on-both', result, { offset, length });
    out.log('error', result);
  }

  #rewrite(repair: Repair, key: number, offset: number, length: number, payload: Payload): void {
    const core = this.#core;
    core.disk.write(key, 'write', offset, length, payload, false, (outcome) => {
      core.disk.unlock(key);
      if (outcome === 'failed') return this.#fail(repair, 'blocks that cannot be read cannot be written');
      // The kernel takes what it is given; only a flush tells whether the disk took it too.
      core.disk.flush((flushed) => {
        if (flushed === 'failed') return this.#fail(repair, 'a flush of the backing device failed');
        core.disk.read(offset, length, false, (again) => {
          if (again === null)
            return this.#fail(repair, 'blocks cannot be read after they were written again');
          this.#onRepaired(offset, length);
          this.#nextPiece(repair);
        });
      });
    });
  }

  #onRepaired(offset: number, length: number): void {
    const core = this.#core;
    core.io.repairedReads++;
    this.#lost.remove(blocksTouched(offset, length));
    core.out.decide('disk', 'read-repaired', "rewritten with the peer's data, and readable again", {
      offset,
      length,
      current: formatGeneration(core.meta.superblock.current),
    });
    core.out.log('warn', `${length} bytes at ${offset} were written again and can be read`);
    core.changed();
  }

  /** Both copies take part, this node writes, and the peer's blocks are what this disk's should be. */
  #isPossible(offset: number, length: number): boolean {
    const core = this.#core;
    return core.role === 'Primary' && core.isPeerUpToDate && core.reads.isHere(offset, length);
  }

  #fail(repair: Repair, why: string): void {
    this.#running.delete(repair);
    this.#core.disks.fail(why);
  }

  /** Nothing is lost by that: the next read that fails begins anew. */
  #abandon(repair: Repair, key: number): void {
    this.#running.delete(repair);
    this.#core.disk.unlock(key);
  }

  /** The peer's turn to write, perhaps: its writes are not to wait here for an answer that may be waiting for them. */
  onTick(): void {
    if (this.#core.role === 'Primary') return;
    for (const { giveUp } of [...this.#running]) giveUp?.();
  }
}

function overlaps(one: Repair, other: Repair): boolean {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}
