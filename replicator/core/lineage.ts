/** Generations that change during a session: a resync that ends, a new generation of the Primary, a Primary that lost its disk. */
import type { Connected } from './connection.ts';
import type { Core } from './core.ts';
import { descend, prependHistory, settleLineage } from './metadata-keeper.ts';
import { assert } from './out.ts';
import type { ResyncTarget } from './resync-target.ts';
import type { Generation } from './vocabulary.ts';
import { formatGeneration } from './vocabulary.ts';

export class Lineage {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  /** The target of this node's resync is whole again. */
  onSyncFinished(connection: Connected, current: Generation): void {
    const core = this.#core;
    if (connection.phase.kind !== 'syncSource') return;
    // What follows in the stream relies on the resync having ended here too.
    const unblock = core.inbound.block();
    connection.phase.sync.whenProven(() => {
      this.#endSource(connection, current);
      unblock();
    });
  }

  #endSource(connection: Connected, current: Generation): void {
    const core = this.#core;
    if (connection.phase.kind !== 'syncSource') return;
    if (core.outOfSync.blocks > 0)
      return core.session.breakProtocol(`syncFinished with ${core.outOfSync.blocks} blocks not proven`);
    const { sync } = connection.phase;
    sync.end();
    connection.phase = { kind: 'established' };
    core.onInSync();
    connection.peer = { ...connection.peer, disk: 'UpToDate' };
    core.out.decide('resync', 'finished', 'the peer is UpToDate', {
      current: formatGeneration(current),
      ...sync.tally.facts(),
    });
    core.out.log('info', 'resync finished, the peer is UpToDate');
    core.changed();
    const { superblock } = core.meta;
    // Begun here meanwhile: unless the target takes it too, the next handshake would find it behind.
    if (current !== superblock.current) {
      core.send({ kind: 'newGeneration', current: superblock.current, history: superblock.history });
    }
    this.onPeerHolds(current);
  }

  /** The peer has recorded generation `current` as its own, with nothing out of sync. */
  onPeerHolds(current: Generation): void {
    const core = this.#core;
    const { superblock } = core.meta;
    if (current !== superblock.current || !core.isPeerUpToDate || core.outOfSync.blocks > 0) return;
    core.meta.update({ ...settleLineage(superblock), peerExcluded: false });
  }

  /** Everything is written and flushed here: from now on this disk is the source's generation. */
  onTargetComplete(sync: ResyncTarget): void {
    const core = this.#core;
    const { connection } = core;
    assert(connection.conn === 'Connected', 'a resync ended without a session');
    const { session } = connection;
    const { superblock } = core.meta;
    const current = sync.sourceCurrent;
    const history = settleLineage({ ...superblock, history: sync.sourceHistory }).history;
    core.meta.update(
      { current, history, bitmap: [], disk: 'UpToDate', peerExcluded: false, writer: false },
      { clearChunks: true, chunks: [] },
      () => {
        // Whatever has become of the session: this disk holds the source's generation now, which is not to be written on in.
        if (core.role === 'Primary') core.solo.oweShared();
        const now = core.connection;
        if (now.conn !== 'Connected' || now.session !== session) return;
        sync.end();
        now.phase = { kind: 'established' };
        core.onInSync();
        core.out.decide('resync', 'finished', 'this node is UpToDate', {
          current: formatGeneration(current),
          ...sync.tally.facts(),
        });
        core.out.log('info', 'resync finished, this node is UpToDate');
        if (core.role === 'Primary') core.solo.armShared(current);
        core.send({ kind: 'syncFinished', current });
        core.setDisk('UpToDate');
        // The source began a new generation while this one was being recorded.
        if (sync.sourceCurrent !== current) this.onNewGeneration(now, sync.sourceCurrent, sync.sourceHistory);
        core.releaseHeld();
      },
    );
  }

  onNewGeneration(connection: Connected, current: Generation, history: readonly Generation[]): void {
    const core = this.#core;
    if (connection.phase.kind === 'syncTarget') {
      connection.phase.sync.sourceCurrent = current;
      connection.phase.sync.sourceHistory = history;
      return;
    }
    connection.peerCurrent = current;
    // A disk that has just been attached takes no part before a handshake has found what it lacks: with this name on it, it
    // would pass for one that lacks nothing (W12).
    if (connection.phase.kind !== 'established' || core.diskState !== 'UpToDate') return;
    const unblock = core.inbound.block();
    core.meta.update({ current, history, bitmap: [], writer: false, peerExcluded: false }, {}, () => {
      core.send({ kind: 'newGenerationDone', current });
      core.changed();
      unblock();
    });
  }

  /** The Primary's disk is gone: what it writes from here on is here alone. */
  onPeerDiskGone(connection: Connected, current: Generation, history: readonly Generation[]): void {
    const core = this.#core;
    if (connection.phase.kind !== 'established' || core.diskState !== 'UpToDate') return;
    connection.peer = { ...connection.peer, disk: 'Diskless' };
    const unblock = core.inbound.block();
    // What was acknowledged by both may be in this cache alone by now; nothing is acknowledged on the strength of this copy
    // before it is stable.
    core.disk.flush((outcome) => {
      if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
      // After the end of the session the Primary has nobody to go on with, and the next handshake decides.
      if (core.connection !== connection || !core.hasDisk) return unblock();
      this.#recordOnlyCopy(current, history, unblock);
    });
  }

  #recordOnlyCopy(current: Generation, history: readonly Generation[], unblock: () => void): void {
    const core = this.#core;
    const { superblock } = core.meta;
    const lineage = descend(superblock, current, false);
    core.meta.update(
      {
        ...lineage,
        history: prependHistory(history, lineage.history),
        peerExcluded: true,
        writer: false,
      },
      {},
      () => {
        core.send({ kind: 'peerDiskGoneDone', current });
        core.changed();
        unblock();
      },
    );
  }
}
