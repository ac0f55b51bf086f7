/**
 * The target's side of a resync: it asks for what is marked, a window at a time, writes it, flushes, and only then clears
 * the bits and tells the source. Each block is asked for once per pass; what failed is asked for again in the next.
 *
 * With `comparesHashes` it sends hashes along, and the source says which blocks are equal. One hash for every 128 KiB comes
 * first; what differs there is asked for again with a hash for each block, and of that only what differs is sent. Equal
 * blocks take the same way as written ones: what was hashed may have been in a cache. The hashes may be older than a mirrored
 * write that arrives before the answer: that write is part of what the source hashed, and overwrites here what it
 * overwrote there, so that blocks equal without it are equal with it.
 */
import { blocksIn, blocksTouched, bytesOf, spanOf, withoutRun, withoutRuns } from './blocks.ts';
import type { Core } from './core.ts';
import type { DiskOutcome } from './event.ts';
import type { BlockRun, Packet, Payload } from './packet.ts';
import type { ProgressMeter } from './progress-meter.ts';
import { ResyncTally } from './resync-tally.ts';
import { UnreadableBlocks } from './unreadable-blocks.ts';
import type { Generation } from './vocabulary.ts';
import { blockBytes } from './vocabulary.ts';

const maxRequestBlocks = 256;
const maxRequests = 256;
/** Marks that lie apart are asked for together while they span no more than this many times what is asked for. */
const spanFactor = 16;
/** Longer runs are asked for alone: their data is read in one piece. Shorter ones are worth no coarse hash. */
const shortRunBlocks = 16;
const flushAfterBytes = 32 * 1024 * 1024;
const flushAfterMs = 2_000;
/** What the source could not read is asked for again after this long, and twice as long each further time. */
const retryMsMin = 1_000;
const retryMsMax = 60_000;

interface Request {
  /** Ascending. */
  readonly runs: readonly BlockRun[];
  readonly blocks: number;
  /** Client writes of this node (a Primary that is a target) that wait for the range. */
  readonly waiting: (() => void)[];
  /** What the source has not answered, ascending. */
  due: readonly BlockRun[];
  /** Answers that are being written. */
  writing: number;
  /** That it carried, so that the source may say of blocks that they are equal. */
  hashes: 'none' | 'coarse' | 'fine';
}

export class ResyncTarget {
  readonly #core: Core;
  readonly kind = 'target';
  readonly meter: ProgressMeter;
  readonly #requests = new Map<number, Request>();
  readonly #comparesHashes: boolean;
  readonly tally = new ResyncTally();
  /** What the source's data is called; changes when a Primary source begins a new generation meanwhile. */
  sourceCurrent: Generation;
  sourceHistory: readonly Generation[];
  #cursor = 0;
  /** Differ by coarse hashes, and are to be asked for with finer ones before the cursor moves on. */
  #finer: BlockRun[] = [];
  /** Not where most differs: there they would be for nothing. */
  #coarsePays = true;
  /** In this pass. */
  #hasFailed = false;
  readonly #unreadable = new UnreadableBlocks();
  /** In one request; less after a pass in which some failed, down to one block, so that no good block stays behind. */
  #blocksMax = maxRequestBlocks;
  #retryMs = retryMsMin;
  /** Nothing is asked for before. */
  #askAtMs = 0;
  #outstandingBytes = 0;
  /** Written since the last flush. */
  #written: BlockRun[] = [];
  #writtenBytes = 0;
  #flushing = false;
  #flushedMs: number;
  /** One range at a time is hashed: a mirrored write waits for no more than that. */
  #hashing = false;
  #state: 'running' | 'finishing' | 'ended' = 'running';

  constructor(
    core: Core,
    sourceCurrent: Generation,
    sourceHistory: readonly Generation[],
    comparesHashes: boolean,
  ) {
    this.#core = core;
    this.#comparesHashes = comparesHashes;
    this.sourceCurrent = sourceCurrent;
    this.sourceHistory = sourceHistory;
    this.meter = core.progress.begin('target');
    core.watchdog.onBegin();
    this.#flushedMs = core.out.nowMs;
  }

  /** Asks for more while the window has room; ends the resync when there is nothing left. */
  pump(): void {
    if (this.#state !== 'running') return;
    const core = this.#core;
    while (
      this.#mayAsk &&
      this.#requests.size < maxRequests &&
      this.#outstandingBytes < core.pace.windowBytes
    ) {
      const blocks = Math.min(core.pace.requestBlocks, this.#blocksMax);
      const finer = this.#nextFiner(blocks);
      const runs = finer === null ? this.#nextRuns(blocks) : [finer];
      if (runs.length === 0) break;
      this.#request(runs, finer === null && this.#coarsePays);
    }
    if (core.pace.isThrottled && !this.isPaused) core.pace.wakeWhenAllowed();
    if (this.#flushing) return;
    const idle = this.#requests.size === 0;
    if (this.#isFlushDue(idle)) return this.#flush();
    if (!idle) return;
    if (core.outOfSync.blocks === 0) return this.#finish();
    // The end of a pass with blocks left: they failed or were skipped. Begin again from the bitmap.
    if (!this.isPaused && this.#isPassOver && this.#cursor > 0) {
      this.#cursor = 0;
      if (this.#hasFailed) this.#retryLater();
      else this.#blocksMax = maxRequestBlocks;
      this.#hasFailed = false;
      if (core.hasDisk) this.pump();
    }
  }

  #nextFiner(blocks: number): BlockRun | null {
    const run = this.#finer.shift();
    if (run === undefined || run.count <= blocks) return run ?? null;
    this.#finer.unshift({ first: run.first + blocks, count: run.count - blocks });
    return { first: run.first, count: blocks };
  }

  /** At most so many blocks from the cursor on, which moves behind them; several runs where each is short. */
  #nextRuns(blocks: number): readonly BlockRun[] {
    const { bits } = this.#core.outOfSync;
    const runs: BlockRun[] = [];
    let start = 0;
    for (let left = blocks; left > 0;) {
      const run = bits.nextRun(this.#cursor, left);
      if (run === null) break;
      if (runs.length === 0) start = run.first;
      else if (run.count > shortRunBlocks || run.first + run.count - start > spanFactor * blocks) break;
      runs.push(run);
      this.#cursor = run.first + run.count;
      left -= run.count;
      if (!this.#gathers || run.count > shortRunBlocks) break;
    }
    return runs;
  }

  /** Not with hashes, which are for whole extents; nor when a bad block among them is looked for. */
  get #gathers(): boolean {
    return !this.#comparesHashes && this.#blocksMax === maxRequestBlocks;
  }

  get #mayAsk(): boolean {
    const { pace, out } = this.#core;
    return !this.isPaused && !this.#hashing && !pace.isThrottled && out.nowMs >= this.#askAtMs;
  }

  get #isPassOver(): boolean {
    return this.#finer.length === 0 && this.#core.outOfSync.bits.nextRun(this.#cursor, 1) === null;
  }

  /** At the end of a pass, and now and then: a rate leaves pauses between the requests, which are no reason to flush. */
  #isFlushDue(idle: boolean): boolean {
    if (this.#writtenBytes === 0) return false;
    if (this.#writtenBytes >= flushAfterBytes) return true;
    if (this.#core.out.nowMs - this.#flushedMs >= flushAfterMs) return true;
    return idle && (this.isPaused || this.#isPassOver);
  }

  /** In smaller requests, to leave only bad blocks behind; then ever more rarely, lest they keep both nodes busy. */
  #retryLater(): void {
    const { out, options } = this.#core;
    const isByBlock = this.#blocksMax === 1;
    this.#blocksMax = Math.max(1, Math.floor(this.#blocksMax / 16));
    this.#askAtMs = out.nowMs + (isByBlock ? this.#retryMs : 1);
    if (!isByBlock) return;
    if (this.#retryMs === retryMsMin) {
      const blocks = this.#unreadable.describe();
      out.log(
        'error',
        `resync: ${options.peerName}, the source, cannot read ${blocks}; they stay out of sync`,
      );
    }
    this.#retryMs = Math.min(retryMsMax, 2 * this.#retryMs);
  }

  #request(runs: readonly BlockRun[], coarse: boolean): void {
    const core = this.#core;
    const id = core.out.newId();
    const blocks = blocksIn(runs);
    const request: Request = { runs, blocks, waiting: [], due: runs, writing: 0, hashes: 'none' };
    this.#requests.set(id, request);
    this.tally.requests++;
    this.#outstandingBytes += blocks * blockBytes;
    core.pace.onRequested(blocks * blockBytes);
    if (runs.length > 1) return core.send({ kind: 'scatteredRequest', id, runs });
    const { offset, length } = bytesOf(spanOf(runs), core.options.sizeBytes);
    if (this.#comparesHashes)
      return this.#sendHashes(id, request, offset, length, coarse && blocks > shortRunBlocks);
    core.send({ kind: 'resyncRequest', id, offset, length });
  }

  #sendHashes(id: number, request: Request, offset: number, length: number, coarse: boolean): void {
    const core = this.#core;
    const key = core.out.newId();
    this.#hashing = true;
    core.disk.lock(key, offset, length, 'shared', () => {
      if (this.#state === 'ended' || !core.hasDisk) return core.disk.unlock(key);
      core.disk.digest(offset, length, coarse, (digests) => {
        core.disk.unlock(key);
        if (this.#state === 'ended') return;
        this.#hashing = false;
        core.watchdog.onSign();
        // What cannot be read here is copied, and thereby written anew.
        if (digests === null) core.send({ kind: 'resyncRequest', id, offset, length });
        else {
          request.hashes = coarse ? 'coarse' : 'fine';
          core.send({ kind: 'digestRequest', id, offset, length, coarse }, digests);
        }
        this.pump();
      });
    });
  }

  onData(id: number, offset: number, length: number, zero: boolean, payload: Payload | null): void {
    const core = this.#core;
    if (this.#state !== 'running') return;
    const run = blocksTouched(offset, length);
    const whole = bytesOf(run, core.options.sizeBytes);
    const request = this.#requests.get(id);
    const due = request === undefined ? null : withoutRun(request.due, run);
    if (request === undefined || due === null || whole.offset !== offset || whole.length !== length) {
      return core.session.breakProtocol(`resync data for ${offset}+${length}, which was not asked for`);
    }
    if (!zero && payload?.byteLength !== length)
      return core.session.breakProtocol('resync data of the wrong length');
    this.#noteAnswer([run], payload?.byteLength ?? 0);
    if (zero) core.pace.onHole(length);
    request.due = due;
    request.writing++;
    this.tally.copied(length, payload);
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'exclusive', () => {
      if (this.#state === 'ended' || !core.hasDisk) return core.disk.unlock(key);
      core.disk.write(key, zero ? 'zeroes' : 'write', offset, length, payload, false, (outcome) => {
        core.disk.unlock(key);
        this.#onWritten(id, request, [run], outcome);
      });
    });
  }

  onScatteredData(packet: Extract<Packet, { kind: 'scatteredData' }>, payload: Payload | null): void {
    const core = this.#core;
    if (this.#state !== 'running') return;
    const { id, runs, zero } = packet;
    const request = this.#requests.get(id);
    const due = request === undefined || runs.length === 0 ? null : withoutRuns(request.due, runs);
    const ranges = runs.map((run) => bytesOf(run, core.options.sizeBytes));
    const length = ranges.reduce((sum, range) => sum + range.length, 0);
    if (request === undefined || due === null || packet.length !== length)
      return core.session.breakProtocol(`resync data for ${runs.length} runs, which were not asked for`);
    if (!zero && payload?.byteLength !== length)
      return core.session.breakProtocol('resync data of the wrong length');
    this.#noteAnswer(runs, payload?.byteLength ?? 0);
    if (zero) core.pace.onHole(length);
    request.due = due;
    request.writing++;
    this.tally.copied(length, payload);
    const key = core.out.newId();
    const span = bytesOf(spanOf(runs), core.options.sizeBytes);
    core.disk.lock(key, span.offset, span.length, 'exclusive', () => {
      if (this.#state === 'ended' || !core.hasDisk) return core.disk.unlock(key);
      core.disk.writeRanges(key, zero ? 'zeroes' : 'write', ranges, payload, (outcome) => {
        core.disk.unlock(key);
        this.#onWritten(id, request, runs, outcome);
      });
    });
  }

  #onWritten(id: number, request: Request, runs: readonly BlockRun[], outcome: DiskOutcome): void {
    if (this.#state === 'ended') return;
    if (outcome === 'failed') return this.#core.disks.fail('a resync write to the backing device failed');
    this.#written.push(...runs);
    this.#writtenBytes += blocksIn(runs) * blockBytes;
    request.writing--;
    this.#releaseIfDone(id, request);
  }

  onSame(id: number, runs: readonly BlockRun[]): void {
    if (this.#state !== 'running') return;
    const request = this.#requests.get(id);
    const { session } = this.#core;
    if (request === undefined || request.hashes === 'none')
      return session.breakProtocol('equal blocks without hashes');
    for (const run of runs) {
      const due = withoutRun(request.due, run);
      if (due === null)
        return session.breakProtocol(`blocks ${run.first}+${run.count} are equal, which was not asked`);
      request.due = due;
    }
    this.#written.push(...runs);
    this.#writtenBytes += blocksIn(runs) * blockBytes;
    this.tally.equalBlocks += blocksIn(runs);
    if (request.hashes === 'coarse') this.#refine(request);
    else if (blocksIn(runs) === request.blocks) this.#coarsePays = true;
    // Both disks were read for them.
    this.#noteAnswer(runs, blocksIn(runs) * blockBytes);
    this.#releaseIfDone(id, request);
  }

  /** What is left of it is asked for again. Each block is in one request at a time, or in none. */
  #refine(request: Request): void {
    this.#coarsePays = 2 * blocksIn(request.due) <= request.blocks;
    this.#finer.push(...request.due);
    request.due = [];
  }

  #noteAnswer(runs: readonly BlockRun[], movedBytes: number): void {
    const { watchdog, pace } = this.#core;
    watchdog.onSign();
    pace.onMoved(movedBytes);
    for (const run of runs) this.#unreadable.remove(run);
  }

  #releaseIfDone(id: number, request: Request): void {
    // The source may have failed the rest of it meanwhile.
    if (request.due.length > 0 || request.writing > 0 || !this.#requests.has(id)) return;
    this.#release(id, request);
  }

  /** The source could not read it: the block stays marked, and is asked for again after the rest. */
  onFailed(id: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#core.watchdog.onSign();
    for (const run of request.runs) this.#unreadable.add(run);
    this.#hasFailed = true;
    this.#release(id, request);
  }

  #release(id: number, request: Request): void {
    this.#requests.delete(id);
    this.#outstandingBytes -= request.blocks * blockBytes;
    for (const then of request.waiting) then();
    this.pump();
  }

  #flush(): void {
    const core = this.#core;
    const runs = this.#written;
    this.#written = [];
    this.#writtenBytes = 0;
    this.#flushing = true;
    this.#flushedMs = core.out.nowMs;
    core.disk.flush((outcome) => {
      this.#flushing = false;
      if (this.#state === 'ended') return;
      if (outcome === 'failed') return core.disks.fail('a flush of the backing device failed during resync');
      core.outOfSync.clear(runs);
      this.meter.update(core.outOfSync.bytes, core.out.nowMs);
      core.watchdog.onProven();
      for (let at = 0; at < runs.length; at += 4096) {
        core.send({ kind: 'resyncStable', runs: sortRuns(runs.slice(at, at + 4096)) });
      }
      this.pump();
    });
  }

  #finish(): void {
    this.#state = 'finishing';
    this.#core.lineage.onTargetComplete(this);
  }

  /** Whether the range is being fetched: the data on its way must not land on a newer write of this node. */
  isRequested(offset: number, length: number): boolean {
    for (const { runs } of this.#requests.values()) if (overlaps(runs, offset, length)) return true;
    return false;
  }

  whenIdle(offset: number, length: number, then: () => void): void {
    for (const { runs, waiting } of this.#requests.values()) {
      if (overlaps(runs, offset, length)) {
        waiting.push(then);
        return;
      }
    }
    then();
  }

  /** The session is over: what waited goes on elsewhere, what was written but not flushed stays marked. */
  end(): void {
    this.#state = 'ended';
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { waiting } of requests) for (const then of waiting) then();
  }

  get isPaused(): boolean {
    return this.#core.pause.isPaused;
  }

  /** For the next time to ask for what the source could not read. */
  get isWaiting(): boolean {
    return this.#requests.size === 0 && !this.#flushing && this.#core.out.nowMs < this.#askAtMs;
  }

  describeUnreadable(): string | null {
    if (this.#unreadable.isEmpty) return null;
    return `${this.#core.options.peerName} cannot read ${this.#unreadable.describe()}`;
  }
}

function overlaps(runs: readonly BlockRun[], offset: number, length: number): boolean {
  const touched = blocksTouched(offset, length);
  const meets = (run: BlockRun): boolean =>
    touched.first < run.first + run.count && run.first < touched.first + touched.count;
  return meets(spanOf(runs)) && (runs.length === 1 || runs.some(meets));
}

function sortRuns(runs: readonly BlockRun[]): readonly BlockRun[] {
  return runs.toSorted((a, b) => a.first - b.first);
}
