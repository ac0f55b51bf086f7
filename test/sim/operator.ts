/**
 * Fate and the operator: breaks things at random, brings them back, and keeps the service going as a careful operator
 * would. What it does stays within rules under which it is clear what a client may expect (cluster.ts, expectations.ts).
 */
import type { Command } from '../../replicator/core/command.ts';
import type { Cluster } from './cluster.ts';
import type { Prng } from './prng.ts';
import type { Cut } from './sim-network.ts';
import type { SimNode } from './sim-node.ts';

export const actions = [
  'cut',
  'kill',
  'power',
  'power-both',
  'disk',
  'disconnect',
  'detach',
  'failover',
  'demote',
  'invalidate',
  'pause',
  'verify',
  'restart',
  'split',
  'move-client',
  'dry-run',
] as const;
export type Action = (typeof actions)[number];

export interface OperatorOptions {
  /** What may happen in this history. */
  readonly actions: readonly Action[];
  /** Between two actions, at most. */
  readonly intervalMs: number;
  /** Until what was broken is put right, at most. */
  readonly repairMs: number;
}

const superviseMs = 250;

export class Operator {
  readonly #cluster: Cluster;
  readonly #prng: Prng;
  readonly #options: OperatorOptions;
  #running = true;
  /** Since when no node serves. */
  #idleSinceMs: number | null = null;
  /** Since when the Primary has had no good data in reach. */
  #withoutDataSinceMs: number | null = null;
  /** Since when the Primary has waited for a word. */
  #suspendedSinceMs: number | null = null;
  #resolving = false;
  /** Nodes that are to stay as they are until their repair is due. */
  readonly #held = new Set<SimNode>();

  constructor(cluster: Cluster, options: OperatorOptions) {
    this.#cluster = cluster;
    this.#prng = cluster.world.prng.fork();
    this.#options = options;
  }

  start(): void {
    this.#supervise();
    if (this.#options.actions.length > 0) this.#later(2000, () => this.#act());
  }

  /** Nothing breaks any more, and all that is broken is put right now. */
  putRight(): void {
    this.#running = false;
    const { network, nodes } = this.#cluster;
    network.heal();
    for (const node of nodes) {
      this.#held.delete(node);
      this.#cluster.repairDisk(node);
      node.start();
      node.command({ kind: 'connect', discardMyData: false, dryRun: false });
      node.command({ kind: 'resync', action: 'resume' });
    }
  }

  // Breaking things.

  #act(): void {
    if (!this.#running) return;
    const action = this.#prng.pick(this.#options.actions);
    this.#cluster.world.trace(() => `-- ${action}; ${this.#cluster.describe()}`);
    this.#do(action, this.#prng.pick(this.#cluster.nodes));
    this.#later(this.#options.intervalMs, () => this.#act());
  }

  #do(action: Action, node: SimNode): void {
    const cluster = this.#cluster;
    switch (action) {
      case 'cut':
        return this.#cut();
      case 'kill':
        cluster.kill(node);
        return this.#startLater(node);
      case 'power':
        cluster.powerCut(node);
        return this.#startLater(node);
      case 'power-both':
        for (const one of cluster.nodes) {
          cluster.powerCut(one);
          this.#startLater(one);
        }
        return;
      case 'disk':
        return this.#failDisk(node);
      case 'disconnect':
        this.#command(node, { kind: 'disconnect' });
        return this.#repairLater(() => this.#connect(node));
      case 'detach':
        return this.#detach(node);
      case 'failover':
        return this.#failover(node);
      case 'demote':
        return this.#order(node, { kind: 'demote', force: this.#prng.chance(0.5), dryRun: false });
      case 'invalidate':
        return this.#command(node, {
          kind: 'resync',
          action: this.#prng.pick(['invalidate', 'invalidate-peer']),
        });
      case 'pause':
        this.#order(node, { kind: 'resync', action: 'pause' });
        return this.#repairLater(() => this.#order(node, { kind: 'resync', action: 'resume' }));
      case 'verify':
        return this.#order(node, { kind: 'verify', action: 'start', repair: true });
      case 'restart':
        return this.#restart(node);
      case 'split':
        return this.#split(node);
      case 'move-client':
        return cluster.client.moveTo(node);
      case 'dry-run':
        for (const kind of ['promote', 'demote', 'failover'] as const)
          this.#order(node, { kind, force: true, dryRun: true });
        return;
      default:
        return action satisfies never;
    }
  }

  #cut(): void {
    const { network } = this.#cluster;
    if (network.isCut) return;
    this.#cluster.note('link', null);
    network.cut(this.#prng.pick<Cut>(['stall', 'reset', 'one-way']));
    this.#repairLater(() => {
      this.#cluster.world.trace(() => '-- the network is whole');
      network.heal();
    });
  }

  #failDisk(node: SimNode): void {
    if (node.disk.isFailing || (!this.#cluster.isHealthy && this.#prng.chance(0.8))) return;
    this.#cluster.failDisk(node);
    this.#held.add(node);
    this.#repairLater(() => {
      this.#cluster.repairDisk(node);
      this.#held.delete(node);
    });
  }

  /** Without a peer to take over from, a forced failover is a forced promotion: that is for `#considerForce`. */
  #failover(node: SimNode): void {
    const isConnected = node.status()?.peer?.replication === 'Established';
    this.#order(node, { kind: 'failover', force: isConnected && this.#prng.chance(0.5), dryRun: false });
  }

  #detach(node: SimNode): void {
    this.#held.add(node);
    this.#command(node, { kind: 'detach', force: false });
    this.#repairLater(() => this.#held.delete(node));
  }

  #restart(node: SimNode): void {
    if (!node.isUp) return;
    this.#command(node, { kind: 'stop' });
    this.#startLater(node);
  }

  /** Makes a node Primary while the other one may be alive and Primary: what no operator should do. */
  #split(node: SimNode): void {
    const cluster = this.#cluster;
    const status = node.status();
    if (status === null || status.role === 'Primary' || status.peer?.connection === 'Connected') return;
    this.#force(node);
    if (this.#prng.chance(0.5)) this.#later(1000, () => cluster.client.moveTo(node));
  }

  #force(node: SimNode): void {
    const cluster = this.#cluster;
    cluster.note('operator', node);
    cluster.forced = true;
    const isMissing = cluster.firstMissing(node) !== null;
    if (isMissing || cluster.otherOf(node).isUp) cluster.split = true;
    const { node: attached } = cluster.client;
    if (isMissing && (attached === null || attached === node)) cluster.expectations.loseEverything();
    this.#order(node, { kind: 'promote', force: true, dryRun: false });
  }

  // Keeping the service going.

  #supervise(): void {
    this.#cluster.world.after(superviseMs, () => {
      this.#cluster.checkAlways();
      this.#cluster.settle();
      this.#attachDisks();
      if (!this.#running) for (const node of this.#cluster.nodes) node.start();
      if (this.#cluster.nodes.some(needsDecision)) this.#resolve();
      else this.#findPrimary();
      this.#supervise();
    });
  }

  #attachDisks(): void {
    for (const node of this.#cluster.nodes) {
      const disk = node.status()?.diskState;
      const isOut = disk === 'Diskless' || disk === 'Failed';
      if (isOut && !node.disk.isFailing && !this.#held.has(node)) this.#order(node, { kind: 'attach' });
    }
  }

  #findPrimary(): void {
    const cluster = this.#cluster;
    const { nowMs } = cluster.world;
    const primary = cluster.nodes.find((node) => node.status()?.role === 'Primary');
    if (primary === undefined || !isWithoutData(primary)) this.#withoutDataSinceMs = null;
    if (primary !== undefined) {
      this.#idleSinceMs = null;
      this.#considerWord(primary);
      // Both disks outdated each other: what is left is to choose one by force.
      if (!isWithoutData(primary)) return;
      this.#withoutDataSinceMs ??= nowMs;
      if (nowMs - this.#withoutDataSinceMs <= 10_000) return;
      if (hasDisk(primary) && this.#prng.chance(0.5)) this.#force(primary);
      else this.#order(primary, { kind: 'demote', force: true, dryRun: false });
      return;
    }
    this.#idleSinceMs ??= nowMs;
    if (nowMs - this.#idleSinceMs < 500) return;
    const up = cluster.nodes.filter((node) => node.isUp);
    if (up.length === 0) return;
    const node = this.#prng.pick(up);
    node.command({ kind: 'promote', force: false, dryRun: false }, (result) => {
      if (result === 'gone' || result.ok) return;
      cluster.world.trace(() => `${node.name} refuses to be promoted: ${result.refusal.code}`);
      cluster.world.after(0, () => this.#considerForce(node, nowMs - (this.#idleSinceMs ?? nowMs)));
    });
  }

  /** A suspended Primary is told to go on alone after a while, by force or by another policy, or is given up. */
  #considerWord(primary: SimNode): void {
    const { nowMs } = this.#cluster.world;
    if (primary.status()?.suspended.includes('policy') !== true) {
      this.#suspendedSinceMs = null;
      return;
    }
    this.#suspendedSinceMs ??= nowMs;
    if (nowMs - this.#suspendedSinceMs < 3000 || this.#prng.chance(0.8)) return;
    const way = this.#prng.int(4);
    if (way === 0) this.#order(primary, { kind: 'demote', force: true, dryRun: false });
    else if (way === 1) primary.allowAlone();
    else this.#order(primary, { kind: 'promote', force: true, dryRun: false });
  }

  /** The other node cannot be asked. A careful operator forces only what has all the data; a careless one does not look. */
  #considerForce(node: SimNode, idleMs: number): void {
    const cluster = this.#cluster;
    const other = cluster.otherOf(node);
    const missing = cluster.firstMissing(node);
    if (missing !== null) {
      if (cluster.isOnlyFaultDeathOf(other)) {
        cluster.world.violation(
          `${other.name} died, and ${node.name} lacks sector ${missing}: ${cluster.expectations.explain(missing)}`,
        );
      }
      if (!this.#running || this.#prng.chance(0.9)) return;
    }
    // While both are up, they are given time to find each other.
    if (other.isUp && idleMs < 5000) return;
    this.#force(node);
  }

  #resolve(): void {
    if (this.#resolving) return;
    this.#resolving = true;
    const cluster = this.#cluster;
    this.#later(1000, () => {
      this.#resolving = false;
      const [a, b] = cluster.nodes;
      if (!a.isUp || !b.isUp) return;
      const survivor =
        cluster.client.node ?? cluster.nodes.find((node) => cluster.firstMissing(node) === null) ?? a;
      const victim = cluster.otherOf(survivor);
      cluster.world.trace(() => `-- split brain: ${survivor.name} is to survive`);
      this.#order(victim, { kind: 'demote', force: true, dryRun: false });
      this.#later(500, () => {
        this.#order(victim, { kind: 'connect', discardMyData: true, dryRun: false });
        this.#order(survivor, { kind: 'connect', discardMyData: false, dryRun: false });
      });
    });
  }

  // Means.

  #connect(node: SimNode): void {
    for (const one of [node, this.#cluster.otherOf(node)]) {
      if (one.status()?.splitBrain === false)
        this.#order(one, { kind: 'connect', discardMyData: false, dryRun: false });
    }
  }

  /** A command after which a copy may be incomplete. */
  #command(node: SimNode, command: Command): void {
    this.#cluster.note('operator', null);
    this.#order(node, command);
  }

  #order(node: SimNode, command: Command): void {
    if (!node.isUp) return;
    node.command(command, (result) => {
      if (result !== 'gone' && !result.ok) {
        this.#cluster.world.trace(() => `${node.name} refuses ${command.kind}: ${result.refusal.code}`);
      }
    });
  }

  #startLater(node: SimNode): void {
    this.#repairLater(() => node.start());
  }

  #repairLater(run: () => void): void {
    this.#later(this.#options.repairMs, () => {
      if (this.#running) run();
    });
  }

  #later(maxMs: number, run: () => void): void {
    this.#cluster.world.after(this.#prng.between(1, maxMs), run);
  }
}

/** Split brain, or data that has nothing in common: an operator has to say which copy is to go. */
function needsDecision(node: SimNode): boolean {
  const status = node.status();
  if (status === null) return false;
  const isUnrelated =
    status.peer?.connection === 'StandAlone' && status.peer.lastError?.includes('unrelated') === true;
  return status.splitBrain || isUnrelated;
}

function hasDisk(node: SimNode): boolean {
  const disk = node.status()?.diskState;
  return disk !== 'Diskless' && disk !== 'Failed';
}

function isWithoutData(node: SimNode): boolean {
  return node.status()?.suspended.includes('no-data') === true;
}
