/** Two nodes, the network between them, a client, and what is watched all the time. */
import type { WriteRecord } from './expectations.ts';
import { Expectations } from './expectations.ts';
import type { Prng } from './prng.ts';
import { SimClient } from './sim-client.ts';
import type { ClientOptions } from './sim-client.ts';
import { SimDisk } from './sim-disk.ts';
import { SimMetadata } from './sim-metadata.ts';
import { SimNetwork } from './sim-network.ts';
import { SimNode } from './sim-node.ts';
import type { MakeCore } from './sim-node.ts';
import type { CoreOptions } from '../../replicator/core/options.ts';
import type { World } from './world.ts';
import { checkFlush, checkMarks, checkWrite } from './checkers.ts';

export interface ClusterOptions {
  readonly sizeBytes: number;
  readonly core: Omit<CoreOptions, 'nodeName' | 'peerName' | 'sizeBytes'>;
  readonly client: Omit<ClientOptions, 'sectorCount'>;
  readonly networkDelayMs: number;
  readonly diskLatencyMs: number;
  readonly metadataDelayMs: number;
}

export type Fault = 'kill' | 'power' | 'link' | 'disk' | 'operator';

export class Cluster {
  readonly world: World;
  readonly network: SimNetwork;
  readonly nodes: readonly [SimNode, SimNode];
  readonly expectations = new Expectations();
  readonly client: SimClient;
  /** What went wrong since both copies were last known to be complete. */
  #faults: { readonly fault: Fault; readonly node: SimNode | null }[] = [];
  /** When a node last lost its cache, and what it had answered its peer was worth nothing any more. */
  readonly #lostCacheMs = new Map<SimNode, number>();
  /** An operator made one node Primary without asking the other; until then there is never more than one. */
  forced = false;
  /** And the other one was alive, or had data that this one lacks: what only one of them has may be given up. */
  split = false;
  /** A policy has chosen, perhaps against the copy that the client wrote to. */
  #discarded = false;

  constructor(world: World, options: ClusterOptions, makeCore: MakeCore) {
    this.world = world;
    const { sizeBytes } = options;
    this.network = new SimNetwork(world, {
      delayMs: options.networkDelayMs,
      connectIntervalMs: 200,
      probeTimeoutMs: 500,
    });
    const makeNode = (nodeName: string, peerName: string): SimNode => {
      const disk = new SimDisk(world, nodeName, sizeBytes, { latencyMs: options.diskLatencyMs });
      const metadata = new SimMetadata(
        world,
        nodeName,
        freshSuperblock(world.prng, sizeBytes),
        options.metadataDelayMs,
      );
      const core = { ...options.core, nodeName, peerName, sizeBytes };
      return new SimNode(world, this.network, disk, metadata, core, makeCore, {
        onServe: (node, serve) => this.#onServe(node, serve),
        onDiscarded: () => (this.split = this.#discarded = true),
      });
    };
    this.nodes = [makeNode('alpha', 'beta'), makeNode('beta', 'alpha')];
    const client = { ...options.client, sectorCount: sizeBytes / 512 };
    this.client = new SimClient(world, this.nodes, this.expectations, client, {
      onWritten: (node, record, _fua, issuedAtMs) => checkWrite(this, node, record, issuedAtMs),
      onFlushed: (node, records, issuedAtMs) => checkFlush(this, node, records, issuedAtMs),
      onAttached: (node) => {
        if (this.split && this.firstMissing(node) !== null) this.expectations.loseEverything();
      },
      onError: (node, kind, outcome) => this.#onError(node, kind, outcome),
    });
  }

  start(): void {
    this.network.start(this.nodes);
    for (const node of this.nodes) node.start();
    this.client.start();
  }

  otherOf(node: SimNode): SimNode {
    return node === this.nodes[0] ? this.nodes[1] : this.nodes[0];
  }

  /** Both copies are complete: whatever single thing happens next, nothing acknowledged may be lost. */
  get isHealthy(): boolean {
    return this.nodes.every((node) => {
      const status = node.status();
      return (
        status !== null &&
        !node.disk.isFailing &&
        status.diskState === 'UpToDate' &&
        status.peer?.connection === 'Connected' &&
        status.peer.replication === 'Established' &&
        status.peer.diskState === 'UpToDate'
      );
    });
  }

  // Faults.

  /** Tells whether everything was well before, and remembers the fault until everything is well again. */
  note(fault: Fault, node: SimNode | null): { readonly wasHealthy: boolean } {
    this.checkAlways();
    const wasHealthy = this.isHealthy;
    if (wasHealthy) this.#faults = [];
    // What one machine had in its cache is gone, and nobody may have noticed yet when the other one's copy goes too.
    const caches: readonly Fault[] = ['power', 'disk'];
    if (this.#faults.some((earlier) => earlier.node !== node && caches.includes(earlier.fault))) {
      this.expectations.loseUnflushed();
    }
    this.#faults.push({ fault, node });
    return { wasHealthy };
  }

  /** Since both copies were last complete, nothing happened but the death of this node, once. */
  isOnlyFaultDeathOf(node: SimNode): boolean {
    const [only, ...more] = this.#faults;
    return more.length === 0 && only?.node === node && (only.fault === 'kill' || only.fault === 'power');
  }

  kill(node: SimNode): void {
    if (!node.isUp) return;
    this.note('kill', node);
    node.kill();
  }

  powerCut(node: SimNode): void {
    const { wasHealthy } = this.note('power', node);
    if (!wasHealthy) this.expectations.loseUnflushed();
    this.#lostCacheMs.set(node, this.world.nowMs);
    node.powerCut();
  }

  failDisk(node: SimNode): void {
    const { wasHealthy } = this.note('disk', node);
    if (!wasHealthy) this.expectations.loseUnflushed();
    this.#lostCacheMs.set(node, this.world.nowMs);
    this.world.trace(() => `the disk of ${node.name} fails`);
    node.disk.fail();
  }

  repairDisk(node: SimNode): void {
    this.world.trace(() => `-- the disk of ${node.name} is repaired`);
    // What was acknowledged while a flush was bound to fail is no safer than what was before.
    if (node.disk.isFailing && !this.isPeerFine(node)) this.expectations.loseUnflushed();
    node.disk.repair();
  }

  /** The other node's copy is whole, and this one knows. */
  isPeerFine(node: SimNode): boolean {
    const peer = node.status()?.peer;
    return peer?.diskState === 'UpToDate' && !this.otherOf(node).disk.isFailing;
  }

  /** The node's cache was lost after that time: what it had said it has, it may not have. */
  lostCacheSince(node: SimNode, sinceMs: number): boolean {
    return (this.#lostCacheMs.get(node) ?? -1) >= sinceMs;
  }

  /** Where a node's disk lacks something that no loss excuses: the first such sector. */
  firstMissing(node: SimNode): number | null {
    const since = this.expectations.now;
    for (const sector of this.expectations.writtenSectors()) {
      if (!this.expectations.isLegitimate(sector, node.disk.visible[sector] ?? 0, since)) return sector;
    }
    return null;
  }

  /** Forgets what was forced once both copies are complete again. */
  settle(): void {
    if (!this.isHealthy) return;
    if (this.#discarded && this.firstMissing(this.nodes[0]) !== null) this.expectations.loseEverything();
    this.#discarded = false;
    this.forced = false;
    this.split = false;
  }

  checkAlways(): void {
    checkMarks(this);
    const primaries = this.nodes.filter((node) => node.status()?.role === 'Primary');
    if (primaries.length > 1 && !this.forced) this.world.violation('two Primaries, and nobody forced it');
  }

  #onServe(node: SimNode, serve: boolean): void {
    this.world.trace(() => `${node.name} ${serve ? 'serves' : 'no longer serves'} clients`);
    this.client.onServe(node, serve);
  }

  #onError(node: SimNode, kind: string, outcome: string): void {
    this.world.trace(() => `${node.name} fails a ${kind}: ${outcome}`);
    // A flush may still have to tell that an only copy's disk had failed.
    if (outcome === 'EIO' && kind !== 'clientFlush' && this.isHealthy) {
      this.world.violation(`${node.name} fails a ${kind} though both copies are fine`);
    }
  }

  describe(): string {
    return this.nodes.map((node) => node.describe()).join(' | ');
  }

  /** For the checkers: records of writes under way are no reason to complain. */
  hasReached(node: SimNode, record: WriteRecord, which: 'visible' | 'stable'): boolean {
    const sectors = node.disk[which];
    for (let sector = record.first; sector < record.first + record.count; sector++) {
      if (!this.expectations.hasReached(record, sector, sectors[sector] ?? 0)) return false;
    }
    return true;
  }
}

function freshSuperblock(prng: Prng, sizeBytes: number): SimMetadata['superblock'] {
  return {
    sizeBytes,
    origin: 'created-empty',
    current: prng.bits64(),
    bitmap: [],
    partedAsPrimary: false,
    history: [],
    disk: 'Inconsistent',
    primary: false,
    writer: false,
    linked: false,
    peerExcluded: false,
    detached: false,
  };
}
