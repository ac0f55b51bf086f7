/** One simulated history from one seed: a time of faults, then everything is put right, and all must end well. */
import { Core } from '../../replicator/core/core.ts';
import { checkEmpty, checkIdentical, isEmpty } from './checkers.ts';
import { Cluster } from './cluster.ts';
import { Coverage } from './coverage.ts';
import type { CoverageReport } from './coverage.ts';
import {
  losePeer,
  serveWithoutPeer,
  settleMsMax,
  stallVerify,
  stayConnected,
  verifyOnline,
} from './endings.ts';
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
  if (cluster.world.violations.length === 0) settle(cluster, operator, fate);
}

function settle(cluster: Cluster, operator: Operator, fate: Fate): void {
  const { world, client, nodes } = cluster;
  world.trace(() => '-- everything is put right');
  fate.putRight();
  const isServed = (): boolean =>
    cluster.isHealthy &&
    nodes.some((node) => node.isServing) &&
    // A command of before may have to wait for the disk, and then disturb what was well.
    nodes.every((node) => node.commandsUnderWay === 0);
  world.run(world.nowMs + settleMsMax, isServed, 10);
  // The client goes on for a while after all is well.
  world.run(world.nowMs + 500);
  if (isServed() && world.seed % 4n === 0n) losePeer(cluster);
  if (isServed() && world.seed % 16n === 5n) {
    serveWithoutPeer(cluster, operator);
    world.run(world.nowMs + settleMsMax, isServed, 10);
    cluster.differences.watch();
  }
  client.stop();
  cluster.network.steady();
  // It is well when it stays so: an order given before may be carried out only now, and what an ended session had asked of
  // a slow disk is still to come back.
  const isQuiet = (): boolean =>
    client.isIdle &&
    isServed() &&
    isEmpty(cluster) &&
    nodes.every(({ disk, metadata }) => disk.isIdle && metadata.isIdle);
  const untilMs = world.nowMs + settleMsMax;
  do {
    world.run(untilMs, isQuiet, 10);
    if (world.violations.length > 0) return;
    world.run(world.nowMs + 1000);
  } while (!isQuiet() && world.nowMs < untilMs);
  if (world.violations.length > 0) return;
  if (!client.isIdle) return world.violation('liveness', `a request never ends: ${cluster.describe()}`);
  if (!isServed()) return world.violation('liveness', `it never gets well: ${cluster.describe()}`);
  stayConnected(cluster);
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
  stallVerify(cluster, server);
  verifyOnline(cluster, server);
  if (world.violations.length > 0) return;
  let verified = false;
  client.verify(server, () => (verified = true));
  world.run(world.nowMs + 10_000, () => verified);
  if (!verified && world.violations.length === 0) world.violation('liveness', 'the last reads never end');
}
