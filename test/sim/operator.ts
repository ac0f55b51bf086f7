/**
 * The operator, who keeps the service going as a careful one would, and now and then a careless one. What is done stays
 * within rules under which it is clear what a client may expect (cluster.ts, expectations.ts).
 */
import type { Command } from '../../replicator/core/command.ts';
import type { Cluster } from './cluster.ts';
import { isDecisionDue } from './generation-watch.ts';
import type { Prng } from './prng.ts';
import type { SimNode } from './sim-node.ts';

const superviseMs = 250;

export class Operator {
  readonly #cluster: Cluster;
  readonly #prng: Prng;
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
  /** Not to be started. */
  #left: SimNode | null = null;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#prng = cluster.world.prng.fork();
  }

  start(): void {
    this.#supervise();
  }

  /** No more carelessness; all nodes are to run and to find each other. */
  putRight(): void {
    this.#running = false;
    this.#held.clear();
    for (const node of this.#cluster.nodes) {
      node.start();
      node.command({ kind: 'connect', discardMyData: false, dryRun: false });
      node.command({ kind: 'resync', action: 'resume' });
    }
  }

  /** The node's disk is not to be attached yet. */
  hold(node: SimNode, isHeld: boolean): void {
    if (isHeld) this.#held.add(node);
    else this.#held.delete(node);
  }

  /** The node is not to be started, until another one (or none) is said not to. */
  leave(node: SimNode | null): void {
    this.#left = node;
  }

  // Keeping the service going.

  #supervise(): void {
    this.#cluster.world.after(superviseMs, () => {
      this.#cluster.checkAlways();
      this.#cluster.settle();
      this.#attachDisks();
      if (!this.#running) this.#bringTogether();
      if (this.#isDecisionDue()) this.#resolve();
      else this.#findPrimary();
      this.#supervise();
    });
  }

  #isDecisionDue(): boolean {
    return this.#cluster.nodes.some((node) => isDecisionDue(node.status()));
  }

  /** An order given before may have been carried out only now: nothing is to stay apart. */
  #bringTogether(): void {
    for (const node of this.#cluster.nodes) {
      if (node !== this.#left) node.start();
      if (node.status()?.peer?.connection === 'StandAlone' && !isDecisionDue(node.status()))
        this.order(node, { kind: 'connect', discardMyData: false, dryRun: false });
    }
  }

  #attachDisks(): void {
    for (const node of this.#cluster.nodes) {
      const disk = node.status()?.diskState;
      const isOut = disk === 'Diskless' || disk === 'Failed';
      if (isOut && !node.disk.isFailing && !this.#held.has(node)) this.order(node, { kind: 'attach' });
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
      if (hasDisk(primary) && this.#prng.chance(0.5)) this.force(primary);
      else this.order(primary, { kind: 'demote', force: true, dryRun: false });
      return;
    }
    this.#idleSinceMs ??= nowMs;
    if (nowMs - this.#idleSinceMs < 500) return;
    const up = cluster.nodes.filter((node) => node.isResponding);
    if (up.length === 0) return;
    const node = this.#prng.pick(up);
    node.command({ kind: 'promote', force: false, dryRun: false }, (result) => {
      if (result === 'gone' || result.ok) return;
      const { code } = result.refusal;
      cluster.world.trace(() => `${node.name} refuses to be promoted: ${code}`);
      if (code !== 'peer-may-be-primary' && code !== 'not-up-to-date') return;
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
    if (way === 0) this.order(primary, { kind: 'demote', force: true, dryRun: false });
    else if (way === 1) primary.allowAlone();
    else this.order(primary, { kind: 'promote', force: true, dryRun: false });
  }

  /** The other node cannot be asked. A careful operator forces only what has all the data; a careless one does not look. */
  #considerForce(node: SimNode, idleMs: number): void {
    const cluster = this.#cluster;
    const other = cluster.otherOf(node);
    if (cluster.swapped === node) return;
    const missing = cluster.firstMissing(node);
    if (missing !== null) {
      const lacked = this.#unexcused(node, missing);
      if (lacked !== null && cluster.isOnlyFaultDeathOf(other)) {
        cluster.world.violation(
          'survivor',
          `${other.name} died, and ${node.name} lacks sector ${lacked}: ${cluster.expectations.explain(lacked)}`,
        );
      }
      if (!this.#running || this.#prng.chance(0.9)) return;
    }
    // While both are up, they are given time to find each other.
    if (other.isResponding && idleMs < 5000) return;
    this.force(node);
  }

  /** Of what a node lacks when nothing but the other one's death has happened: a sector that it has to have, or null. */
  #unexcused(node: SimNode, missing: number): number | null {
    const cluster = this.#cluster;
    // Under protocol B it may have arrived and be on its way to the disk.
    if (cluster.protocol === 'B' && !node.disk.isIdle) return null;
    // Under protocol A, what the other one has acknowledged since it goes on is on its way only, but for what was flushed.
    if (cluster.protocol === 'A' && cluster.otherOf(node).isResponding)
      return cluster.expectations.firstDurableMissing(node.disk.visible);
    return missing;
  }

  #resolve(): void {
    if (this.#resolving) return;
    this.#resolving = true;
    const cluster = this.#cluster;
    this.#later(1000, () => {
      this.#resolving = false;
      const [a, b] = cluster.nodes;
      if (!a.isResponding || !b.isResponding || !this.#isDecisionDue()) return;
      const whole = cluster.nodes.find((node) => cluster.firstMissing(node) === null);
      const survivor =
        cluster.swapped === null ? (cluster.client.node ?? whole ?? a) : cluster.otherOf(cluster.swapped);
      const victim = cluster.otherOf(survivor);
      cluster.world.trace(() => `-- split brain: ${survivor.name} is to survive`);
      this.order(victim, { kind: 'demote', force: true, dryRun: false });
      this.#later(500, () => {
        // What was decided about one disk does not hold for another.
        if (cluster.swapped === survivor || !this.#isDecisionDue()) return;
        // A failed flush may have cost the survivor what it had when it was chosen by force: that is given up as well.
        if (cluster.firstMissing(survivor) !== null) cluster.expectations.loseEverything();
        cluster.discard();
        this.order(victim, { kind: 'connect', discardMyData: true, dryRun: false });
        this.order(survivor, { kind: 'connect', discardMyData: false, dryRun: false });
      });
    });
  }

  // Means.

  force(node: SimNode): void {
    const cluster = this.#cluster;
    if (cluster.swapped === node) return;
    // However careless, nobody takes a new disk for the data of a pair that has some.
    const isNew = (which: SimNode): boolean => which.metadata.superblock.origin !== 'settled';
    if (isNew(node) && !isNew(cluster.otherOf(node))) return;
    const other = cluster.otherOf(node);
    const isUnseen = other.isFrozen && cluster.isOnlyFaultDeathOf(other);
    cluster.note('operator', node);
    cluster.forced = true;
    const isMissing = cluster.firstMissing(node) !== null;
    if (isMissing || other.isUp) cluster.split = true;
    const { node: attached } = cluster.client;
    if (isMissing && (attached === null || attached === node)) cluster.expectations.loseEverything();
    node.command({ kind: 'promote', force: true, dryRun: false }, (result) => {
      if (result === 'gone' || !result.ok) return;
      if (isUnseen) cluster.onTakenOver(other);
      // Clients of a Primary that stands still give up on it, sooner or later.
      if (other.isFrozen) this.#later(3000, () => cluster.client.moveTo(node));
    });
  }

  connect(node: SimNode): void {
    for (const one of [node, this.#cluster.otherOf(node)]) {
      if (one.status()?.splitBrain === false)
        this.order(one, { kind: 'connect', discardMyData: false, dryRun: false });
    }
  }

  /** A command after which a copy may be incomplete. */
  risky(node: SimNode, command: Command): void {
    this.#cluster.note('operator', null);
    this.order(node, command);
  }

  order(node: SimNode, command: Command): void {
    if (!node.isUp) return;
    node.command(command, (result) => {
      if (result !== 'gone' && !result.ok) {
        this.#cluster.world.trace(() => `${node.name} refuses ${command.kind}: ${result.refusal.code}`);
      }
    });
  }

  #later(maxMs: number, run: () => void): void {
    this.#cluster.world.after(this.#prng.between(1, maxMs), run);
  }
}

function hasDisk(node: SimNode): boolean {
  const disk = node.status()?.diskState;
  return disk !== 'Diskless' && disk !== 'Failed';
}

function isWithoutData(node: SimNode): boolean {
  return node.status()?.suspended.includes('no-data') === true;
}
