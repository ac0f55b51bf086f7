/** Two nodes, the network between them, a client, and what is watched all the time. */
import { Differences } from './differences.ts';
import type { DiskOperation } from './disk-faults.ts';
import { Expectations } from './expectations.ts';
import { GenerationWatch } from './generation-watch.ts';
import type { Prng } from './prng.ts';
import { SimClient } from './sim-client.ts';
import type { ClientOptions } from './sim-client.ts';
import { sectorBytes, SimDisk, SimPayload } from './sim-disk.ts';
import { SimMetadata } from './sim-metadata.ts';
import { SimNetwork } from './sim-network.ts';
import { SimNode } from './sim-node.ts';
import type { ClientRequest } from './node-listener.ts';
import type { MakeCore } from './sim-node.ts';
import type { CoreOptions } from '../../replicator/core/options.ts';
import type { World } from './world.ts';
import type { Decision } from '../../replicator/core/decision.ts';
import type { Superblock } from '../../replicator/core/metadata.ts';
import type { Packet } from '../../replicator/core/packet.ts';
import { checkFlush, checkKept, checkNow, checkWrite } from './checkers.ts';
import type { Coverage } from './coverage.ts';

/** Of the core of one node: what is not the same by nature. */
export type NodeCoreOptions = Omit<CoreOptions, 'nodeName' | 'peerName' | 'sizeBytes'>;

/** What the two disks hold at first. */
export type FirstData =
  | 'both-empty'
  | 'one-has-data'
  | 'both-have-data'
  /** Of one generation, and neither of them whole. */
  | 'neither-whole'
  /** Of generations that have an ancestor in common and nothing else. */
  | 'parted-long-ago';

export interface ClusterOptions {
  readonly sizeBytes: number;
  /** By so much the second disk is larger: a definition that does not fit. */
  readonly extraBytes: number;
  /** By so much both can grow. */
  readonly roomBytes: number;
  readonly firstData: FirstData;
  readonly cores: readonly [NodeCoreOptions, NodeCoreOptions];
  readonly clockSpeeds: readonly [number, number];
  readonly wire: 'bytes' | 'values';
  readonly client: Omit<ClientOptions, 'sectorCount'>;
  readonly networkDelayMs: number;
  readonly diskLatencyMs: number;
  readonly metadataDelayMs: number;
}

export type Fault = 'kill' | 'power' | 'link' | 'disk' | 'operator' | 'freeze' | 'clock';

export class Cluster {
  readonly world: World;
  readonly network: SimNetwork;
  readonly nodes: readonly [SimNode, SimNode];
  readonly expectations: Expectations;
  readonly differences: Differences;
  readonly generations: GenerationWatch;
  readonly client: SimClient;
  readonly coverage: Coverage;
  readonly #options: ClusterOptions;
  /** What went wrong since both copies were last known to be complete. */
  #faults: { readonly fault: Fault; readonly node: SimNode | null }[] = [];
  /** When a node last lost its cache, and what it had answered its peer was worth nothing any more. */
  readonly #lostCacheMs = new Map<SimNode, number>();
  /** When an operation of a node's disk last failed on its own. */
  readonly #failedMs = new Map<SimNode, number>();
  readonly #missing = new Map<SimNode, { now: number; version: number; sector: number | null }>();
  /** An operator made one node Primary without asking the other; until then there is never more than one. */
  forced = false;
  /** And the other one was alive, or had data that this one lacks: what only one of them has may be given up. */
  split = false;
  /** This node's disk is not the one it had: until both copies are complete again, nothing may be copied from it. */
  swapped: SimNode | null = null;
  /** What is to happen as soon as this node has answered a ping, and the answer is on its way. */
  whenAnswering: { readonly node: SimNode; readonly run: () => void } | null = null;
  /** The last size that a node was told to grow to; 0: none. Until both have recorded it, a growth may be half done. */
  growingTo = 0;
  /** In the next handshake between equals, a Secondary is to be heard as a Primary. */
  claimsPrimary = false;
  /** Primaries that another one has taken over from, by force, unseen; `excused` once they could not have noticed. */
  readonly #overtaken = new Map<SimNode, { excused: boolean }>();
  /** How many blocks the last online verify has found. */
  verified: number | null = null;
  /** A policy or an operator has chosen, perhaps against the copy that the client wrote to. */
  #discarded = false;

  constructor(world: World, options: ClusterOptions, makeCore: MakeCore, coverage: Coverage) {
    this.world = world;
    this.coverage = coverage;
    this.#options = options;
    this.expectations = new Expectations((options.sizeBytes + options.roomBytes) / sectorBytes);
    this.network = new SimNetwork(world, {
      delayMs: options.networkDelayMs,
      connectIntervalMs: 200,
      probeTimeoutMs: 500,
      wire: options.wire,
    });
    const makeNode = (nodeName: string, peerName: string, index: 0 | 1): SimNode => {
      const sizeBytes = options.sizeBytes + index * options.extraBytes;
      const { diskLatencyMs: latencyMs, roomBytes } = options;
      const disk = new SimDisk(world, nodeName, sizeBytes, { latencyMs, roomBytes });
      const metadata = new SimMetadata(
        world,
        nodeName,
        freshSuperblock(world.prng, sizeBytes),
        options.metadataDelayMs,
      );
      const core = { ...options.cores[index], nodeName, peerName, sizeBytes };
      const node = { core, clockSpeed: options.clockSpeeds[index], makeCore, coverage };
      return new SimNode(world, this.network, disk, metadata, node, {
        onServe: (which, serve) => this.#onServe(which, serve),
        onAcknowledged: (which, request) => this.#onAcknowledged(which, request),
        onSend: (which, packet) => this.#onSend(which, packet),
        incoming: (which, packet) => this.#incoming(which, packet),
        onDeath: (which, how) => (how === 'kill' ? this.kill(which) : this.powerCut(which)),
        onDecided: (which, decision) => this.#onDecided(which, decision),
      });
    };
    this.nodes = [makeNode('alpha', 'beta', 0), makeNode('beta', 'alpha', 1)];
    this.differences = new Differences(world, this.nodes);
    this.generations = new GenerationWatch(world, this.nodes);
    for (const node of this.nodes) {
      node.disk.faults.onFailure = (operation) => this.#onFailure(node, operation);
      node.disk.faults.onCorrupted = (block) => this.expectations.spoil(block);
    }
    this.#fillDisks();
    const client = { ...options.client, sectorCount: options.sizeBytes / sectorBytes };
    this.client = new SimClient(world, this.nodes, this.expectations, client, {
      onWritten: (node, record, fua, issuedAtMs) => {
        if (record.firm) this.generations.onAcknowledged(node);
        checkWrite(this, node, record, issuedAtMs);
        if (fua) checkFlush(this, node, [record], issuedAtMs);
      },
      onFlushed: (node, records, issuedAtMs) => {
        checkKept(this, node, records);
        checkFlush(this, node, records, issuedAtMs);
      },
      // Protocol A and B rely on the Primary's own disk: without a whole one, what is acknowledged may be on its way only.
      isPromise: (node) => this.protocol === 'C' || node.status()?.diskState === 'UpToDate',
      onAttached: () => {
        // A target of a resync shows what the other copy holds.
        if (this.split && this.nodes.some((one) => this.firstMissing(one) !== null))
          this.expectations.loseEverything();
      },
      onError: (node, kind, outcome) => this.#onError(node, kind, outcome),
    });
  }

  start(): void {
    this.network.start(this.nodes);
    for (const node of this.nodes) node.start();
    this.client.start();
  }

  /** Disks that came with data: a whole one is promised to be kept, of two nobody knows which is going to stay. */
  #fillDisks(): void {
    const { firstData, sizeBytes } = this.#options;
    if (firstData === 'both-empty') return;
    // Before the first handshake nobody may count on a second copy.
    this.#faults.push({ fault: 'operator', node: null });
    if (firstData === 'neither-whole' || firstData === 'parted-long-ago') return this.#fillRecords(firstData);
    const filled = firstData === 'both-have-data' ? this.nodes : [this.world.prng.pick(this.nodes)];
    for (const node of filled) {
      const record = this.expectations.issue('write', 0, sizeBytes / sectorBytes);
      if (filled.length === 1) this.expectations.acknowledged(record, 'write', true);
      node.disk.replace(new Uint32Array(sizeBytes / sectorBytes).fill(record.value));
      const superblock = { ...node.metadata.superblock, origin: 'created-with-data' } as const;
      node.metadata.replace({ superblock, active: [], chunks: [] });
    }
  }

  /** Records of an earlier life, of disks that hold nothing. */
  #fillRecords(firstData: 'neither-whole' | 'parted-long-ago'): void {
    const ancestor = this.world.prng.bits64();
    for (const { metadata } of this.nodes) {
      const fresh = { ...metadata.superblock, origin: 'settled' } as const;
      const superblock: Superblock =
        firstData === 'neither-whole'
          ? { ...fresh, current: ancestor, disk: 'Inconsistent' }
          : { ...fresh, history: [ancestor], disk: 'UpToDate' };
      metadata.replace({ superblock, active: [], chunks: [] });
    }
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
    // What was given up before both were complete again is forgotten before anything new happens.
    this.settle();
    const wasHealthy = this.isHealthy;
    // A cut that neither of them has noticed yet, though all looks well, is not over.
    if (wasHealthy && !this.network.isImpaired) this.#faults = [];
    // What one machine had in its cache is gone, and nobody may have noticed yet when the other one's copy goes too.
    const caches: readonly Fault[] = ['power', 'disk'];
    if (this.#faults.some((earlier) => earlier.node !== node && caches.includes(earlier.fault))) {
      this.expectations.loseUnflushed();
    }
    this.#faults.push({ fault, node });
    for (const overtaken of this.#overtaken.values()) overtaken.excused = true;
    // Protocol A: what was acknowledged may have been on its way only.
    if (this.protocol === 'A') this.expectations.loseUnflushed();
    return { wasHealthy };
  }

  /** Since both copies were last complete, nothing happened but the death of this node, once. */
  isOnlyFaultDeathOf(node: SimNode): boolean {
    const [only, ...more] = this.#faults;
    return more.length === 0 && only?.node === node && ['kill', 'power', 'freeze'].includes(only.fault);
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

  /** The disk of a node, and the node, are gone for good. */
  loseDisk(node: SimNode): void {
    const { wasHealthy } = this.note('disk', node);
    if (!wasHealthy) this.expectations.loseUnflushed();
    this.#lostCacheMs.set(node, this.world.nowMs);
    node.kill();
  }

  get protocol(): CoreOptions['protocol'] {
    return this.#options.cores[0].protocol;
  }

  /** By force, the other node is Primary now, while this one stood still and nothing else was wrong. */
  onTakenOver(from: SimNode): void {
    if (from.isFrozen) this.#overtaken.set(from, { excused: from.metadata.superblock.peerExcluded });
  }

  /** Verify finds what a disk has put in the wrong place, and nothing else ever. */
  #onDecided(node: SimNode, decision: Decision): void {
    const { kind, rule, result } = decision;
    // By policy: what only one of them has is given up.
    if (/^after-sb-.pri-discard/.test(rule)) this.discard();
    if (kind === 'verify') this.#onVerified(node, decision);
    if (kind === 'resync' && rule === 'finished' && result === 'this node is UpToDate')
      this.generations.onComplete(node);
  }

  #onVerified(node: SimNode, { inputs, result }: Decision): void {
    const count = Number(inputs['differingBlocks']);
    this.verified = count;
    const most = this.nodes.reduce((sum, { disk }) => sum + disk.faults.corruptions, 0);
    if (count > most)
      this.world.violation('verify', `${node.name} finds what no disk has put in a wrong place: ${result}`);
  }

  #onSend(node: SimNode, packet: Packet): void {
    if (packet.kind !== 'pong' || this.whenAnswering?.node !== node) return;
    this.world.after(0, this.whenAnswering.run);
    this.whenAnswering = null;
  }

  /**
   * A node hears that its peer is Primary of the same data, which it is not. One that asks who has taken over is not lied to:
   * it would step down, as it should.
   */
  #incoming(node: SimNode, packet: Packet): Packet {
    if (!this.claimsPrimary || packet.kind !== 'state' || packet.state.role === 'Primary') return packet;
    const { current } = packet.state;
    if (node.metadata.superblock.current !== current || node.status() === null || node.isLeaving)
      return packet;
    this.claimsPrimary = false;
    this.world.trace(() => `-- ${node.name} hears that its peer is Primary`);
    return { kind: 'state', state: { ...packet.state, role: 'Primary', exposed: current } };
  }

  /** W13: what a superseded Primary still acknowledges has to be on the copy that goes on. */
  #onAcknowledged(node: SimNode, request: ClientRequest): void {
    const overtaken = this.#overtaken.get(node);
    // Under protocol A and B it may have been on its way when the other one took over.
    if (this.protocol !== 'C' || overtaken === undefined || overtaken.excused) return;
    if (request.kind !== 'clientWrite') return;
    const successor = this.otherOf(node);
    const { payload } = request;
    const record = payload instanceof SimPayload ? this.expectations.recordOf(payload.value) : undefined;
    if (!successor.isServing || record === undefined || this.network.isImpaired) return;
    if (this.expectations.hasReached(record, successor.disk.visible)) return;
    this.world.violation(
      'superseded',
      `${node.name}, superseded, acknowledges write ${record.stamp}, which ${successor.name} lacks`,
    );
  }

  repairDisk(node: SimNode): void {
    this.world.trace(() => `-- the disk of ${node.name} is repaired`);
    // What was acknowledged while a flush was bound to fail is no safer than what was before.
    if (node.disk.isFailing && !this.isPeerFine(node)) this.expectations.loseUnflushed();
    // What it failed to do until now may be answered later.
    if (node.disk.isFailing) this.#failedMs.set(node, this.world.nowMs);
    node.disk.repair();
  }

  /** A single operation of a disk is about to fail, as it was told to (DiskFaults). */
  #onFailure(node: SimNode, operation: DiskOperation): void {
    this.world.trace(() => `a ${operation} of the disk of ${node.name} fails`);
    this.#failedMs.set(node, this.world.nowMs);
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

  /** By policy or by an operator's word: what only one of them has is given up. */
  discard(): void {
    this.split = this.#discarded = true;
    this.generations.forgive();
  }

  /** Forgets what was forced once both copies are complete again. */
  settle(): void {
    if (!this.isHealthy) return;
    const isMissing = (this.#discarded || this.split) && this.firstMissing(this.nodes[0]) !== null;
    if (this.#discarded && isMissing) this.expectations.loseEverything();
    if (this.#discarded) this.generations.forgive();
    // What force has given up is lost for the client that comes next.
    this.split = !this.#discarded && isMissing && this.client.node === null;
    this.#discarded = false;
    this.forced = false;
    if (this.swapped !== null) this.differences.watch();
    this.swapped = null;
    this.#overtaken.clear();
  }

  checkAlways(): void {
    const primaries = this.nodes.filter((node) => node.status()?.role === 'Primary');
    if (primaries.length > 1 && !this.forced)
      this.world.violation('two-primaries', 'two Primaries, and nobody forced it');
    // Protocol A: what was acknowledged may go with the Primary, and its generation with it.
    this.generations.check(this.protocol !== 'A');
    checkNow(this);
  }

  #onServe(node: SimNode, serve: boolean): void {
    if (!serve) this.#overtaken.delete(node);
    this.world.trace(() => `${node.name} ${serve ? 'serves' : 'no longer serves'} clients`);
    this.client.onServe(node, serve);
  }

  #onError(node: SimNode, kind: string, outcome: string): void {
    this.world.trace(() => `${node.name} fails a ${kind}: ${outcome}`);
    // A flush may still have to tell that an only copy's disk had failed.
    if (outcome === 'EIO' && kind !== 'clientFlush' && this.isHealthy && !this.#haveBothFailed()) {
      this.world.violation('needless-error', `${node.name} fails a ${kind} though both copies are fine`);
    }
  }

  /** Single operations of both disks, one of which may have been to help the other. */
  #haveBothFailed(): boolean {
    const sinceMs = this.world.nowMs - 5000;
    return this.nodes.every((node) => (this.#failedMs.get(node) ?? -Infinity) >= sinceMs);
  }

  describe(): string {
    return this.nodes.map((node) => node.describe()).join(' | ');
  }
}

export function freshSuperblock(prng: Prng, sizeBytes: number): SimMetadata['superblock'] {
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
