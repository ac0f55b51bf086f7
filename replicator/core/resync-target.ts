/**
 * The target's side of a resync: it asks for what is marked, a window at a time, writes it, flushes, and only then clears
 * the bits and tells the source. Each block is asked for once per pass; what failed is asked for again in the next.
 */
import type { Core } from './core.ts';
import type { BlockRun, Payload } from './packet.ts';
import { ProgressMeter } from './progress-meter.ts';
import type { SyncProgress } from './status.ts';
import type { Generation } from './vocabulary.ts';
import { blockBytes } from './vocabulary.ts';

const maxRequestBlocks = 256;
const maxRequests = 256;
const flushAfterBytes = 32 * 1024 * 1024;

interface Request {
  readonly run: BlockRun;
  /** Client writes of this node (a Primary that is a target) that wait for the range. */
  readonly waiting: (() => void)[];
  readonly lengthBytes: number;
  /** From its beginning: the source answers in ascending pieces of data and holes. */
  arrivedBytes: number;
  /** Pieces that are on their way to the disk. */
  writing: number;
}

export class ResyncTarget {
  readonly #core: Core;
  readonly #meter: ProgressMeter;
  readonly #requests = new Map<number, Request>();
  /** What the source's data is called; changes when a Primary source begins a new generation meanwhile. */
  sourceCurrent: Generation;
  sourceHistory: readonly Generation[];
  isPaused = false;
  #cursor = 0;
  /** In this pass. */
  #hasFailed = false;
  #outstandingBytes = 0;
  /** Written since the last flush. */
  #written: BlockRun[] = [];
  #writtenBytes = 0;
  #flushing = false;
  #state: 'running' | 'finishing' | 'ended' = 'running';

  constructor(core: Core, sourceCurrent: Generation, sourceHistory: readonly Generation[]) {
    this.#core = core;
    this.sourceCurrent = sourceCurrent;
    this.sourceHistory = sourceHistory;
    this.#meter = new ProgressMeter(core.outOfSync.bytes, core.out.nowMs);
  }

  /** Asks for more while the window has room; ends the resync when there is nothing left. */
  pump(): void {
    if (this.#state !== 'running') return;
    const core = this.#core;
    while (
      !this.isPaused &&
      this.#requests.size < maxRequests &&
      this.#outstandingBytes < this.#windowBytes()
    ) {
      const run = core.outOfSync.bits.nextRun(this.#cursor, maxRequestBlocks);
      if (run === null) break;
      this.#cursor = run.first + run.count;
      this.#request(run);
    }
    if (this.#flushing) return;
    const idle = this.#requests.size === 0;
    if (this.#writtenBytes >= flushAfterBytes || (idle && this.#writtenBytes > 0)) return this.#flush();
    if (!idle) return;
    if (core.outOfSync.blocks === 0) return this.#finish();
    // The end of a pass with blocks left: they failed or were skipped. Begin again from the bitmap; what the source could
    // not read, at the next tick, lest a bad block keep both nodes busy.
    if (!this.isPaused && core.outOfSync.bits.nextRun(this.#cursor, 1) === null && this.#cursor > 0) {
      this.#cursor = 0;
      const failed = this.#hasFailed;
      this.#hasFailed = false;
      if (core.hasDisk && !failed) this.pump();
    }
  }

  #windowBytes(): number {
    const { options, peerWrites, writes } = this.#core;
    const busy = peerWrites.isBusy || !writes.isIdle;
    return busy ? options.resyncWindowBusyBytes : options.resyncWindowBytes;
  }

  #request(run: BlockRun): void {
    const core = this.#core;
    const id = core.out.newId();
    const offset = run.first * blockBytes;
    const lengthBytes = Math.min(run.count * blockBytes, core.options.sizeBytes - offset);
    this.#requests.set(id, { run, waiting: [], lengthBytes, arrivedBytes: 0, writing: 0 });
    this.#outstandingBytes += run.count * blockBytes;
    core.send({ kind: 'resyncRequest', id, offset, length: lengthBytes });
  }

  onData(id: number, offset: number, length: number, zero: boolean, payload: Payload | null): void {
    const core = this.#core;
    const request = this.#requests.get(id);
    if (this.#state !== 'running') return;
    const isDue =
      request !== undefined &&
      offset === request.run.first * blockBytes + request.arrivedBytes &&
      length <= request.lengthBytes - request.arrivedBytes;
    if (!isDue) {
      return core.session.breakProtocol(`resync data for ${offset}, which was not asked for`);
    }
    if (!zero && payload?.byteLength !== length)
      return core.session.breakProtocol('resync data of the wrong length');
    request.arrivedBytes += length;
    request.writing++;
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'exclusive', () => {
      if (this.#state === 'ended' || !core.hasDisk) return core.disk.unlock(key);
      core.disk.write(key, zero ? 'zeroes' : 'write', offset, length, payload, false, (outcome) => {
        core.disk.unlock(key);
        if (this.#state === 'ended') return;
        if (outcome === 'failed') return core.disks.fail('a resync write to the backing device failed');
        request.writing--;
        const isWhole = request.writing === 0 && request.arrivedBytes === request.lengthBytes;
        // The source may have failed to read the rest: then it is not this request's any more.
        if (!isWhole || this.#requests.get(id) !== request) return;
        this.#written.push(request.run);
        this.#writtenBytes += request.lengthBytes;
        this.#release(id, request);
      });
    });
  }

  /** The source could not read it: the block stays marked, and is asked for again after the rest. */
  onFailed(id: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#core.out.log(
      'error',
      `resync: the source cannot read ${request.run.count} blocks from ${request.run.first}`,
    );
    this.#hasFailed = true;
    this.#release(id, request);
  }

  #release(id: number, request: Request): void {
    this.#requests.delete(id);
    this.#outstandingBytes -= request.run.count * blockBytes;
    for (const then of request.waiting) then();
    this.pump();
  }

  #flush(): void {
    const core = this.#core;
    const runs = this.#written;
    this.#written = [];
    this.#writtenBytes = 0;
    this.#flushing = true;
    core.disk.flush((outcome) => {
      this.#flushing = false;
      if (this.#state === 'ended') return;
      if (outcome === 'failed') return core.disks.fail('a flush of the backing device failed during resync');
      core.outOfSync.clear(runs);
      this.#meter.update(core.outOfSync.bytes, core.out.nowMs);
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
    for (const { run } of this.#requests.values()) if (overlaps(run, offset, length)) return true;
    return false;
  }

  whenIdle(offset: number, length: number, then: () => void): void {
    for (const { run, waiting } of this.#requests.values()) {
      if (overlaps(run, offset, length)) {
        waiting.push(then);
        return;
      }
    }
    then();
  }

  setPaused(paused: boolean): void {
    this.isPaused = paused;
    this.pump();
  }

  /** The session is over: what waited goes on elsewhere, what was written but not flushed stays marked. */
  end(): void {
    this.#state = 'ended';
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { waiting } of requests) for (const then of waiting) then();
  }

  progress(): SyncProgress {
    return this.#meter.progress();
  }
}

function overlaps(run: BlockRun, offset: number, length: number): boolean {
  const from = run.first * blockBytes;
  return offset < from + run.count * blockBytes && from < offset + length;
}

function sortRuns(runs: readonly BlockRun[]): readonly BlockRun[] {
  return runs.toSorted((a, b) => a.first - b.first);
}
