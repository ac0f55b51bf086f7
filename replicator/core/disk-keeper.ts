/** The own backing device's life: opened, found wanting, failed, detached, attached again. */
import { decodeInto } from './metadata-load.ts';
import type { Core } from './core.ts';
import { isNegotiating } from './connection.ts';
import type { DiskOpenOutcome } from './event.ts';
import type { ActiveRange } from './metadata.ts';
import { assert } from './out.ts';

export class DiskKeeper {
  readonly #core: Core;
  /** Extents that stood for differences when the disk went away; the store still holds them as active. */
  #frozen: readonly ActiveRange[] = [];
  #onAttached = new Map<number, (outcome: DiskOpenOutcome) => void>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** The driver has been asked for the disk, and has not answered yet. */
  get isOpening(): boolean {
    return this.#onAttached.size > 0;
  }

  onOpened(id: number, outcome: DiskOpenOutcome): void {
    if (id === 0) {
      assert(outcome.kind === 'opened', 'a resource is started without its disk');
      return this.#start(outcome);
    }
    const then = this.#onAttached.get(id);
    this.#onAttached.delete(id);
    then?.(outcome);
  }

  /** The first event of all. After a crash every active extent is suspect, and nothing else is (W4). */
  #start(opened: Extract<DiskOpenOutcome, { kind: 'opened' }>): void {
    const core = this.#core;
    const { image } = opened;
    core.meta.load(image.superblock);
    // A growth that the definition has not heard of: the record is what the data is like.
    if (image.superblock.sizeBytes > core.options.sizeBytes) core.growTo(image.superblock.sizeBytes);
    decodeInto(core.outOfSync, image);
    core.crashedPrimary = image.superblock.primary;
    if (!core.isMirrored) {
      core.diskState = 'UpToDate';
      this.#startUnmirrored();
      return core.changed();
    }
    core.diskState = this.#trusted();
    const recovered = (): void => core.session.start();
    if (image.active.length === 0 && !image.superblock.detached) return recovered();
    for (const range of image.active) core.outOfSync.markExtents(range);
    core.out.log(
      'warn',
      `unclean stop: ${image.active.length} active ranges, ${core.outOfSync.blocks} blocks are out of sync`,
    );
    core.meta.update(
      { detached: false },
      { deactivate: image.active, clearChunks: true, chunks: core.outOfSync.takeAll() },
      recovered,
    );
    core.changed();
  }

  /** A new device begins in a generation of its own. One that had a peer leaves it with its first write only (solo.ts). */
  #startUnmirrored(): void {
    const core = this.#core;
    const { origin } = core.meta.superblock;
    if (origin === 'settled') return;
    const change = { disk: 'UpToDate', origin: 'settled', peerExcluded: true } as const;
    core.meta.update(change, {}, () => core.releaseHeld());
  }

  /** What the record allows to say of the data before the peer has spoken. */
  #trusted(): 'Inconsistent' | 'Outdated' | 'Consistent' {
    const { superblock } = this.#core.meta;
    if (superblock.origin !== 'settled') return 'Inconsistent';
    if (superblock.disk === 'Inconsistent' || superblock.disk === 'Outdated') return superblock.disk;
    return 'Consistent';
  }

  /**
   * The disk is out, by failure or on request. I/O goes on through the peer where there is one (W9). The record of active
   * extents stays as it is: it stands for what this disk may lack when it comes back.
   */
  fail(why: string, state: 'Failed' | 'Diskless' = 'Failed'): void {
    const core = this.#core;
    if (!core.hasDisk) return;
    core.out.log('error', `${why}; the disk is detached`);
    core.out.emit({ kind: 'closeDisk' });
    const { connection } = core;
    const wasDuringHandshake = connection.conn === 'Connected' && isNegotiating(connection.phase);
    const wasSyncing =
      connection.conn === 'Connected' &&
      (connection.phase.kind === 'syncSource' || connection.phase.kind === 'syncTarget');
    // Nobody goes on without this disk when the peer has no good one: then its data is not outdated by being out.
    // One that was not whole is no better for having been away.
    const { disk: recorded, peerExcluded } = core.meta.superblock;
    // A Primary's disk that has failed may lack what it and a peer that is away have both acknowledged. Without a record
    // of this copy alone nothing else was, so that peer lacks nothing.
    const isLostPeerWhole = core.session.lostWholePeer && !peerExcluded;
    const lacks = state === 'Failed' && core.role === 'Primary' && isLostPeerWhole;
    const disk = (core.isPeerUpToDate || lacks) && recorded !== 'Inconsistent' ? 'Outdated' : recorded;
    if (state === 'Failed' && core.role === 'Primary' && !core.isPeerUpToDate)
      core.flushes.onOnlyCopyFailed();
    core.diskState = state;
    core.solo.onDiskGoing();
    core.meta.update({ detached: true, disk });
    // The frozen extents cover what was not stable; from here on this node has nothing to be unstable.
    core.epochs.drain(() => undefined);
    this.#frozen = core.replaceLog();
    if (wasDuringHandshake || wasSyncing) core.session.restart('the disk was detached');
    core.announce();
    core.solo.onDiskGone();
    core.disk.onGone();
    core.releaseHeld();
  }

  /** Asks the driver to open the backing device again. */
  attach(then: (outcome: DiskOpenOutcome) => void): void {
    const core = this.#core;
    const id = core.out.newId();
    this.#onAttached.set(id, then);
    core.out.emit({ kind: 'openDisk', id });
  }

  /** The disk is back; what it may lack is marked, and a new handshake says where it stands. */
  onAttached(then: () => void): void {
    const core = this.#core;
    for (const range of this.#frozen) core.outOfSync.markExtents(range);
    const deactivate = this.#frozen;
    this.#frozen = [];
    core.diskState = core.isMirrored ? this.#trusted() : 'UpToDate';
    core.changed();
    core.meta.update(
      { detached: false },
      { deactivate, clearChunks: true, chunks: core.outOfSync.takeAll() },
      () => {
        if (core.isMirrored) core.session.restart('the disk was attached');
        core.releaseHeld();
        then();
      },
    );
  }
}
