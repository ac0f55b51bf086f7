/** One simulated history from one seed: a time of faults, then everything is put right, and all must end well. */
import { Core } from '../../replicator/core/core.ts';
import { checkEmpty, checkIdentical } from './checkers.ts';
import { Cluster } from './cluster.ts';
import { Coverage } from './coverage.ts';
import type { CoverageReport } from './coverage.ts';
import { Fate } from './fate.ts';
import type { InjectedFault } from './fate.ts';
import { runMismatch } from './mismatch.ts';
import { Operator } from './operator.ts';
import { planHistory, unshortened } from './plan.ts';
import type { Plan, Shortening } from './plan.ts';
import type { MakeCore } from './sim-node.ts';
import { World } from './world.ts';
import type { Violation } from './world.ts';

export interface HistoryOptions {
  /** Gets a line for whatever happens. */
  readonly trace?: (line: string) => void;
  /** Instead of the real core: to see that the checkers notice a bad one. */
  readonly makeCore?: MakeCore;
  /** Leaves out a part of what the seed makes. */
  readonly shortening?: Shortening;
  /** What the seed plans, changed: for tests that are after something certain. */
  readonly adapt?: (plan: Plan) => Plan;
}

/** What went wrong, and which of the things that watch noticed it. */
export type Failure = Violation;

export interface HistoryResult {
  readonly seed: bigint;
  readonly failure: Failure | null;
  /** Client requests answered. */
  readonly requests: number;
  readonly simulatedMs: number;
  /** In order of time; the indices are the seed's, whatever was left out. */
  readonly faults: readonly InjectedFault[];
  readonly coverage: CoverageReport;
}

/** After the last fault, everything has to be well again within this time. */
const settleMsMax = 120_000;

export function runHistory(seed: bigint, options: HistoryOptions = {}): HistoryResult {
  const world = new World(seed, options.trace ?? null);
  const makeCore: MakeCore = options.makeCore ?? ((core, ids) => new Core(core, ids));
  const planned = planHistory(seed, options.shortening ?? unshortened);
  const plan = options.adapt?.(planned) ?? planned;
  const coverage = new Coverage();
  world.trace(() => `plan: ${JSON.stringify({ ...plan, fate: { ...plan.fate, keep: undefined } })}`);
  const cluster = new Cluster(world, plan.cluster, makeCore, coverage);
  const operator = new Operator(cluster);
  const fate = new Fate(cluster, operator, plan.fate);
  if (plan.kind === 'mismatch') runMismatch(cluster);
  else runPair(cluster, operator, fate, plan.faultsMs);
  return {
    seed,
    failure: world.violations[0] ?? null,
    requests: cluster.client.answered,
    simulatedMs: world.nowMs,
    faults: fate.injected,
    coverage: coverage.report(),
  };
}

function runPair(cluster: Cluster, operator: Operator, fate: Fate, faultsMs: number): void {
  cluster.start();
  operator.start();
  fate.start();
  cluster.world.run(faultsMs);
  if (cluster.world.violations.length === 0) settle(cluster, fate);
}

function settle(cluster: Cluster, fate: Fate): void {
  const { world, client, nodes } = cluster;
  world.trace(() => '-- everything is put right');
  fate.putRight();
  const untilMs = world.nowMs + settleMsMax;
  const isServed = (): boolean => cluster.isHealthy && nodes.some((node) => node.isServing);
  world.run(untilMs, isServed, 10);
  // The client goes on for a while after all is well.
  world.run(world.nowMs + 500);
  client.stop();
  world.run(untilMs, () => client.isIdle && isServed(), 10);
  if (world.violations.length > 0) return;
  if (!client.isIdle) return world.violation('liveness', `a request never ends: ${cluster.describe()}`);
  if (!isServed()) return world.violation('liveness', `it never gets well: ${cluster.describe()}`);
  world.run(world.nowMs + 1000);
  if (world.violations.length > 0) return;
  cluster.checkAlways();
  checkIdentical(cluster);
  checkEmpty(cluster);
  if (nodes[0].status()?.sizeBytes !== nodes[1].status()?.sizeBytes)
    world.violation('identical', `well, but of different sizes: ${cluster.describe()}`);
  if (nodes.some((node) => node.status()?.peer?.outOfSyncBytes !== 0)) {
    world.violation('identical', `well, but something is out of sync: ${cluster.describe()}`);
  }
  const [a, b] = nodes.map((node) => node.metadata.superblock.current);
  if (a !== b) world.violation('identical', `well, but of different generations: ${cluster.describe()}`);
  const server = nodes.find((node) => node.isServing);
  if (server === undefined) return world.violation('liveness', 'nobody serves in the end');
  let verified = false;
  client.verify(server, () => (verified = true));
  world.run(world.nowMs + 10_000, () => verified);
  if (!verified && world.violations.length === 0) world.violation('liveness', 'the last reads never end');
}
