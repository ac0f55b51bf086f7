/**
 * The path of a client's write, trim or write-zeroes on the Primary (ARCHITECTURE.md, "The path of one write"):
 * gates -> activity log -> range lock -> local disk and peer at once -> complete.
 */
import type { ActivityLog } from './activity-log.ts';
import type { Core } from './core.ts';
import type { ClientOutcome, DiskOutcome } from './event.ts';
import { IdMap } from './id-map.ts';
import type { MirrorOp, Payload } from './packet.ts';

/** What has become of one copy of a write. */
type Leg =
  /** This copy takes no part. */
  | 'none'
  | 'pending'
  | 'done'
  /** That copy is gone, or failed, with the write in flight. */
  | 'lost';

interface ClientWrite {
  /** The driver's. */
  readonly id: number;
  readonly op: MirrorOp;
  readonly offset: number;
  readonly length: number;
  readonly payload: Payload | null;
  readonly fua: boolean;
  readonly noHole: boolean;
  /** The time as Primary that it belongs to. */
  readonly tenure: number;
  /** Of this attempt: names its range lock and its activity-log reference. */
  key: number;
  /** Given at issue, so that packets ascend in stream order whatever waited for the log or a lock. */
  seq: number;
  log: ActivityLog | null;
  /** 0 when it is not mirrored: then its blocks are marked, or there is nothing to mirror to. */
  epoch: number;
  local: Leg;
  remote: Leg;
  issuedAtMs: number;
  /** The client has its answer. */
  answered: boolean;
  /** The other copy was lost and this one alone does not count: begin again once the local disk has let go. */
  again: boolean;
  /** It has been sent or written more than once: something of an earlier time may still be on its way. */
  repeated: boolean;
}

export class WritePath {
  readonly #core: Core;
  /** Issued and not finished, in order of issue. */
  readonly #inFlight = new IdMap<ClientWrite>();
  readonly waitingForLog = new Map<number, () => void>();
  /** Finished on one copy only; they wait until it is on record that the other lacks them (W1, W13). */
  #waitingForRecord: ClientWrite[] = [];
  /** Counts the times that this node has become Primary. */
  #tenure = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  submit(
    id: number,
    op: MirrorOp,
    offset: number,
    length: number,
    payload: Payload | null,
    fua: boolean,
    noHole: boolean,
  ): void {
    const { io } = this.#core;
    io.writes++;
    io.writtenBytes += op === 'write' ? length : 0;
    this.#start({
      id,
      op,
      offset,
      length,
      payload,
      fua,
      noHole,
      tenure: this.#tenure,
      key: 0,
      seq: 0,
      log: null,
      epoch: 0,
      local: 'none',
      remote: 'none',
      issuedAtMs: 0,
      answered: false,
      again: false,
      repeated: false,
    });
  }

  #start(write: ClientWrite): void {
    const core = this.#core;
    if (!this.#isOfPresentTenure(write)) return this.#answer(write, 'ESHUTDOWN');
    if (this.#isHeld(write)) return;
    write.key = core.out.newId();
    if (!core.isMirrored || !core.hasDisk) return this.#lock(write);
    write.log = core.log;
    core.logPump.whenActive(this.waitingForLog, write.key, write.offset, write.length, () => {
      if (write.log === core.log) return this.#lock(write);
      // The disk, and its log with it, went away while the write waited: it holds no reference anywhere.
      write.log = null;
      this.#start(write);
    });
  }

  /**
   * A write that has waited through a time without the role, and has not been begun, is refused even when this node is
   * Primary again: its client has gone elsewhere and may have replaced what it would put there (W13).
   */
  #isOfPresentTenure(write: ClientWrite): boolean {
    return this.#core.role === 'Primary' && write.tenure === this.#tenure;
  }

  /** This node has become Primary, anew. */
  onPromoted(): void {
    this.#tenure++;
  }

  /** Gates: requests wait while it is not settled where a write has to go (W13). */
  #isHeld(write: ClientWrite): boolean {
    const core = this.#core;
    if (core.holdReason() === null && !core.solo.blocksWrite()) return false;
    core.hold(
      () => this.#start(write),
      (outcome) => this.#answer(write, outcome),
    );
    return true;
  }

  #lock(write: ClientWrite): void {
    this.#core.disk.lock(write.key, write.offset, write.length, 'exclusive', () => this.#issue(write));
  }

  #issue(write: ClientWrite): void {
    const core = this.#core;
    // While it waited for the log or the lock, a gate may have closed or this node may have been fenced.
    if (!this.#isOfPresentTenure(write)) {
      this.#letGo(write);
      return this.#answer(write, 'ESHUTDOWN');
    }
    // The disk may have gone and come back too: then the extents are active in a log that no longer counts, or in none.
    const log = core.isMirrored && core.hasDisk ? core.log : null;
    if (core.holdReason() !== null || core.solo.blocksWrite() || write.log !== log) {
      this.#letGo(write);
      return this.#start(write);
    }
    // A resync target that is Primary: its own writes wait for resync data that is on its way to the same blocks.
    const { connection } = core;
    if (connection.conn === 'Connected' && connection.phase.kind === 'syncTarget') {
      const { sync } = connection.phase;
      if (sync.isRequested(write.offset, write.length)) {
        this.#letGo(write);
        return sync.whenIdle(write.offset, write.length, () => this.#start(write));
      }
    }
    const mirrored = core.isMirroring;
    const local = core.hasDisk && (write.log !== null || !core.isMirrored);
    if (!local && !mirrored) {
      this.#letGo(write);
      return this.#answer(write, 'EIO');
    }
    write.issuedAtMs = core.out.nowMs;
    write.seq = core.out.newId();
    this.#inFlight.set(write.seq, write);
    if (mirrored) {
      write.remote = 'pending';
      if (core.diskState !== 'UpToDate') core.flushes.onWrittenThere();
      const { op, offset, length, noHole } = write;
      // While this copy is being given up, the peer's is the one that will count: protocol A waits for it too.
      const fua = write.fua || (core.options.protocol === 'A' && core.givingUp.isAsking);
      core.send({ kind: 'write', seq: write.seq, op, offset, length, fua, noHole }, write.payload);
      // FUA promises stable storage there too (W2), and only the peer can tell.
      if (core.options.protocol === 'A' && !fua) write.remote = 'done';
    }
    if (local) {
      if (mirrored) write.epoch = core.epochs.begin(write.offset, write.length);
      else if (core.isMirrored) core.outOfSync.mark(write.offset, write.length);
      write.local = 'pending';
      core.disk.write(
        write.key,
        write.op,
        write.offset,
        write.length,
        write.payload,
        write.noHole,
        (outcome) => this.#onLocal(write, outcome),
      );
    } else {
      core.disk.unlock(write.key);
      // Protocol A has nothing to wait for.
      this.#settle(write);
    }
  }

  /** Gives back lock and activity-log reference of a write that was not issued. */
  #letGo(write: ClientWrite): void {
    this.#core.disk.unlock(write.key);
    write.log?.end(write.key, 0);
    write.log = null;
  }

  #onLocal(write: ClientWrite, outcome: DiskOutcome): void {
    const core = this.#core;
    core.disk.unlock(write.key);
    if (write.epoch > 0) core.epochs.localDone(write.epoch);
    if (outcome === 'failed') return this.#onLocalFailed(write);
    if (!write.fua) {
      write.local = 'done';
      return this.#settle(write);
    }
    core.disk.flush((flushed) => {
      if (flushed === 'failed') return this.#onFlushFailed(write);
      write.local = 'done';
      this.#settle(write);
    });
  }

  #onLocalFailed(write: ClientWrite): void {
    const core = this.#core;
    write.local = 'lost';
    if (core.hasDisk && !core.isPeerUpToDate) {
      // The only whole copy: the client is told, and the disk stays for what can still be read from it.
      if (core.isMirrored) core.outOfSync.mark(write.offset, write.length);
      this.#answer(write, 'EIO');
      if (write.remote !== 'pending') this.#finish(write);
      // A target may just be proving an older state of these blocks; the next handshake begins from the marks.
      const { connection } = core;
      if (connection.conn === 'Connected' && connection.phase.kind === 'syncSource') {
        core.session.restart('a write to the source of the resync failed');
      }
      return;
    }
    core.disks.fail('a write to the backing device failed');
    this.#settle(write);
  }

  /** Never tried again: what the failed flush should have saved may be gone, and the next one would not say so (W2). */
  #onFlushFailed(write: ClientWrite): void {
    const core = this.#core;
    write.local = 'lost';
    if (!core.isPeerUpToDate) this.#answer(write, 'EIO');
    core.disks.fail('a flush of the backing device failed');
    this.#settle(write);
  }

  /** Protocol C: the peer has written it. Protocol B: the peer has it. */
  onPeerDone(seq: number): void {
    const write = this.#inFlight.get(seq);
    if (write === undefined || write.remote !== 'pending') return;
    write.remote = 'done';
    this.#settle(write);
  }

  /** The peer's disk failed with this write in flight; its session goes on. */
  onPeerFailed(seq: number): void {
    const write = this.#inFlight.get(seq);
    if (write !== undefined) this.#loseRemote(write);
  }

  /** The peer, or its disk, is gone: what it has not acknowledged it may lack. The blocks are already marked. */
  onPeerLost(): void {
    for (const write of this.#inFlight.values()) this.#loseRemote(write);
    // One that only the peer's disk has taken waits for that copy now, as long as any request does, and not for a record.
    this.onRecorded();
  }

  #loseRemote(write: ClientWrite): void {
    const core = this.#core;
    if (write.remote !== 'pending') return;
    write.remote = 'lost';
    // The local copy alone counts only when it is whole. A resync target's is not, and without a disk there is none.
    if (core.diskState !== 'UpToDate' || write.local === 'none') write.again = true;
    else core.outOfSync.mark(write.offset, write.length);
    this.#settle(write);
  }

  #settle(write: ClientWrite): void {
    if (write.local === 'pending' || write.remote === 'pending') return;
    // Losing the disk may have ended the session, and that settled this write already: it is under way anew.
    if (this.#inFlight.get(write.seq) !== write) return;
    const core = this.#core;
    // A whole copy has to have it, and still be there: a resync target that lost its source does not count, nor does
    // a lost leg beside one that took no part.
    const isHere = write.local === 'done' && core.diskState === 'UpToDate';
    const isThere = write.remote === 'done' && core.isPeerUpToDate;
    if (write.again || (!isHere && !isThere)) {
      this.#inFlight.delete(write.seq);
      write.log?.end(write.key, 0);
      Object.assign(write, {
        log: null,
        epoch: 0,
        local: 'none',
        remote: 'none',
        again: false,
        repeated: true,
      });
      if (!write.answered) this.#start(write);
      return core.solo.onWriteEnded();
    }
    if (!write.answered && (write.local === 'lost' || write.remote === 'lost') && core.solo.mustRecord()) {
      if (!this.#waitingForRecord.includes(write)) this.#waitingForRecord.push(write);
      core.solo.begin();
      return;
    }
    // In this order: a demotion that waits for the last answer finds nothing in flight then.
    this.#finish(write);
    this.#answer(write, null, this.#isPayloadFree(write));
  }

  /** Both copies are there, or there is one by design; and what the peer has answered has left this node. */
  #isPayloadFree({ local, remote, fua, repeated }: ClientWrite): boolean {
    const hasLeft = remote === 'none' || (remote === 'done' && (fua || this.#core.options.protocol !== 'A'));
    return hasLeft && !repeated && local !== 'lost';
  }

  #finish(write: ClientWrite): void {
    const core = this.#core;
    this.#inFlight.delete(write.seq);
    if (write.log !== null) {
      // A lost copy's blocks are marked: nothing about this write is unstable any more.
      write.log.end(write.key, write.remote === 'done' ? write.epoch : 0);
      if (write.log === core.log) core.logPump.onChange();
    }
    core.solo.onWriteEnded();
  }

  #answer(write: ClientWrite, outcome: ClientOutcome, payloadFree = false): void {
    if (write.answered) return;
    write.answered = true;
    this.#core.complete(write.id, outcome, null, payloadFree);
    if (this.#core.demoting) this.#core.roles.onDrained();
  }

  /** It is on record that the other copy lacks what is in flight. */
  onRecorded(): void {
    const waiting = this.#waitingForRecord;
    this.#waitingForRecord = [];
    for (const write of waiting) this.#settle(write);
  }

  /** This node is no longer to answer for its data: clients get an error, the disk finishes what it has begun. */
  onFenced(): void {
    const waiting = this.#waitingForRecord;
    this.#waitingForRecord = [];
    for (const write of this.#inFlight.values()) this.#answer(write, 'ESHUTDOWN');
    for (const write of waiting) this.#finish(write);
  }

  get waitingForRecord(): number {
    return this.#waitingForRecord.length;
  }

  get size(): number {
    return this.#inFlight.size + this.waitingForLog.size;
  }

  /** Some are issued and not finished. */
  get isUnderWay(): boolean {
    return this.#inFlight.size > 0;
  }

  get isIdle(): boolean {
    return this.#inFlight.size === 0 && this.waitingForLog.size === 0;
  }

  /** When the oldest mirrored write that the peer has not answered was issued; null when there is none. */
  oldestUnansweredMs(): number | null {
    for (const write of this.#inFlight.values()) if (write.remote === 'pending') return write.issuedAtMs;
    return null;
  }

  /** The log was replaced (the disk went away): nothing waits for it any more. */
  onLogReplaced(): void {
    const waiting = [...this.waitingForLog.values()];
    this.waitingForLog.clear();
    for (const then of waiting) then();
  }
}
