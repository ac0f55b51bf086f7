/**
 * How a resync begins: the target sends its bitmap, the source unites it with its own, makes the union durable and sends
 * it back; the target records that it is Inconsistent. Only then is anything copied or mirrored.
 */
import type { Connected } from './connection.ts';
import type { Core } from './core.ts';
import { keepDifferences, settleLineage } from './metadata-keeper.ts';
import type { BlockRun, PeerState } from './packet.ts';
import { ResyncTarget } from './resync-target.ts';
import type { Session } from './session.ts';
import { formatGeneration } from './vocabulary.ts';

/** Runs in one bitmap packet. */
const maxRunsPerPacket = 8192;

export class SyncStart {
  readonly #core: Core;
  readonly #session: Session;

  constructor(core: Core, session: Session) {
    this.#core = core;
    this.#session = session;
  }

  asSource(connection: Connected, target: PeerState, full: boolean): void {
    const core = this.#core;
    connection.phase = { kind: 'bitmapSource', sinceMs: core.out.nowMs, full, target };
    connection.peer = { role: target.role, disk: 'Inconsistent' };
    core.changed();
  }

  asTarget(connection: Connected, source: PeerState, comparesHashes: boolean): void {
    const core = this.#core;
    connection.phase = { kind: 'bitmapTarget', sinceMs: core.out.nowMs, runs: [], comparesHashes };
    connection.peer = { role: source.role, disk: 'UpToDate' };
    core.changed();
    this.#sendBitmap();
  }

  onBitmap(connection: Connected, runs: readonly BlockRun[], last: boolean): void {
    const core = this.#core;
    const { phase } = connection;
    const { blockCount } = core.outOfSync;
    const bad = runs.find(({ first, count }) => first < 0 || count <= 0 || first + count > blockCount);
    if (bad !== undefined)
      return this.#session.breakProtocol(`bitmap run ${bad.first}+${bad.count} beyond the device`);
    if (phase.kind === 'bitmapTarget') {
      phase.runs.push(...runs);
      return;
    }
    if (phase.kind !== 'bitmapSource') return this.#session.breakProtocol(`a bitmap in phase ${phase.kind}`);
    for (const run of runs) core.outOfSync.markRun(run);
    if (last) this.#recordUnion(phase.full, phase.target);
  }

  /** The target's marks go on record here before the target may forget them. */
  #recordUnion(full: boolean, target: PeerState): void {
    const core = this.#core;
    if (full) core.outOfSync.markAll();
    const { superblock } = core.meta;
    core.crashedPrimary = false;
    core.diskState = 'UpToDate';
    core.solo.onDataFound(superblock.current);
    core.out.decide('resync', full ? 'full' : 'quick', 'this node is the source', {
      blocks: core.outOfSync.blocks,
    });
    const sync = this.#session.sourcePhase();
    this.#session.confirm(
      sync,
      {
        // The target takes over this generation at a time of its own choosing: from here on, going on alone takes a new one.
        ...{ origin: 'settled', disk: 'UpToDate', linked: true, peerExcluded: false },
        primary: core.role === 'Primary',
        ...keepDifferences(superblock, target.current, core.role === 'Primary'),
      },
      { clearChunks: true, chunks: core.outOfSync.takeAll() },
      () => {
        this.#sendBitmap();
        core.send({
          kind: 'syncStart',
          current: core.meta.superblock.current,
          history: core.meta.superblock.history,
        });
        // Before the first request, which is to keep to it already.
        core.pace.announce();
      },
    );
  }

  onSyncStart(connection: Connected, current: bigint, history: readonly bigint[]): void {
    const core = this.#core;
    const { phase } = connection;
    if (phase.kind !== 'bitmapTarget') return this.#session.breakProtocol(`syncStart in phase ${phase.kind}`);
    const { superblock } = core.meta;
    const wasActive = core.replaceLog();
    core.outOfSync.clearAll();
    for (const run of phase.runs) core.outOfSync.markRun(run);
    core.crashedPrimary = false;
    const isEmpty = core.outOfSync.blocks === 0;
    core.out.decide('resync', isEmpty ? 'nothing to copy' : 'marked blocks', 'this node is the target', {
      blocks: core.outOfSync.blocks,
      source: formatGeneration(current),
      comparesHashes: phase.comparesHashes,
    });
    const sync = new ResyncTarget(core, current, history, phase.comparesHashes);
    const next = { kind: 'syncTarget', sync } as const;
    const primary = core.role === 'Primary';
    // The source holds the union on record; here only the fact that this disk is not whole has to survive.
    const clear = { clearChunks: true, chunks: [], deactivate: wasActive };
    if (isEmpty) {
      // Nothing differs: the disk stays whole all along, and takes the source's name when the resync "ends" at once.
      core.diskState = core.diskState === 'Inconsistent' ? 'Inconsistent' : 'Outdated';
      return this.#session.confirm(next, { origin: 'settled', linked: true, primary }, clear);
    }
    core.diskState = 'Inconsistent';
    const { bitmap } = superblock.origin === 'settled' ? superblock : settleLineage(superblock);
    this.#session.confirm(
      next,
      { origin: 'settled', disk: 'Inconsistent', linked: true, primary, bitmap },
      clear,
    );
  }

  #sendBitmap(): void {
    const core = this.#core;
    let runs: BlockRun[] = [];
    for (const run of core.outOfSync.bits.runs()) {
      runs.push(run);
      if (runs.length === maxRunsPerPacket) {
        core.send({ kind: 'bitmap', runs, last: false });
        runs = [];
      }
    }
    core.send({ kind: 'bitmap', runs, last: true });
  }
}
