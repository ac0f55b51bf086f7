/**
 * How a history ends once all is well: nothing breaks by chance any more, and single things are tried that chance would seldom
 * bring about, each of them in some of the histories.
 */
import type { Cluster } from './cluster.ts';
import type { Operator } from './operator.ts';
import type { SimNode } from './sim-node.ts';

/** After the last fault, everything has to be well again within this time. */
export const settleMsMax = 120_000;

/** Above the time of silence after which most nodes believe that their peer is lost. */
const silenceMs = 1_500;

/** A connection that nobody uses stays: each node hears from the other one often enough. */
export function stayConnected({ world, network }: Cluster): void {
  const before = network.begun;
  world.run(world.nowMs + silenceMs);
  if (network.begun > before) world.violation('liveness', 'an idle connection is lost');
}

/** Online verify finds what a disk has done wrong, exactly that, and mends it: which copy was right, nothing can tell. */
export function verifyOnline(cluster: Cluster, node: SimNode): void {
  const { world, differences } = cluster;
  const differing = differences.shown('all').length;
  if (differing === 0 && world.seed % 16n !== 0n) return;
  cluster.verified = null;
  node.command({ kind: 'verify', action: 'start', repair: true });
  world.run(world.nowMs + settleMsMax, () => cluster.verified !== null);
  if (world.violations.length > 0) return;
  if (cluster.verified !== differing)
    return world.violation('verify', `verify finds ${cluster.verified} blocks, but ${differing} differ`);
  const isMended = (): boolean => cluster.isHealthy && differences.shown('all').length === 0;
  world.run(world.nowMs + settleMsMax, isMended, 100);
  if (world.violations.length === 0 && !isMended())
    world.violation('verify', `what verify has found is not mended: ${cluster.describe()}`);
}

/** However long a healthy Primary takes to make sure that a silent peer has not taken over, and to go on alone. */
const aloneMsMax = 12_000;
/** The client goes on alone for so long, for the peer to have something to catch up with. */
const aloneMs = 500;

/** The other node falls silent and stays so: unless the policy is to wait, the service goes on without it. */
export function losePeer(cluster: Cluster): void {
  const { world, client, network, nodes } = cluster;
  const server = nodes.find((node) => node.isServing);
  if (server?.goesOnAlone !== true) return;
  cluster.note('link', null);
  network.cut('stall');
  const hasNoticed = (): boolean => server.status()?.peer?.connection !== 'Connected';
  const untilMs = world.nowMs + aloneMsMax;
  world.run(untilMs, hasNoticed, 10);
  // What is under way is answered, and then something that was asked for later.
  const due = client.answered + server.requestsUnderWay;
  world.run(untilMs, () => client.answered > due, 10);
  if (client.answered <= due && world.violations.length === 0)
    world.violation('liveness', `silence of the peer stops the service: ${cluster.describe()}`);
  world.run(world.nowMs + aloneMs);
  network.healCut();
}

/** By then a verify has given up on a range, also where a slow clock measures its patience. */
const stalledMsMax = 15_000;
/** So long one disk takes to read such a range. */
const stuckMs = 30_000;

/** Half of an answer does not come, though the peer is there: the verify ends, and nothing else comes of it. */
export function stallVerify(cluster: Cluster, node: SimNode): void {
  const { world, nodes } = cluster;
  if (world.violations.length > 0 || world.seed % 32n !== 9n) return;
  const { disk } = nodes[world.prng.int(2)] ?? node;
  disk.faults.stickNext(stuckMs);
  cluster.verified = null;
  node.command({ kind: 'verify', action: 'start', repair: true });
  const sinceMs = world.nowMs;
  world.run(sinceMs + stalledMsMax, () => cluster.verified !== null);
  if (world.violations.length > 0) return;
  if (cluster.verified === null)
    return world.violation('liveness', `a verify waits for ever: ${cluster.describe()}`);
  world.run(sinceMs + 2 * stuckMs, () => disk.isIdle);
}

/** Requests that are answered before the device gets its peer back. */
const requestsWithoutPeer = 20;

/**
 * The device is defined without its peer for a while, and used: what is written then is tracked by nobody, and nevertheless
 * the former peer has all of it when it is back.
 */
export function serveWithoutPeer(cluster: Cluster, operator: Operator): void {
  const { world, client, nodes, differences } = cluster;
  const node = nodes.find(({ isServing }) => isServing);
  if (node === undefined) return;
  const peer = cluster.otherOf(node);
  world.trace(() => `-- ${node.name} is to be without ${peer.name}`);
  operator.leave(peer);
  for (const one of world.prng.chance(0.5) ? [node, peer] : [peer, node]) end(cluster, one);
  // Not the death of one of them alone, whatever the last of them died of.
  cluster.note('operator', null);
  // Instead of marks a generation tells that the copies differ (checkers.ts asks for that).
  differences.ignore();
  node.start('alone');
  const due = client.answered + requestsWithoutPeer;
  world.run(world.nowMs + settleMsMax, () => client.answered >= due);
  if (world.violations.length > 0) return;
  if (client.answered < due)
    return world.violation('liveness', `without its peer it does not serve: ${cluster.describe()}`);
  end(cluster, node);
  node.start();
  operator.leave(null);
}

/** In order, or not. */
function end(cluster: Cluster, node: SimNode): void {
  const { world } = cluster;
  if (world.prng.chance(0.5)) {
    node.command({ kind: 'stop' });
    world.run(world.nowMs + 2_000, () => !node.isUp);
  }
  cluster.kill(node);
}
