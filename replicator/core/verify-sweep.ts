/**
 * One online verify: goes over the device, has both nodes hash the same range at the same point of the stream of writes,
 * and compares: first one hash for every 128 KiB. What differs is asked for once more, block by block, before it counts.
 *
 * The point has to be set by the node whose clients write. If that is this node (or nobody), it locks the range here and
 * sends the request in the same step: the peer, which locks in stream order, hashes what this node hashes. If it is the
 * peer, the request asks it for a mark: the peer sends `verifyPoint` in the step in which it gets its lock, and this
 * node locks when the mark arrives. When a role changes with a request under way, its answer says nothing: it is asked again.
 */
import { BlockBitmap } from './bitmap.ts';
import { blocksIn, bytesOf, digestsBytes, shiftRuns } from './blocks.ts';
import type { Core } from './core.ts';
import type { BlockRun, Digests, Payload } from './packet.ts';
import type { Progress } from './progress-meter.ts';
import { ProgressMeter } from './progress-meter.ts';
import { blockBytes } from './vocabulary.ts';

/** 1 MiB: a fraction of a millisecond of hashing, block by block about one, for which a client's write to the range may wait. */
const maxRequestBlocks = 256;
/** 128 KiB beside client I/O. */
const maxRequestBlocksBusy = 32;
/** With more than this the disk is broken rather than spotted, and going on block by block would take for ever. */
const maxUnreadableBlocks = 1024;
/** Ticks further apart than this: the process stood still, and no answer could come. */
const tickMsMax = 1_000;
/** Ranges under way: each node has the next ones to hash while the other one is still at it. Two beside client I/O. */
const maxRequests = 4;
const maxRequestsBusy = 2;

interface Task {
  readonly run: BlockRun;
  /** It has differed, or was unreadable, once. */
  readonly suspected: boolean;
}

interface Request extends Task {
  readonly offset: number;
  readonly length: number;
  readonly coarse: boolean;
  /** This node sets the point of the stream. */
  readonly leads: boolean;
  ours: Digests | 'awaited' | 'unreadable';
  theirs: Payload | 'awaited' | 'unreadable';
  /** A role has changed meanwhile: the two nodes may have hashed different points of the stream. */
  stale: boolean;
}

export interface SweepHooks {
  finished(): void;
  /** Too much of one of the disks cannot be read. */
  gaveUp(): void;
  /** Nothing that was asked for has been answered, here or by the peer, for that long. */
  stalled(forMs: number): void;
}

export class VerifySweep {
  readonly #core: Core;
  readonly #hooks: SweepHooks;
  readonly #meter: ProgressMeter;
  readonly #requests = new Map<number, Request>();
  /** To be asked before the sweep goes on. */
  #again: Task[] = [];
  #cursor = 0;
  #ended = false;
  #stalledMs = 0;
  checkedBlocks = 0;
  readonly differing: BlockBitmap;
  readonly unreadableHere: BlockBitmap;
  readonly unreadableThere: BlockBitmap;

  constructor(core: Core, hooks: SweepHooks) {
    const { blockCount } = core.outOfSync;
    this.#core = core;
    this.#hooks = hooks;
    this.#meter = new ProgressMeter(core.options.sizeBytes, core.out.nowMs);
    this.differing = new BlockBitmap(blockCount);
    this.unreadableHere = new BlockBitmap(blockCount);
    this.unreadableThere = new BlockBitmap(blockCount);
  }

  pump(): void {
    while (!this.#ended && this.#requests.size < (this.#isBusy ? maxRequestsBusy : maxRequests)) {
      const task = this.#again.shift() ?? this.#next();
      if (task === null) break;
      this.#ask(task);
    }
    if (!this.#ended && this.#requests.size === 0) this.#hooks.finished();
  }

  /** With the patience of a resync. A range of which one half never comes would keep the verify running for ever. */
  onTick(sinceLastMs: number): void {
    const limitMs = this.#core.options.resyncStallMs;
    this.#stalledMs += Math.min(sinceLastMs, tickMsMax);
    if (this.#stalledMs >= limitMs) return this.#hooks.stalled(limitMs);
    this.pump();
  }

  /** Client I/O is under way. */
  get #isBusy(): boolean {
    const { peerWrites, writes } = this.#core;
    return peerWrites.isBusy || !writes.isIdle;
  }

  #next(): Task | null {
    const { blockCount } = this.#core.outOfSync;
    const first = this.#cursor;
    const count = Math.min(this.#isBusy ? maxRequestBlocksBusy : maxRequestBlocks, blockCount - first);
    if (count === 0) return null;
    this.#cursor = first + count;
    return { run: { first, count }, suspected: false };
  }

  #ask(task: Task): void {
    const core = this.#core;
    const { connection } = core;
    if (connection.conn !== 'Connected') return;
    const id = core.out.newId();
    const { offset, length } = bytesOf(task.run, core.options.sizeBytes);
    const leads = connection.peer.role !== 'Primary';
    const coarse = !task.suspected && task.run.count > 1;
    const request: Request = {
      ...{ ...task, offset, length, coarse, leads, stale: false },
      ...{ ours: 'awaited', theirs: 'awaited' },
    };
    this.#requests.set(id, request);
    const send = (): void => core.send({ kind: 'verifyRequest', id, offset, length, mark: !leads, coarse });
    if (leads) this.#digest(id, request, send);
    else send();
  }

  /** `atPoint` runs in the step in which the range is locked. */
  #digest(id: number, request: Request, atPoint: () => void): void {
    const { disk, out } = this.#core;
    const { offset, length, coarse } = request;
    const key = out.newId();
    disk.lock(key, offset, length, 'shared', () => {
      if (this.#ended) return disk.unlock(key);
      atPoint();
      disk.digest(offset, length, coarse, (digests) => {
        disk.unlock(key);
        request.ours = digests ?? 'unreadable';
        this.#settle(id, request);
      });
    });
  }

  onPoint(id: number): void {
    const request = this.#requests.get(id);
    if (request === undefined || request.leads) return;
    this.#digest(id, request, () => undefined);
  }

  /** Null: the peer cannot read it. */
  onAnswer(id: number, digests: Payload | null): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    if (digests !== null && digests.byteLength !== digestsBytes(request.length, request.coarse)) {
      return this.#core.session.breakProtocol(`${digests.byteLength} bytes of hashes for ${request.length}`);
    }
    request.theirs = digests ?? 'unreadable';
    this.#settle(id, request);
  }

  onRolesChanged(): void {
    for (const request of this.#requests.values()) request.stale = true;
  }

  #settle(id: number, request: Request): void {
    const { ours, theirs } = request;
    if (this.#ended || ours === 'awaited' || theirs === 'awaited') return;
    this.#requests.delete(id);
    this.#stalledMs = 0;
    if (request.stale) this.#again.push({ run: request.run, suspected: request.suspected });
    else if (ours === 'unreadable' || theirs === 'unreadable') this.#onUnreadable(request);
    else this.#compare(request, shiftRuns(ours.differing(theirs), request.run.first));
    this.pump();
  }

  #compare(request: Request, differing: readonly BlockRun[]): void {
    const count = blocksIn(differing);
    if (request.suspected) {
      for (const run of differing) this.differing.setRange(run.first, run.count);
      return this.#checked(request.run.count);
    }
    for (const run of differing) this.#again.push({ run, suspected: true });
    this.#checked(request.run.count - count);
  }

  /** Halved until the unreadable block stands alone, so that the rest is compared. */
  #onUnreadable({ run, suspected, ours, theirs }: Request): void {
    if (run.count > 1) {
      const half = Math.floor(run.count / 2);
      this.#again.push({ run: { first: run.first, count: half }, suspected: false });
      this.#again.push({ run: { first: run.first + half, count: run.count - half }, suspected: false });
      return;
    }
    if (!suspected) return void this.#again.push({ run, suspected: true });
    if (ours === 'unreadable') this.unreadableHere.setRange(run.first, 1);
    if (theirs === 'unreadable') this.unreadableThere.setRange(run.first, 1);
    this.#checked(1);
    if (this.unreadableBlocks > maxUnreadableBlocks) this.#hooks.gaveUp();
  }

  get unreadableBlocks(): number {
    return this.unreadableHere.countSet + this.unreadableThere.countSet;
  }

  #checked(blocks: number): void {
    const { out, options } = this.#core;
    this.checkedBlocks += blocks;
    this.#meter.update(options.sizeBytes - this.checkedBlocks * blockBytes, out.nowMs);
  }

  /** Answers still to come are of no use any more. */
  end(): void {
    this.#ended = true;
    this.#requests.clear();
  }

  progress(): Progress {
    return this.#meter.progress();
  }
}
