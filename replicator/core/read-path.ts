/**
 * Reads of clients on the Primary. Blocks that are out of sync on this node are never served from its disk (W6): they
 * are read from the peer, or the read waits. A failed local read is answered by the peer, and repaired from it (W9).
 */
import type { Core } from './core.ts';
import type { Payload } from './packet.ts';

interface ClientRead {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
}

/** What the peer answers; `gone` when its session ends first. */
export type PeerAnswer =
  | { readonly kind: 'data'; readonly payload: Payload }
  | { readonly kind: 'failed' }
  | { readonly kind: 'gone' };

interface PeerRead {
  readonly length: number;
  readonly sinceMs: number;
  readonly then: (answer: PeerAnswer) => void;
}

export class ReadPath {
  readonly #core: Core;
  /** Asked of the peer in this session, by packet id. */
  readonly #remote = new Map<number, PeerRead>();
  /** Reads of clients that a disk, this one or the peer's, is busy with. */
  #underWay = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  submit(id: number, offset: number, length: number): void {
    const { io } = this.#core;
    io.reads++;
    io.readBytes += length;
    this.#start({ id, offset, length });
  }

  #start(read: ClientRead): void {
    const core = this.#core;
    if (core.role !== 'Primary') return core.complete(read.id, 'ESHUTDOWN');
    const reason = core.holdReason();
    // A handshake decides where writes go; what this disk holds can be read meanwhile.
    if (reason !== null && !(reason === 'negotiating' && core.diskState === 'UpToDate')) {
      return core.hold(
        () => this.#start(read),
        (outcome) => core.complete(read.id, outcome),
      );
    }
    if (this.isHere(read.offset, read.length)) return this.#readLocal(read);
    this.#readPeer(read, () => {
      // A resync may have brought it here meanwhile.
      if (this.isHere(read.offset, read.length)) this.#readLocal(read);
      else core.complete(read.id, 'EIO');
    });
  }

  /** Whether this disk holds the range's newest data. */
  isHere(offset: number, length: number): boolean {
    const core = this.#core;
    if (core.diskState === 'UpToDate') return true;
    // A resync target knows which of its blocks are good.
    const { connection } = core;
    const isTarget = connection.conn === 'Connected' && connection.phase.kind === 'syncTarget';
    return isTarget && core.diskState === 'Inconsistent' && !core.outOfSync.isDirty(offset, length);
  }

  #readLocal(read: ClientRead): void {
    const core = this.#core;
    const { log } = core;
    this.#underWay++;
    core.disk.read(read.offset, read.length, false, (payload) => {
      this.#underWay--;
      if (payload === null) this.#onLocalFailed(read);
      // A disk that has failed meanwhile may have shown what it fell back to, without the writes that a flush has lost.
      else if (!core.hasDisk || log !== core.log) this.#start(read);
      else core.complete(read.id, null, payload);
      if (core.demoting) core.roles.onDrained();
    });
  }

  #onLocalFailed(read: ClientRead): void {
    const core = this.#core;
    if (core.role !== 'Primary') return core.complete(read.id, 'ESHUTDOWN');
    if (!core.isPeerUpToDate) return core.complete(read.id, 'EIO');
    if (!core.hasDisk) return this.#start(read);
    this.#readPeer(read, () => core.complete(read.id, 'EIO'));
    core.repairs.begin(read.offset, read.length);
  }

  #readPeer(read: ClientRead, onFailed: () => void): void {
    const core = this.#core;
    this.#underWay++;
    this.fetch(read.offset, read.length, (answer) => {
      this.#underWay--;
      // What was asked of a peer that is gone is asked again, wherever the data is then.
      if (answer.kind === 'gone') this.#start(read);
      else if (answer.kind === 'data') core.complete(read.id, null, answer.payload);
      else onFailed();
      if (core.demoting) core.roles.onDrained();
    });
  }

  /** Asks the peer, behind every write sent to it so far. Answers an id for `forget`. */
  fetch(offset: number, length: number, then: (answer: PeerAnswer) => void): number {
    const core = this.#core;
    const id = core.out.newId();
    this.#remote.set(id, { length, sinceMs: core.out.nowMs, then });
    core.send({ kind: 'read', id, offset, length });
    return id;
  }

  /** Nobody waits for this answer any more. */
  forget(id: number): void {
    this.#remote.delete(id);
  }

  onReadData(id: number, payload: Payload | null): void {
    const read = this.#remote.get(id);
    if (read === undefined) return;
    if (payload === null || payload.byteLength !== read.length) {
      // The end of the session answers this read too.
      return this.#core.session.breakProtocol(
        `readData carries ${payload?.byteLength ?? 0} bytes, asked for ${read.length}`,
      );
    }
    this.#remote.delete(id);
    read.then({ kind: 'data', payload });
  }

  onReadFailed(id: number): void {
    const read = this.#remote.get(id);
    if (read === undefined) return;
    this.#remote.delete(id);
    read.then({ kind: 'failed' });
  }

  onSessionEnded(): void {
    const reads = [...this.#remote.values()];
    this.#remote.clear();
    for (const { then } of reads) then({ kind: 'gone' });
  }

  /** When the oldest read that the peer has not answered was asked; null when there is none. */
  oldestUnansweredMs(): number | null {
    for (const { sinceMs } of this.#remote.values()) return sinceMs;
    return null;
  }

  get isIdle(): boolean {
    return this.#underWay === 0;
  }

  /** The peer, a Primary, asks for data of this disk. */
  servePeer(id: number, offset: number, length: number): void {
    const core = this.#core;
    if (offset + length > core.options.sizeBytes)
      return core.session.breakProtocol(`read ${offset}+${length} beyond the device`);
    const { connection } = core;
    const session = connection.conn === 'Connected' ? connection.session : 0;
    const isStillOn = (): boolean =>
      core.connection.conn === 'Connected' && core.connection.session === session;
    if (core.diskState !== 'UpToDate') return core.send({ kind: 'readFailed', id });
    // Behind the writes that precede it in the stream: under protocol A and B they may be acknowledged and not written yet.
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'shared', () => {
      core.disk.read(offset, length, false, (payload) => {
        core.disk.unlock(key);
        if (!isStillOn()) return;
        if (payload === null || core.diskState !== 'UpToDate') core.send({ kind: 'readFailed', id });
        else core.send({ kind: 'readData', id }, payload);
      });
    });
  }
}
