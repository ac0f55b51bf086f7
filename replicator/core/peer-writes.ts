/**
 * Writes and flushes that arrive from the Primary. They are applied in stream order where they overlap; a flush covers
 * every write before it in the stream. While the Primary has no disk, its blocks are marked here: this is the only copy.
 */
import type { Core } from './core.ts';
import type { DiskOutcome } from './event.ts';
import { IdMap } from './id-map.ts';
import type { Packet, Payload } from './packet.ts';

type WritePacket = Extract<Packet, { kind: 'write' }>;

interface WaitingFlush {
  readonly then: (outcome: DiskOutcome) => void;
  /** The last write before it in the stream. */
  readonly afterSeq: number;
}

export class PeerWrites {
  readonly #core: Core;
  /** Not completed yet, by their place in the stream. */
  readonly #pending = new IdMap<true>();
  #flushes: WaitingFlush[] = [];
  #lastSeq = 0;
  #session = 0;
  readonly waitingForLog = new Map<number, () => void>();
  /** On their way to the disk, those of sessions that are over among them. */
  #applying = 0;
  #whenApplied: (() => void)[] = [];
  #owedBytes = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  onWrite(packet: WritePacket, payload: Payload | null): void {
    const core = this.#core;
    const { connection } = core;
    if (connection.conn !== 'Connected') return;
    const { seq, offset, length } = packet;
    const bad = this.#check(packet, payload);
    if (bad !== null) return core.session.breakProtocol(bad);
    this.#lastSeq = seq;
    if (!core.hasDisk) return core.send({ kind: 'writeFailed', seq });
    if (core.options.protocol === 'B' && !packet.fua) core.send({ kind: 'received', seq });
    this.#pending.set(seq, true);
    this.#applying++;
    this.#owedBytes += payload?.byteLength ?? 0;
    const { session } = connection;
    const isOnlyCopy = connection.peer.disk === 'Diskless' || connection.peer.disk === 'Failed';
    const apply = (done: () => void): void => this.#apply(session, packet, payload, key, done);
    const key = core.out.newId();
    // First of all the range: what follows in the stream must not overtake this write while it waits for the activity log,
    // and under protocol A and B the client may long have its answer.
    core.disk.lock(key, offset, length, 'exclusive', () => {
      if (!isOnlyCopy || !core.hasDisk) return apply(() => undefined);
      const { log } = core;
      core.logPump.whenActive(this.waitingForLog, key, offset, length, () => {
        // The disk may have gone while this waited; then nobody counts references in the old log any more.
        if (log !== core.log) {
          core.disk.unlock(key);
          return this.#finish(session, packet, payload, 'failed');
        }
        core.outOfSync.mark(offset, length);
        apply(() => {
          log.end(key, 0);
          if (log === core.log) core.logPump.onChange();
        });
      });
    });
  }

  #check(packet: WritePacket, payload: Payload | null): string | null {
    const { seq, offset, length, op } = packet;
    const { connection, options, role } = this.#core;
    if (role === 'Primary') return 'a write from the peer while this node is Primary';
    if (
      connection.conn === 'Connected' &&
      !['established', 'syncSource', 'syncTarget'].includes(connection.phase.kind)
    ) {
      return `a write in phase ${connection.phase.kind}`;
    }
    if (seq <= this.#lastSeq) return `write ${seq} after ${this.#lastSeq}`;
    if (length <= 0 || offset + length > options.sizeBytes)
      return `write ${offset}+${length} beyond the device`;
    if (op === 'write' && payload?.byteLength !== length)
      return `write of ${length} bytes carries ${payload?.byteLength ?? 0}`;
    return null;
  }

  /** Under its lock `key`, which is let go of when the write is done. */
  #apply(session: number, packet: WritePacket, payload: Payload | null, key: number, done: () => void): void {
    const core = this.#core;
    const { op, offset, length, noHole, fua } = packet;
    if (!core.hasDisk) {
      core.disk.unlock(key);
      done();
      return this.#finish(session, packet, payload, 'failed');
    }
    core.disk.write(key, op, offset, length, payload, noHole, (outcome) => {
      core.disk.unlock(key);
      done();
      if (outcome === 'failed') {
        core.disks.fail('a write to the backing device failed');
        return this.#finish(session, packet, payload, 'failed');
      }
      if (!fua) return this.#finish(session, packet, payload, 'ok');
      core.disk.flush((flushed) => {
        if (flushed === 'failed') core.disks.fail('a flush of the backing device failed');
        this.#finish(session, packet, payload, flushed);
      });
    });
  }

  /**
   * Answers, unless the session that asked is over. Protocol A and B wait for less than the write, but FUA is a promise
   * of stable storage on both sides under any of them (W2).
   */
  #finish(
    session: number,
    { seq, fua }: WritePacket,
    payload: Payload | null,
    outcome: 'ok' | 'failed',
  ): void {
    const core = this.#core;
    this.#owedBytes -= payload?.byteLength ?? 0;
    if (--this.#applying === 0) {
      const waiting = this.#whenApplied;
      this.#whenApplied = [];
      for (const then of waiting) then();
    }
    if (session !== this.#session) return;
    this.#pending.delete(seq);
    if (outcome === 'failed') core.send({ kind: 'writeFailed', seq });
    else if (core.options.protocol === 'C' || fua) core.send({ kind: 'written', seq });
    this.#startFlushes();
  }

  onFlush(epoch: number): void {
    if (!this.#core.hasDisk) return this.#core.send({ kind: 'flushFailed', epoch });
    this.flushBehind((outcome) =>
      this.#core.send({ kind: outcome === 'ok' ? 'flushed' : 'flushFailed', epoch }),
    );
  }

  /** Flushes this disk behind every write that has arrived in this session. `then` does not run after its end. */
  flushBehind(then: (outcome: DiskOutcome) => void): void {
    this.#flushes.push({ then, afterSeq: this.#lastSeq });
    this.#startFlushes();
  }

  #startFlushes(): void {
    const core = this.#core;
    const session = this.#session;
    for (;;) {
      const flush = this.#flushes[0];
      if (flush === undefined) return;
      const oldest = this.#pending.first;
      if (oldest !== null && oldest <= flush.afterSeq) return;
      this.#flushes.shift();
      core.disk.flush((outcome) => {
        if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
        if (session !== this.#session) return;
        flush.then(outcome);
      });
    }
  }

  get size(): number {
    return this.#pending.size + this.waitingForLog.size;
  }

  /** Runs when all that has arrived is on the disk (or the disk is gone), whatever became of its session. */
  whenApplied(then: () => void): void {
    if (this.#applying === 0) then();
    else this.#whenApplied.push(then);
  }

  /** Payload that has arrived and is not on this disk yet, that of sessions that are over among it. */
  get owedBytes(): number {
    return this.#owedBytes;
  }

  /** The Primary has writes under way just now. */
  get isBusy(): boolean {
    return this.#pending.size > 0;
  }

  onSessionBegun(session: number): void {
    this.#session = session;
    this.#lastSeq = 0;
  }

  /** What was begun goes on to the disk; nobody is told. */
  onSessionEnded(): void {
    this.#session = 0;
    this.#pending.clear();
    this.#flushes = [];
  }

  onLogReplaced(): void {
    const waiting = [...this.waitingForLog.values()];
    this.waitingForLog.clear();
    for (const then of waiting) then();
  }
}
