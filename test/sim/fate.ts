/**
 * Fate: breaks things at random, and puts each right again after a while. Whatever it does has an index and draws from a
 * stream of its own, so that a shorter history can leave single faults out and keep the others as they were.
 */
import type { Cluster } from './cluster.ts';
import { DiskSwaps } from './disk-swaps.ts';
import type { Operator } from './operator.ts';
import type { Prng } from './prng.ts';
import type { Cut } from './sim-network.ts';
import type { SimNode } from './sim-node.ts';
import type { Tampering } from './sim-wire.ts';
import { makeTrouble } from './troubles.ts';

export const actions = [
  'cut',
  'slow-link',
  'lose-probes',
  'corrupt',
  'kill',
  'kill-in-step',
  'power',
  'power-in-step',
  'power-both',
  'freeze',
  'clock-jump',
  'disk',
  'disk-both',
  'trouble',
  'misdirect',
  'disconnect',
  'detach',
  'detach-both',
  'failover',
  'demote',
  'contend',
  'invalidate',
  'pause',
  'verify',
  'restart',
  'split',
  'move-client',
  'dry-run',
  'new-disk',
  'foreign-disk',
  'old-disk',
  'claim-primary',
  'grow',
  'die-answering',
] as const;
export type Action = (typeof actions)[number];

export interface FateOptions {
  /** What may happen in this history. */
  readonly actions: readonly Action[];
  /** Between two actions, at most. */
  readonly intervalMs: number;
  /** Until what was broken is put right, at most. */
  readonly repairMs: number;
  /** Indices of the faults to inject, all others being left out; null for all. */
  readonly keep: ReadonlySet<number> | null;
}

/** A fault as it was injected. */
export interface InjectedFault {
  readonly index: number;
  readonly kind: Action;
  readonly atMs: number;
}

export class Fate {
  readonly injected: InjectedFault[] = [];
  readonly #cluster: Cluster;
  /** When clocks last jumped: a core hears of it with its next tick. */
  readonly #jumpedMs = new Map<SimNode, number>();
  readonly #operator: Operator;
  readonly #prng: Prng;
  readonly #options: FateOptions;
  readonly #swaps: DiskSwaps;
  #running = true;

  constructor(cluster: Cluster, operator: Operator, options: FateOptions) {
    this.#cluster = cluster;
    this.#operator = operator;
    this.#prng = cluster.world.prng.fork();
    this.#options = options;
    this.#swaps = new DiskSwaps(cluster);
  }

  start(): void {
    if (this.#options.actions.length > 0) this.#next(0, 2000);
  }

  /** Nothing breaks any more, and all that is broken is put right now. */
  putRight(): void {
    this.#running = false;
    const { network, nodes } = this.#cluster;
    network.heal();
    for (const node of nodes) {
      node.dieInStep(null);
      node.thaw();
      this.#cluster.repairDisk(node);
    }
    this.#operator.putRight();
  }

  #next(index: number, maxMs: number): void {
    const { world } = this.#cluster;
    const fault = this.#prng.fork();
    world.after(this.#prng.between(1, maxMs), () => {
      if (!this.#running) return;
      const action = fault.pick(this.#options.actions);
      if (this.#options.keep?.has(index) !== false) {
        world.trace(() => `-- fault ${index}: ${action}; ${this.#cluster.describe()}`);
        this.injected.push({ index, kind: action, atMs: Math.round(world.nowMs) });
        this.#cluster.coverage.fault(action);
        this.#do(action, fault.pick(this.#cluster.nodes), fault);
      }
      this.#next(index + 1, this.#options.intervalMs);
    });
  }

  #do(action: Action, node: SimNode, prng: Prng): void {
    const cluster = this.#cluster;
    const { network } = cluster;
    switch (action) {
      case 'cut':
        return this.#cut(prng);
      case 'slow-link':
        return this.#slowLink(prng);
      case 'lose-probes':
        network.loseProbes(true);
        return this.#repairLater(prng, () => network.loseProbes(false));
      case 'corrupt':
        cluster.note('link', null);
        return network.tamperWithNext(prng.pick<Tampering>(['flip', 'flip', 'truncate', 'duplicate']));
      case 'kill':
        cluster.kill(node);
        return this.#startLater(node, prng);
      case 'kill-in-step':
      case 'power-in-step':
        node.dieInStep(action === 'kill-in-step' ? 'kill' : 'power');
        return cluster.world.after(prng.between(1000, 4000), () => this.#startLater(node, prng));
      case 'power':
        cluster.powerCut(node);
        return this.#startLater(node, prng);
      case 'power-both':
        for (const one of cluster.nodes) {
          cluster.powerCut(one);
          this.#startLater(one, prng);
        }
        return;
      case 'freeze':
        cluster.note('freeze', node);
        return node.freeze(prng.pick([100, 700, 1500, 4000, 20_000]) * (0.5 + prng.int(100) / 200));
      case 'clock-jump':
        cluster.note('clock', null);
        this.#jumpedMs.set(node, this.#cluster.world.nowMs);
        return node.jumpClock(prng.between(300, 8000));
      case 'disk':
        return this.#failDisk(node, prng);
      case 'disk-both':
        return this.#failBothDisks(prng);
      case 'trouble':
        cluster.note('link', null);
        return makeTrouble(cluster, node, prng);
      case 'misdirect':
        return node.disk.faults.misdirectNext();
      case 'disconnect':
        this.#operator.risky(node, { kind: 'disconnect' });
        return this.#repairLater(prng, () => this.#operator.connect(node));
      case 'detach':
        return this.#detach([node], false, prng);
      case 'detach-both':
        return this.#detach(cluster.nodes, true, prng);
      case 'failover':
        return this.#failover(node, prng);
      case 'demote':
        return this.#operator.order(node, { kind: 'demote', force: prng.chance(0.5), dryRun: false });
      case 'contend':
        return this.#contend(prng);
      case 'invalidate':
        return this.#operator.risky(node, {
          kind: 'resync',
          action: prng.pick(['invalidate', 'invalidate-peer']),
        });
      case 'pause':
        this.#operator.order(node, { kind: 'resync', action: 'pause' });
        return this.#repairLater(prng, () =>
          this.#operator.order(node, { kind: 'resync', action: 'resume' }),
        );
      case 'verify':
        return this.#operator.order(node, { kind: 'verify', action: 'start', repair: true });
      case 'restart':
        return this.#restart(node, prng);
      case 'split':
        return this.#split(node, prng);
      case 'move-client':
        return cluster.client.moveTo(node);
      case 'dry-run':
        for (const kind of ['promote', 'demote', 'failover'] as const)
          this.#operator.order(node, { kind, force: true, dryRun: true });
        return;
      case 'new-disk':
      case 'foreign-disk':
      case 'old-disk':
        if (this.#swaps.swap(action, node, prng)) this.#startLater(node, prng);
        return;
      case 'claim-primary':
        cluster.note('link', null);
        network.cut('reset');
        cluster.claimsPrimary = true;
        return this.#repairLater(prng, () => network.healCut());
      case 'grow':
        return this.#grow(node, prng);
      case 'die-answering':
        return this.#dieAnswering(prng);
      default:
        return action satisfies never;
    }
  }

  /** In the middle of it something happens, more often than chance would have it. */
  #grow(node: SimNode, prng: Prng): void {
    const cluster = this.#cluster;
    const sizeBytes = (node.status()?.sizeBytes ?? 0) + prng.between(1, 500) * 4096;
    const what = prng.pick(['cut', 'kill', 'nothing', 'nothing'] as const);
    cluster.world.trace(() => `-- ${node.name} is to grow to ${sizeBytes} bytes`);
    cluster.growingTo = sizeBytes;
    node.command({ kind: 'resize', sizeBytes }, () => undefined);
    const victim = prng.pick(cluster.nodes);
    cluster.world.after(prng.int(200), () => {
      if (!this.#running || what === 'nothing') return;
      if (what === 'cut') return this.#cut(prng);
      cluster.kill(victim);
      this.#startLater(victim, prng);
    });
  }

  /**
   * The Primary dies with a sign of life on its way, and just then the other node is told to take over: what it hears is older
   * than what it asks.
   */
  #dieAnswering(prng: Prng): void {
    const cluster = this.#cluster;
    const { world, network } = cluster;
    const primary = cluster.nodes.find(({ isServing }) => isServing);
    if (primary === undefined) return;
    const die = (): void => {
      if (!this.#running || !primary.isServing) return;
      cluster.powerCut(primary);
      this.#startLater(primary, prng);
      const { begun } = network;
      const heir = cluster.otherOf(primary);
      const askedMs = heir.clockMs();
      heir.command({ kind: 'promote', force: false, dryRun: false }, (result) => {
        if (result === 'gone' || result.ok || result.refusal.code !== 'peer-is-primary') return;
        // Later, by its own clock, it may have waited long enough, though that has only jumped.
        const isSteady = world.nowMs - (this.#jumpedMs.get(heir) ?? -Infinity) > 1000;
        if (network.begun === begun && isSteady && heir.clockMs() - askedMs < 500)
          world.violation('liveness', `${primary.name}, dead, stands in the way: ${cluster.describe()}`);
      });
    };
    cluster.whenAnswering = { node: primary, run: die };
  }

  #cut(prng: Prng): void {
    const { network } = this.#cluster;
    if (network.isCut) return;
    this.#cluster.note('link', null);
    network.cut(prng.pick<Cut>(['stall', 'reset', 'one-way']));
    this.#repairLater(prng, () => {
      this.#cluster.world.trace(() => '-- the network is whole');
      network.healCut();
    });
  }

  #slowLink(prng: Prng): void {
    const { network } = this.#cluster;
    this.#cluster.note('link', null);
    network.limit(prng.pick([30, 300, 3000]));
    this.#repairLater(prng, () => network.limit(null));
  }

  #failDisk(node: SimNode, prng: Prng): void {
    const cluster = this.#cluster;
    if (!node.disk.isFailing && (cluster.isHealthy || !prng.chance(0.8))) this.#loseDisk(node, prng);
  }

  #loseDisk(node: SimNode, prng: Prng): void {
    const cluster = this.#cluster;
    cluster.failDisk(node);
    this.#operator.hold(node, true);
    this.#repairLater(prng, () => {
      cluster.repairDisk(node);
      this.#operator.hold(node, false);
    });
  }

  /** Neither node can know that the other one's copy goes too. They come back at times of their own. */
  #failBothDisks(prng: Prng): void {
    const { nodes, isHealthy } = this.#cluster;
    if (!isHealthy) return;
    for (const node of nodes) this.#loseDisk(node, prng);
  }

  /** Without a peer to take over from, a forced failover is a forced promotion: that is for the operator to consider. */
  #failover(node: SimNode, prng: Prng): void {
    const isConnected = node.status()?.peer?.replication === 'Established';
    this.#operator.order(node, { kind: 'failover', force: isConnected && prng.chance(0.5), dryRun: false });
  }

  /** Whoever is Primary steps down, and both nodes are told to become it at about the same moment. */
  #contend(prng: Prng): void {
    const { nodes, world } = this.#cluster;
    for (const node of nodes) this.#operator.order(node, { kind: 'demote', force: true, dryRun: false });
    const inMs = prng.between(20, 450);
    for (const node of nodes) {
      world.after(inMs + prng.int(200) / 100, () =>
        this.#operator.order(node, { kind: 'promote', force: false, dryRun: false }),
      );
    }
  }

  #detach(nodes: readonly SimNode[], force: boolean, prng: Prng): void {
    const cluster = this.#cluster;
    // By force the last whole copy goes too, and with it what a lost peer had received and, under protocol B, not written.
    if (force && cluster.protocol !== 'C' && !cluster.isHealthy) cluster.expectations.loseUnflushed();
    for (const node of nodes) {
      this.#operator.hold(node, true);
      this.#operator.risky(node, { kind: 'detach', force });
    }
    this.#repairLater(prng, () => {
      for (const node of nodes) this.#operator.hold(node, false);
    });
  }

  #restart(node: SimNode, prng: Prng): void {
    if (!node.isUp) return;
    this.#operator.risky(node, { kind: 'stop' });
    this.#startLater(node, prng);
  }

  /** Makes a node Primary while the other one may be alive and Primary: what no operator should do. */
  #split(node: SimNode, prng: Prng): void {
    const cluster = this.#cluster;
    const status = node.status();
    if (status === null || status.role === 'Primary' || status.peer?.connection === 'Connected') return;
    this.#operator.force(node);
    if (prng.chance(0.5)) cluster.world.after(prng.between(1, 1000), () => cluster.client.moveTo(node));
  }

  #startLater(node: SimNode, prng: Prng): void {
    this.#repairLater(prng, () => {
      this.#swaps.remember(node);
      node.start();
    });
  }

  #repairLater(prng: Prng, run: () => void): void {
    this.#cluster.world.after(prng.between(1, this.#options.repairMs), () => {
      if (this.#running) run();
    });
  }
}
