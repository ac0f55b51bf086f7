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
import { checkEmpty, checkIdentical, isEmpty } from './checkers.ts';
import { actions, Operator } from './operator.ts';
import type { OperatorOptions } from './operator.ts';
import { Prng } from './prng.ts';
import type { MakeCore, SimNode } from './sim-node.ts';
import { World } from './world.ts';
import type { Checker } from './world.ts';

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
  /** What noticed. */
  readonly checker: Checker | null;
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
  world.run(plan.faultsMs);
  if (world.violations.length === 0) settle(cluster, operator);
  return {
    seed,
    failure: world.violations[0]?.message ?? null,
    checker: world.violations[0]?.checker ?? null,
    requests: cluster.client.answered,
    simulatedMs: world.nowMs,
  };
}

function settle(cluster: Cluster, operator: Operator): void {
  const { world, client, nodes } = cluster;
  world.trace(() => '-- everything is put right');
  operator.putRight();
  const untilMs = world.nowMs + settleMsMax;
  const isServed = (): boolean =>
    cluster.isHealthy &&
    nodes.some((node) => node.isServing) &&
    // A command of before may have to wait for the disk, and then disturb what was well.
    nodes.every((node) => node.commandsUnderWay === 0);
  world.run(untilMs, isServed, 10);
  // The client goes on for a while after all is well.
  world.run(world.nowMs + 500);
  client.stop();
  world.run(untilMs, () => client.isIdle && isServed(), 10);
  if (world.violations.length > 0) return;
  if (!client.isIdle) return world.violation('liveness', `a request never ends: ${cluster.describe()}`);
  if (!isServed()) return world.violation('liveness', `it never gets well: ${cluster.describe()}`);
  world.run(world.nowMs + 1000);
  // What an ended session had asked of a slow disk is still to come back.
  world.run(world.nowMs + 10_000, () => isEmpty(cluster), 10);
  if (world.violations.length > 0) return;
  cluster.checkAlways();
  checkIdentical(cluster);
  checkEmpty(cluster);
  if (nodes.some((node) => node.status()?.peer?.outOfSyncBytes !== 0)) {
    world.violation('identical', `well, but something is out of sync: ${cluster.describe()}`);
  }
  const [a, b] = nodes.map((node) => node.metadata.superblock.current);
  if (a !== b) world.violation('identical', `well, but of different generations: ${cluster.describe()}`);
  const server = nodes.find((node) => node.isServing);
  if (server === undefined) return world.violation('liveness', 'nobody serves in the end');
  verifyOnline(cluster, server);
  let verified = false;
  client.verify(server, () => (verified = true));
  world.run(world.nowMs + 10_000, () => verified);
  if (!verified && world.violations.length === 0) world.violation('liveness', 'the last reads never end');
}

/** Finds what a disk has done wrong, exactly that, and mends it: which copy was right, nothing can tell. */
function verifyOnline(cluster: Cluster, node: SimNode): void {
  const { world, differences } = cluster;
  const differing = differences.shown('all').length;
  if (differing === 0 && world.seed % 8n !== 0n) return;
  cluster.verified = null;
  node.command({ kind: 'verify', action: 'start', repair: true });
  world.run(world.nowMs + settleMsMax, () => cluster.verified !== null);
  if (world.violations.length > 0) return;
  if (cluster.verified !== differing)
    return world.violation('verify', `verify finds ${cluster.verified} blocks, but ${differing} differ`);
  world.run(world.nowMs + settleMsMax, () => cluster.isHealthy && differences.shown('all').length === 0, 100);
  if (world.violations.length === 0 && differences.shown('all').length > 0)
    world.violation('verify', 'what verify has found is not copied again');
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
  const some = actions.filter((action) =>
    prng.chance(action === 'split' || action === 'misdirect' ? 0.15 : 0.45),
  );
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
