/** Two nodes, the network between them, a client, and what is watched all the time. */
import { Differences } from './differences.ts';
import type { DiskOperation } from './disk-faults.ts';
import { Expectations } from './expectations.ts';
import { GenerationWatch } from './generation-watch.ts';
import type { Prng } from './prng.ts';
import { SimClient } from './sim-client.ts';
import type { ClientOptions } from './sim-client.ts';
import { sectorBytes, SimDisk } from './sim-disk.ts';
import { SimMetadata } from './sim-metadata.ts';
import { SimNetwork } from './sim-network.ts';
import { SimNode } from './sim-node.ts';
import type { MakeCore } from './sim-node.ts';
import type { CoreOptions } from '../../replicator/core/options.ts';
import type { World } from './world.ts';
import { checkFlush, checkNow, checkWrite } from './checkers.ts';

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
  readonly expectations: Expectations;
  readonly differences: Differences;
  readonly generations: GenerationWatch;
  readonly client: SimClient;
  /** What went wrong since both copies were last known to be complete. */
  #faults: { readonly fault: Fault; readonly node: SimNode | null }[] = [];
  /** When a node last lost its cache, and what it had answered its peer was worth nothing any more. */
  readonly #lostCacheMs = new Map<SimNode, number>();
  readonly #missing = new Map<SimNode, { now: number; version: number; sector: number | null }>();
  /** An operator made one node Primary without asking the other; until then there is never more than one. */
  forced = false;
  /** And the other one was alive, or had data that this one lacks: what only one of them has may be given up. */
  split = false;
  /** How many blocks the last online verify has found. */
  verified: number | null = null;
  /** A policy has chosen, perhaps against the copy that the client wrote to. */
  #discarded = false;

  constructor(world: World, options: ClusterOptions, makeCore: MakeCore) {
    this.world = world;
    const { sizeBytes } = options;
    this.expectations = new Expectations(sizeBytes / sectorBytes);
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
        onDiscarded: () => {
          this.split = this.#discarded = true;
          this.generations.forgive();
        },
        onVerified: (node, count) => this.#onVerified(node, count),
      });
    };
    this.nodes = [makeNode('alpha', 'beta'), makeNode('beta', 'alpha')];
    this.differences = new Differences(world, this.nodes);
    this.generations = new GenerationWatch(world, this.nodes);
    for (const node of this.nodes) {
      node.disk.faults.onFailure = (operation) => this.#onFailure(node, operation);
      node.disk.faults.onCorrupted = (block) => this.expectations.spoil(block);
    }
    const client = { ...options.client, sectorCount: sizeBytes / sectorBytes };
    this.client = new SimClient(world, this.nodes, this.expectations, client, {
      onWritten: (node, record, fua, issuedAtMs) => {
        if (record.firm) this.generations.onAcknowledged(node);
        checkWrite(this, node, record, issuedAtMs);
        if (fua) checkFlush(this, node, [record], issuedAtMs);
      },
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

  /** A single operation of a disk is about to fail, as it was told to (DiskFaults). */
  #onFailure(node: SimNode, operation: DiskOperation): void {
    this.world.trace(() => `a ${operation} of the disk of ${node.name} fails`);
    const { wasHealthy } = this.note('disk', node);
    if (operation !== 'flush') return;
    if (!wasHealthy) this.expectations.loseUnflushed();
    this.#lostCacheMs.set(node, this.world.nowMs);
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
    const { disk } = node;
    const { now } = this.expectations;
    const known = this.#missing.get(node);
    // While nobody serves, this is asked again and again, and nothing changes.
    if (known?.now === now && known.version === disk.version) return known.sector;
    const sector = this.expectations.firstMissing(disk.visible);
    this.#missing.set(node, { now, version: disk.version, sector });
    return sector;
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
    const primaries = this.nodes.filter((node) => node.status()?.role === 'Primary');
    if (primaries.length > 1 && !this.forced)
      this.world.violation('two-primaries', 'two Primaries, and nobody forced it');
    this.generations.check();
    checkNow(this);
  }

  #onVerified(node: SimNode, count: number): void {
    this.verified = count;
    const most = this.nodes.reduce((sum, { disk }) => sum + disk.faults.corruptions, 0);
    if (count > most)
      this.world.violation(
        'verify',
        `${node.name} finds ${count} blocks that differ, of ${most} corrupt ones`,
      );
  }

  #onServe(node: SimNode, serve: boolean): void {
    this.world.trace(() => `${node.name} ${serve ? 'serves' : 'no longer serves'} clients`);
    this.client.onServe(node, serve);
  }

  #onError(node: SimNode, kind: string, outcome: string): void {
    this.world.trace(() => `${node.name} fails a ${kind}: ${outcome}`);
    // A flush may still have to tell that an only copy's disk had failed.
    if (outcome === 'EIO' && kind !== 'clientFlush' && this.isHealthy) {
      this.world.violation('needless-error', `${node.name} fails a ${kind} though both copies are fine`);
    }
  }

  describe(): string {
    return this.nodes.map((node) => node.describe()).join(' | ');
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
