/** One simulated history from one seed: a time of faults, then everything is put right, and all must end well. */
import {
  afterSb0priWords,
  afterSb1priWords,
  afterSb2priWords,
  alwaysDisconnect,
} from '../../replicator/core/after-split-brain.ts';
import { Core } from '../../replicator/core/core.ts';
import { Cluster } from './cluster.ts';
import type { ClusterOptions } from './cluster.ts';
import { checkIdentical } from './checkers.ts';
import { actions, Operator } from './operator.ts';
import type { OperatorOptions } from './operator.ts';
import { Prng } from './prng.ts';
import type { MakeCore } from './sim-node.ts';
import { World } from './world.ts';

export interface HistoryOptions {
  /** Gets a line for whatever happens. */
  readonly trace?: (line: string) => void;
  /** Instead of the real core: to see that the checkers notice a bad one. */
  readonly makeCore?: MakeCore;
}

export interface HistoryResult {
  readonly seed: bigint;
  /** What went wrong, null if nothing. */
  readonly failure: string | null;
  /** Client requests answered. */
  readonly requests: number;
  readonly simulatedMs: number;
}

const mebibyte = 1024 * 1024;
/** After the last fault, everything has to be well again within this time. */
const settleMsMax = 120_000;

export function runHistory(seed: bigint, options: HistoryOptions = {}): HistoryResult {
  const world = new World(seed, options.trace ?? null);
  const makeCore: MakeCore = options.makeCore ?? ((core, ids) => new Core(core, ids));
  const plan = withPolicies(
    planHistory(new Prng(seed ^ 0x5eedn), planPolicy(seed)),
    new Prng(seed ^ 0x5b5bn),
  );
  world.trace(() => `plan: ${JSON.stringify(plan)}`);
  const cluster = new Cluster(world, plan.cluster, makeCore);
  const operator = new Operator(cluster, plan.operator);
  cluster.start();
  operator.start();
  scheduleGrowth(cluster, new Prng(seed ^ 0x6702n), plan.faultsMs);
  world.run(plan.faultsMs);
  if (world.violations.length === 0) settle(cluster, operator);
  return {
    seed,
    failure: world.violations[0] ?? null,
    requests: cluster.client.answered,
    simulatedMs: world.nowMs,
  };
}

function settle(cluster: Cluster, operator: Operator): void {
  const { world, client, nodes } = cluster;
  world.trace(() => '-- everything is put right');
  operator.putRight();
  const untilMs = world.nowMs + settleMsMax;
  const isServed = (): boolean => cluster.isHealthy && nodes.some((node) => node.isServing);
  world.run(untilMs, isServed);
  // The client goes on for a while after all is well.
  world.run(world.nowMs + 500);
  client.stop();
  world.run(untilMs, () => client.isIdle && isServed());
  if (world.violations.length > 0) return;
  if (!client.isIdle) return world.violation(`a request never ends: ${cluster.describe()}`);
  if (!isServed()) return world.violation(`it never gets well: ${cluster.describe()}`);
  world.run(world.nowMs + 1000);
  if (world.violations.length > 0) return;
  cluster.checkAlways();
  checkIdentical(cluster);
  if (nodes[0].status()?.sizeBytes !== nodes[1].status()?.sizeBytes)
    world.violation(`well, but of different sizes: ${cluster.describe()}`);
  if (nodes.some((node) => node.status()?.peer?.outOfSyncBytes !== 0)) {
    world.violation(`well, but something is out of sync: ${cluster.describe()}`);
  }
  const [a, b] = nodes.map((node) => node.metadata.superblock.current);
  if (a !== b) world.violation(`well, but of different generations: ${cluster.describe()}`);
  const server = nodes.find((node) => node.isServing);
  if (server === undefined) return world.violation('nobody serves in the end');
  let verified = false;
  client.verify(server, () => (verified = true));
  world.run(world.nowMs + 10_000, () => verified);
  if (!verified && world.violations.length === 0) world.violation('the last reads never end');
}

/** In some histories the device grows, whatever else is going on; a chance of its own leaves all others as they were. */
function scheduleGrowth(cluster: Cluster, prng: Prng, untilMs: number): void {
  const { world, network, nodes } = cluster;
  if (!prng.chance(0.25)) return;
  const count = prng.between(1, 6);
  for (let i = 0; i < count; i++) {
    const node = prng.pick(nodes);
    const moreBytes = prng.between(1, 2000) * 4096;
    const fault = prng.pick(['kill', 'link', 'none'] as const);
    const [victim, faultMs, repairMs] = [prng.pick(nodes), prng.int(200), prng.int(500)];
    world.after(prng.int(untilMs), () => {
      const sizeBytes = (node.status()?.sizeBytes ?? 0) + moreBytes;
      world.trace(() => `-- ${node.name} is to grow to ${sizeBytes} bytes`);
      node.command({ kind: 'resize', sizeBytes });
      if (fault === 'none') return;
      // In the middle of it, more often than chance would have it.
      world.after(faultMs, () => {
        if (fault === 'kill') return cluster.kill(victim);
        if (network.isCut) return;
        cluster.note('link', null);
        network.cut('reset');
      });
      world.after(faultMs + repairMs, () => (fault === 'kill' ? victim.start() : network.heal()));
    });
  }
}

interface Plan {
  readonly faultsMs: number;
  readonly cluster: ClusterOptions;
  readonly operator: OperatorOptions;
}

/** Drawn apart from the rest, so that seeds keep their histories. */
function planPolicy(seed: bigint): 'continue' | 'suspend' {
  return new Prng(seed ^ 0x9011c7n).chance(0.15) ? 'suspend' : 'continue';
}

/** Each history has some faults and not others, so that rare ones get room. */
function planHistory(prng: Prng, onPeerLoss: 'continue' | 'suspend'): Plan {
  const some = actions.filter((action) => prng.chance(action === 'split' ? 0.15 : 0.45));
  return {
    faultsMs: prng.between(5_000, 30_000),
    cluster: {
      sizeBytes: prng.pick([6, 20, 36, 64]) * mebibyte,
      networkDelayMs: prng.pick([0.2, 2, 20]),
      diskLatencyMs: prng.pick([0.5, 5, 30]),
      metadataDelayMs: prng.pick([1, 10, 60]),
      core: {
        protocol: 'C',
        activityLogExtents: prng.pick([7, 10, 1237]),
        onPeerLoss,
        ...alwaysDisconnect,
        noDataTimeoutMs: 3_000,
        pingIntervalMs: 200,
        peerTimeoutMs: 1_000,
        ackTimeoutMs: 5_000,
        handshakeTimeoutMs: 2_000,
        resyncWindowBytes: prng.pick([256 * 1024, 2 * mebibyte]),
        resyncWindowBusyBytes: 128 * 1024,
        checksumResync: prng.pick(['always', 'after-crash', 'never']),
      },
      client: {
        workers: prng.between(1, 6),
        thinkMs: prng.pick([10, 60, 300]),
        hotSpots: prng.between(1, 8),
        hugeTrims: prng.chance(0.3),
      },
    },
    operator: {
      actions: some,
      intervalMs: prng.pick([300, 1500, 5000]),
      repairMs: prng.pick([300, 2000, 6000]),
    },
  };
}

/** In some histories a split brain is settled by policy; drawn apart, so that the rest of the plan stays what it was. */
function withPolicies(plan: Plan, prng: Prng): Plan {
  if (!prng.chance(0.2)) return plan;
  const policies = {
    'after-sb-0pri': prng.pick([...afterSb0priWords, 'discard-node-alpha', 'discard-node-beta'] as const),
    'after-sb-1pri': prng.pick(afterSb1priWords),
    'after-sb-2pri': prng.pick(afterSb2priWords),
  };
  const operator = { ...plan.operator, actions: [...new Set([...plan.operator.actions, 'split' as const])] };
  return { ...plan, operator, cluster: { ...plan.cluster, core: { ...plan.cluster.core, ...policies } } };
}
