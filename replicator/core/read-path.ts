/**
 * Reads of clients on the Primary. Blocks that are out of sync on this node are never served from its disk (W6): they
 * are read from the peer, or the read waits. A failed local read is answered by the peer, and the disk is detached (W9).
 */
import type { Core } from './core.ts';
import type { Payload } from './packet.ts';

interface ClientRead {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
}

export class ReadPath {
  readonly #core: Core;
  /** Asked of the peer in this session, by packet id. */
  readonly #remote = new Map<number, ClientRead>();
  #local = 0;

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
    if (this.#isHere(read)) return this.#readLocal(read);
    this.#readPeer(read);
  }

  #isHere(read: ClientRead): boolean {
    const core = this.#core;
    if (core.diskState === 'UpToDate') return true;
    // A resync target knows which of its blocks are good.
    const { connection } = core;
    const isTarget = connection.conn === 'Connected' && connection.phase.kind === 'syncTarget';
    return isTarget && core.diskState === 'Inconsistent' && !core.outOfSync.isDirty(read.offset, read.length);
  }

  #readLocal(read: ClientRead): void {
    const core = this.#core;
    this.#local++;
    core.disk.read(read.offset, read.length, false, (payload) => {
      this.#local--;
      if (payload !== null) core.complete(read.id, null, payload);
      else if (!core.isPeerUpToDate) core.complete(read.id, 'EIO');
      else {
        core.disks.fail('a read from the backing device failed');
        this.#start(read);
      }
      if (core.demoting) core.roles.onDrained();
    });
  }

  #readPeer(read: ClientRead): void {
    const core = this.#core;
    const id = core.out.newId();
    this.#remote.set(id, read);
    core.send({ kind: 'read', id, offset: read.offset, length: read.length });
  }

  onReadData(id: number, payload: Payload | null): void {
    const read = this.#remote.get(id);
    if (read === undefined) return;
    this.#remote.delete(id);
    if (payload === null || payload.byteLength !== read.length) {
      return this.#core.session.breakProtocol(
        `readData carries ${payload?.byteLength ?? 0} bytes, asked for ${read.length}`,
      );
    }
    this.#core.complete(read.id, null, payload);
    if (this.#core.demoting) this.#core.roles.onDrained();
  }

  onReadFailed(id: number): void {
    const read = this.#remote.get(id);
    if (read === undefined) return;
    this.#remote.delete(id);
    this.#core.complete(read.id, 'EIO');
    if (this.#core.demoting) this.#core.roles.onDrained();
  }

  /** What was asked of a peer that is gone is asked again, wherever the data is then. */
  onSessionEnded(): void {
    const reads = [...this.#remote.values()];
    this.#remote.clear();
    for (const read of reads) this.#start(read);
  }

  get isIdle(): boolean {
    return this.#remote.size === 0 && this.#local === 0;
  }

  /** The peer, a Primary, asks for data of this disk. */
  servePeer(id: number, offset: number, length: number): void {
    const core = this.#core;
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
        if (payload === null) core.send({ kind: 'readFailed', id });
        else core.send({ kind: 'readData', id }, payload);
      });
    });
  }
}
