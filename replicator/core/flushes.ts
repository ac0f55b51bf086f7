/**
 * FLUSH of clients, and the core's own checkpoints, which do the same to make room in the activity log. Acknowledged only
 * when stable on every copy that takes part (W2). A failed flush is a failed disk and is never tried again.
 */
import type { Core } from './core.ts';
import type { ClientOutcome } from './event.ts';
import type { PeerState } from './packet.ts';

interface ClientFlush {
  readonly kind: 'client';
  readonly id: number;
  /** `Flushes.#lossesTold` when it was asked for: what has been told since, or not yet, may be of writes that it covers. */
  readonly lossesTold: number;
}

type Owner =
  | ClientFlush
  /** To make room in the activity log. */
  | { readonly kind: 'checkpoint' }
  /** Before stepping down. */
  | { readonly kind: 'final'; readonly then: () => void };

interface Flush {
  readonly owner: Owner;
  local: 'none' | 'pending' | 'done' | 'lost';
  remote: 'none' | 'pending' | 'done' | 'lost';
  /** The peer's copy was whole when it was flushed: it has all of what this flush covers, whatever becomes of this disk. */
  isSafeThere: boolean;
  /** There are writes that the peer's copy alone, or as the only whole one, is to make stable by it. */
  readonly isOfPeerAlone: boolean;
  readonly epoch: number;
  readonly issuedAtMs: number;
  /** Its owner has been told, or it was begun anew. */
  ended: boolean;
}

export class Flushes {
  readonly #core: Core;
  /** By epoch, in order, while the peer's answer is awaited. */
  readonly #remote = new Map<number, Flush>();
  #waitingForRecord: Flush[] = [];
  #clientFlushes = 0;
  #checkpointing = false;

  /** How often the only whole copy may have lost acknowledged writes, and how many of these times an error has told. */
  #losses = 0;
  #lossesTold = 0;
  /** Written since the last flush while the peer's copy was the only whole one: if it goes down, its cache may go too. */
  #isUnstableThere = false;

  constructor(core: Core) {
    this.#core = core;
  }

  submit(id: number): void {
    this.#core.io.flushes++;
    this.#clientFlushes++;
    this.#start({ kind: 'client', id, lossesTold: this.#lossesTold });
  }

  #start(owner: ClientFlush): void {
    const core = this.#core;
    const { id } = owner;
    if (core.role !== 'Primary') return this.#answer(id, 'ESHUTDOWN');
    // Alone, with blocks that the peer may have lost: promising them to be safe is a promise of this copy alone.
    const mustRecord =
      core.isMirrored && !core.isMirroring && core.outOfSync.blocks > 0 && core.solo.blocksWrite();
    if (core.holdReason() !== null || mustRecord) {
      return core.hold(
        () => this.#start(owner),
        (outcome) => this.#answer(id, outcome),
      );
    }
    // Not the first one alone: whoever waits with it has heard of no error yet, and may have asked for another client.
    if (owner.lossesTold < this.#losses) return this.#answer(id, 'EIO');
    this.#issue(owner);
  }

  /**
   * The only whole copy's disk failed, and with it perhaps acknowledged writes: clients hear of it (W2). Every flush that was
   * asked for before the first error is one; those after it concern later writes.
   */
  onOnlyCopyFailed(): void {
    this.#losses++;
  }

  /** This copy is not whole, and takes a write or leaves it to the peer's. */
  onWrittenThere(): void {
    this.#isUnstableThere = true;
  }

  /** What a new session tells of the peer: one that went down as `linked` had not noticed a loss, and flushed nothing then. */
  onPeerState({ disk, linked }: PeerState): void {
    if (disk === 'Failed' || (linked && this.#isUnstableThere)) this.onPeerDiskFailed();
  }

  /** The same of the peer's disk, when this one is not whole: what fails is not asked once more as if nothing had been. */
  onPeerDiskFailed(): void {
    const { role, diskState } = this.#core;
    if (role !== 'Primary' || diskState === 'UpToDate') return;
    this.#isUnstableThere = false;
    this.onOnlyCopyFailed();
  }

  /** Closes the epoch and flushes both copies, so that the activity log can let extents go. One at a time. */
  checkpoint(): void {
    const core = this.#core;
    if (this.#checkpointing || !core.isMirroring || !core.hasDisk) return;
    // A write that is stuck keeps its extent, however often both disks are flushed: its end asks again, or else the next tick.
    if (!core.epochs.hasMoreToProve) return;
    this.#checkpointing = true;
    this.#issue({ kind: 'checkpoint' });
  }

  /** Before stepping down: everything acknowledged is stable on every copy in reach. `then` runs whatever came of it. */
  final(then: () => void): void {
    if (!this.#core.hasDisk) return then();
    this.#issue({ kind: 'final', then });
  }

  #issue(owner: Owner): void {
    const core = this.#core;
    const mirrored = core.isMirroring;
    const epoch = mirrored ? core.epochs.close() : 0;
    const flush: Flush = {
      owner,
      local: core.hasDisk ? 'pending' : 'none',
      remote: mirrored ? 'pending' : 'none',
      isSafeThere: false,
      isOfPeerAlone: mirrored && this.#isUnstableThere,
      epoch,
      issuedAtMs: core.out.nowMs,
      ended: false,
    };
    if (mirrored) {
      this.#isUnstableThere = false;
      this.#remote.set(epoch, flush);
      core.send({ kind: 'flush', epoch });
      // Without a disk nothing of this epoch is here: it is forgotten as soon as the peer has proven its side.
      if (!core.hasDisk) core.epochs.onLocalStable(epoch);
    }
    if (core.hasDisk) {
      const cover = core.epochs.localCover();
      const { log } = core;
      core.disk.flush((outcome) => {
        if (outcome === 'failed') return this.#onLocalFailed(flush);
        // A log that was replaced meanwhile belongs to a disk that went away.
        if (log === core.log) this.#onStable(() => core.epochs.onLocalStable(cover));
        flush.local = 'done';
        this.#settle(flush);
      });
    }
    this.#settle(flush);
  }

  #onLocalFailed(flush: Flush): void {
    const core = this.#core;
    flush.local = 'lost';
    if (core.isPeerUpToDate) core.disks.fail('a flush of the backing device failed');
    else core.disks.fail('a flush of the backing device failed, and there is no other copy');
    this.#settle(flush);
  }

  onPeerFlushed(epoch: number): void {
    const flush = this.#remote.get(epoch);
    if (flush === undefined) return;
    this.#remote.delete(epoch);
    this.#onStable(() => this.#core.epochs.onPeerStable(epoch));
    flush.remote = 'done';
    flush.isSafeThere = this.#core.isPeerUpToDate;
    this.#settle(flush);
  }

  onPeerLost(): void {
    const flushes = [...this.#remote.values()];
    this.#remote.clear();
    for (const flush of flushes) {
      flush.remote = 'lost';
      this.#isUnstableThere ||= flush.isOfPeerAlone;
      this.#settle(flush);
    }
    // One that only the peer's copy has come through waits for that copy now, and not for a record.
    this.onRecorded();
  }

  #onStable(advance: () => void): void {
    const core = this.#core;
    advance();
    core.log.setStableEpoch(core.epochs.stable);
    core.logPump.onChange();
  }

  #settle(flush: Flush): void {
    const core = this.#core;
    // Losing the disk may end the session, which then has settled this flush already.
    if (!isSettled(flush) || flush.ended) return;
    const { owner } = flush;
    const isAlone = flush.local === 'lost' || flush.remote === 'lost';
    if (owner.kind === 'client' && isAlone && this.#mustWait(flush)) return;
    flush.ended = true;
    if (owner.kind === 'final') return owner.then();
    if (owner.kind === 'checkpoint') {
      this.#checkpointing = false;
      core.logPump.onChange();
      return;
    }
    const { id } = owner;
    if (core.role !== 'Primary') return this.#answer(id, 'ESHUTDOWN');
    if (flush.local === 'lost' && !flush.isSafeThere) return this.#answer(id, 'EIO');
    if (this.#isOutOfReach(flush)) return this.#start(owner);
    this.#answer(id, null);
  }

  /** The copy that its answer would rest on is not whole, or away. */
  #isOutOfReach(flush: Flush): boolean {
    const core = this.#core;
    if (flush.local === 'lost') return !core.isPeerUpToDate;
    return flush.remote === 'lost' && core.diskState !== 'UpToDate';
  }

  /** Its answer would rest on one copy, and it is not on record yet that the other one lacks what it covers. */
  #mustWait(flush: Flush): boolean {
    const core = this.#core;
    if (core.role !== 'Primary' || (flush.local === 'lost' && !flush.isSafeThere)) return false;
    if (this.#isOutOfReach(flush)) return false;
    if (!core.solo.mustRecord()) return false;
    if (!this.#waitingForRecord.includes(flush)) this.#waitingForRecord.push(flush);
    core.solo.begin();
    return true;
  }

  onRecorded(): void {
    const waiting = this.#waitingForRecord;
    this.#waitingForRecord = [];
    for (const flush of waiting) this.#settle(flush);
  }

  onFenced(): void {
    const waiting = this.#waitingForRecord;
    this.#waitingForRecord = [];
    for (const { owner } of waiting) if (owner.kind === 'client') this.#answer(owner.id, 'ESHUTDOWN');
  }

  #answer(id: number, outcome: ClientOutcome): void {
    if (outcome === 'EIO') this.#lossesTold = this.#losses;
    this.#clientFlushes--;
    this.#core.complete(id, outcome);
    if (this.#core.demoting) this.#core.roles.onDrained();
  }

  get waitingForRecord(): number {
    return this.#waitingForRecord.length;
  }

  get isIdle(): boolean {
    return this.#clientFlushes === 0 && !this.#checkpointing;
  }

  oldestUnansweredMs(): number | null {
    for (const flush of this.#remote.values()) return flush.issuedAtMs;
    return null;
  }
}

function isSettled(flush: Flush): boolean {
  return flush.local !== 'pending' && flush.remote !== 'pending';
}
