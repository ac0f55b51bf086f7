/** The source's side of a resync: it answers the target's requests, and clears bits when the target proves them stable. */
import {
  blocksIn,
  blocksOf,
  blocksTouched,
  bytesOf,
  complement,
  digestsBytes,
  joined,
  shiftRuns,
  spanOf,
} from './blocks.ts';
import type { Core } from './core.ts';
import type { RangesFound } from './event.ts';
import type { BlockRun, Digests, Packet, Payload } from './packet.ts';
import { assert } from './out.ts';
import type { ProgressMeter } from './progress-meter.ts';
import { ResyncTally } from './resync-tally.ts';
import { UnreadableBlocks } from './unreadable-blocks.ts';
import { blockBytes } from './vocabulary.ts';

type DigestRequest = Extract<Packet, { kind: 'digestRequest' }>;

export class ResyncSource {
  readonly #core: Core;
  readonly kind = 'source';
  readonly meter: ProgressMeter;
  readonly #unreadable = new UnreadableBlocks();
  readonly tally = new ResyncTally();
  #ended = false;
  /** Proofs of the target that wait for a flush of this disk. */
  #proving = 0;
  #whenProven: (() => void) | null = null;

  constructor(core: Core) {
    this.#core = core;
    this.meter = core.progress.begin('source');
    core.watchdog.onBegin();
  }

  /**
   * Under a lock that writes respect: what is sent includes every write that precedes it in the stream, and every
   * write that follows in the stream comes after it on the target's disk too (W5).
   */
  onRequest(id: number, offset: number, length: number): void {
    this.#underLock(offset, length, (release) => this.#sendRuns(id, [{ offset, length }], release));
  }

  /** As `onRequest`, under one lock for all of them and what lies between. */
  onScatteredRequest(id: number, runs: readonly BlockRun[]): void {
    const core = this.#core;
    const { sizeBytes } = core.options;
    const span = spanOf(runs);
    if (span.count <= 0 || span.first + span.count > core.outOfSync.blockCount)
      return core.session.breakProtocol(`resync request ${span.first}+${span.count} beyond the device`);
    const { offset, length } = bytesOf(span, sizeBytes);
    this.#underLock(offset, length, (release) =>
      core.disk.readRanges(
        // Block by block, so that a hole within a run stays one.
        runs.flatMap((run) => blocksOf(run).map((block) => bytesOf(block, sizeBytes))),
        (found) => {
          if (!this.#ended) {
            for (const { first, count } of runs)
              this.#noteRead(first * blockBytes, count * blockBytes, found !== null);
            if (found === null) core.send({ kind: 'resyncFailed', id });
            else this.#sendFound(id, runs, found);
          }
          release();
        },
      ),
    );
  }

  #sendFound(id: number, runs: readonly BlockRun[], { isHole, payload }: RangesFound): void {
    const core = this.#core;
    for (const zero of [true, false]) {
      let before = 0;
      const some = runs.flatMap((run) => {
        const from = before - run.first;
        before += run.count;
        return joined(blocksOf(run).filter(({ first }) => isHole[from + first] === zero));
      });
      if (some.length === 0) continue;
      const length = some.reduce((sum, run) => sum + bytesOf(run, core.options.sizeBytes).length, 0);
      const data = zero ? null : payload;
      assert(zero || data?.byteLength === length, `a read of ${length} bytes answered ${data?.byteLength}`);
      core.send({ kind: 'scatteredData', id, runs: some, length, zero }, data);
      this.tally.copied(length, data);
      core.pace.onMoved(data?.byteLength ?? 0);
    }
  }

  /** As `onRequest`, less what is equal: both nodes hash the range, and blocks of equal hashes are not sent. */
  onDigestRequest(request: DigestRequest, theirs: Payload | null): void {
    const core = this.#core;
    const { id, offset, length, coarse } = request;
    if (offset % blockBytes !== 0 || theirs?.byteLength !== digestsBytes(length, coarse)) {
      return core.session.breakProtocol(`${theirs?.byteLength ?? 0} bytes of hashes for ${offset}+${length}`);
    }
    this.#underLock(offset, length, (release) =>
      core.disk.digest(offset, length, coarse, (ours) => {
        if (!this.#ended) this.#noteRead(offset, length, ours !== null);
        if (!this.#ended && ours !== null) return this.#sendDifferences(request, ours, theirs, release);
        if (!this.#ended) core.send({ kind: 'resyncFailed', id });
        release();
      }),
    );
  }

  #underLock(offset: number, length: number, then: (release: () => void) => void): void {
    const core = this.#core;
    if (offset < 0 || length <= 0 || offset + length > core.options.sizeBytes) {
      return core.session.breakProtocol(`resync request ${offset}+${length} beyond the device`);
    }
    core.watchdog.onSign();
    this.tally.requests++;
    const key = core.out.newId();
    const release = (): void => core.disk.unlock(key);
    core.disk.lock(key, offset, length, 'shared', () => {
      if (this.#ended) release();
      else then(release);
    });
  }

  #sendDifferences(
    { id, offset, length, coarse }: DigestRequest,
    ours: Digests,
    theirs: Payload,
    release: () => void,
  ): void {
    const core = this.#core;
    const whole = blocksTouched(offset, length);
    const differing = shiftRuns(ours.differing(theirs), whole.first);
    const same = complement(whole, differing);
    // Of coarse hashes this is the answer, and the target asks for the rest again, with finer ones.
    if (same.length > 0 || coarse) {
      core.send({ kind: 'resyncSame', id, runs: same });
      this.tally.equalBlocks += blocksIn(same);
      core.pace.onMoved(blocksIn(same) * blockBytes);
    }
    if (coarse) return release();
    this.#sendRuns(
      id,
      differing.map((run) => bytesOf(run, core.options.sizeBytes)),
      release,
    );
  }

  /** A range that cannot be read fails the request, once the others have been answered. */
  #sendRuns(
    id: number,
    ranges: readonly { readonly offset: number; readonly length: number }[],
    release: () => void,
  ): void {
    const core = this.#core;
    let left = ranges.length;
    let failed = false;
    if (left === 0) return release();
    for (const { offset, length } of ranges) {
      this.#sendPieces(id, offset, offset + length, (isWhole) => {
        failed ||= !isWhole;
        if (--left > 0) return;
        if (failed && !this.#ended) core.send({ kind: 'resyncFailed', id });
        release();
      });
    }
  }

  /** Data and holes of the range in turn, so that what is a hole here becomes one there. */
  #sendPieces(id: number, offset: number, end: number, done: (isWhole: boolean) => void): void {
    const core = this.#core;
    if (this.#ended || offset === end) return done(true);
    core.disk.read(offset, end - offset, true, (payload, hole, holeBytes) => {
      const length = hole ? (holeBytes ?? end - offset) : (payload?.byteLength ?? 0);
      if (!this.#ended) this.#noteRead(offset, length === 0 ? end - offset : length, length > 0);
      if (length === 0) return done(false);
      assert(length > 0 && offset + length <= end, `a read of ${end - offset} bytes answered ${length}`);
      if (!this.#ended) {
        core.send({ kind: 'resyncData', id, offset, length, zero: hole }, payload);
        this.tally.copied(length, payload);
        core.pace.onMoved(payload?.byteLength ?? 0);
      }
      this.#sendPieces(id, offset + length, end, done);
    });
  }

  /**
   * Written and flushed at the target: proof (W12), once this disk has flushed too. What was read for the target may
   * still have been in this disk's cache, and without its bit nothing would say so after a power cut here.
   */
  onStable(runs: readonly BlockRun[]): void {
    const core = this.#core;
    const { blockCount } = core.outOfSync;
    const bad = runs.find(({ first, count }) => count <= 0 || first + count > blockCount);
    if (bad !== undefined)
      return core.session.breakProtocol(`blocks ${bad.first}+${bad.count} beyond the device`);
    this.#proving++;
    core.disk.flush((outcome) => {
      if (this.#ended) return;
      if (outcome === 'failed') return core.disks.fail('a flush of the backing device failed during resync');
      core.outOfSync.clear(runs);
      this.meter.update(core.outOfSync.bytes, core.out.nowMs);
      core.watchdog.onProven();
      core.changed();
      if (--this.#proving === 0) this.#whenProven?.();
    });
  }

  /** Runs once the bits of all that the target has proven are cleared; not at all when the resync ends first. */
  whenProven(then: () => void): void {
    if (this.#proving === 0) then();
    else this.#whenProven = then;
  }

  end(): void {
    this.#ended = true;
  }

  #noteRead(offset: number, length: number, isRead: boolean): void {
    const run = { first: offset / blockBytes, count: Math.ceil(length / blockBytes) };
    if (isRead) this.#unreadable.remove(run);
    else if (this.#unreadable.add(run)) {
      this.#core.out.log('error', `resync: this node cannot read ${this.#unreadable.describe()}`);
    }
  }

  get isPaused(): boolean {
    return this.#core.pause.isPaused;
  }

  /** The target asks again for what could not be read when it sees fit. */
  get isWaiting(): boolean {
    return !this.#unreadable.isEmpty;
  }

  describeUnreadable(): string | null {
    return this.#unreadable.isEmpty ? null : `this node cannot read ${this.#unreadable.describe()}`;
  }
}
