/** What has to be true, checked against the models themselves and not against what a core believes. */
import type { Superblock } from '../../replicator/core/metadata.ts';
import type { TableSizes } from '../../replicator/core/table-sizes.ts';
import { blockBytes, extentBytes } from '../../replicator/core/vocabulary.ts';
import type { Cluster } from './cluster.ts';
import { sectorsPerBlock } from './disk-faults.ts';
import type { WriteRecord } from './expectations.ts';
import type { SimNode } from './sim-node.ts';
import type { Checker } from './world.ts';

/**
 * W1 and W13: an acknowledged write is on both disks, or it is on record that the copy without it does not count. A trim
 * promises nothing, and a copy that has lost its cache since the write was issued is the business of W3.
 */
export function checkWrite(cluster: Cluster, node: SimNode, record: WriteRecord, issuedAtMs: number): void {
  if (!record.firm) return;
  const { expectations } = cluster;
  // Under protocol A and B the other copy may get it any moment now.
  const isAway = (where: SimNode): boolean => where !== node && cluster.protocol !== 'C';
  const isMissing = (where: SimNode): boolean =>
    !isAway(where) &&
    !expectations.hasReached(record, where.disk.visible) &&
    !cluster.lostCacheSince(where, issuedAtMs);
  const what = (): string => `write ${record.stamp}`;
  complainUnlessRecorded(cluster, 'acknowledged-write', node, isMissing, what);
}

/** W2: a flush is acknowledged when everything before it is on stable storage of every copy that counts. */
export function checkFlush(
  cluster: Cluster,
  node: SimNode,
  records: readonly WriteRecord[],
  issuedAtMs: number,
): void {
  const { expectations } = cluster;
  const isMissing = (where: SimNode): boolean =>
    records.some((record) => record.firm && !expectations.hasReached(record, where.disk.stable)) &&
    !cluster.lostCacheSince(where, issuedAtMs);
  const what = (): string => `a flush of ${records.filter((record) => record.firm).length} writes`;
  complainUnlessRecorded(cluster, 'acknowledged-flush', node, isMissing, what);
}

/**
 * What a flush covered when it was issued is on some disk's stable storage when it is acknowledged. No excuse counts: whatever
 * has failed meanwhile, the answer would have had to be an error.
 */
export function checkKept(cluster: Cluster, node: SimNode, records: readonly WriteRecord[]): void {
  const { expectations } = cluster;
  const gone = records.find((record) =>
    cluster.nodes.every(({ disk }) => !expectations.hasReached(record, disk.stable)),
  );
  if (gone === undefined) return;
  const what = `a flush that covers write ${gone.stamp}, which no disk would keep`;
  cluster.world.violation('acknowledged-flush', `${node.name} acknowledges ${what}`);
}

function complainUnlessRecorded(
  cluster: Cluster,
  checker: Checker,
  node: SimNode,
  isMissing: (where: SimNode) => boolean,
  what: () => string,
): void {
  const peer = cluster.otherOf(node);
  const ownMissing = isMissing(node);
  // Whose definition names no peer promises nothing about one; that gets a whole copy when they meet again.
  const peerMissing = !node.isAlone && isMissing(peer);
  if (!ownMissing && !peerMissing) return;
  // While it mirrors, there is no excuse; otherwise a record has to say that this copy does not count.
  const { peer: status } = node.status() ?? {};
  const isMirroring = status?.replication === 'Established' && status.diskState === 'UpToDate';
  const complain = (where: SimNode): void =>
    cluster.world.violation(
      checker,
      `${node.name} acknowledges ${what()}, but ${where.name} lacks it and nothing on record says so`,
    );
  if (ownMissing && counts(cluster, node, peer)) complain(node);
  // Where an operator has forced what was not whole, its records say what the operator said.
  else if (peerMissing && (isMirroring || (!cluster.split && counts(cluster, peer, node)))) complain(peer);
  else if (ownMissing && peerMissing) complain(peer);
}

/** Whether nothing on record, here or there, says that this copy is not whole or has been left behind. */
function counts(cluster: Cluster, copy: SimNode, other: SimNode): boolean {
  const own = copy.metadata.superblock;
  const theirs = other.metadata.superblock;
  // Another disk than the one that was there: its generation says that, until it has taken that of the other copy.
  if (cluster.swapped === copy && own.current !== theirs.current) return false;
  if (own.disk === 'Inconsistent' || own.disk === 'Outdated' || own.detached) return false;
  // Another disk was put in the place of this copy: no handshake takes that for one that may have it (cluster.swapped).
  if (own.current !== theirs.current && !isRelated(own, theirs)) return false;
  return !theirs.peerExcluded && !theirs.bitmap.includes(own.current);
}

/** The lines of the two have a generation in common. */
function isRelated(own: Superblock, theirs: Superblock): boolean {
  const line = new Set([theirs.current, ...theirs.bitmap, ...theirs.history]);
  return [own.current, ...own.bitmap, ...own.history].some((generation) => line.has(generation));
}

/** Identical copies: what both disks hold once nothing is under way. Does not rest on the table of differences. */
export function checkIdentical(cluster: Cluster): void {
  const [{ name, disk }, { name: otherName, disk: other }] = cluster.nodes;
  for (let sector = 0; sector < disk.visible.length; sector++) {
    if (disk.visible[sector] === other.visible[sector]) continue;
    const block = Math.floor(sector / sectorsPerBlock);
    if (disk.faults.corrupt.has(block) || other.faults.corrupt.has(block)) continue;
    return cluster.world.violation(
      'identical',
      `idle and in sync, but sector ${sector} is ${disk.visible[sector]} on ${name} and ${other.visible[sector]} on ${otherName}`,
    );
  }
}

/** The same whenever nothing is under way, and the bounds of the tables at all times. */
export function checkNow(cluster: Cluster): void {
  // Under protocol A and B a write may still be on its way when nobody waits for it any more.
  let isQuiet = cluster.protocol === 'C' && cluster.isHealthy && cluster.client.isIdle;
  for (const node of cluster.nodes) {
    const sizes = node.core?.tableSizes?.();
    if (sizes === undefined) continue;
    const tooMuch = overflow(sizes, node.unanswered, node.activityLogExtents);
    if (tooMuch !== null) cluster.world.violation('memory', `${node.name}: ${tooMuch}`);
    isQuiet &&= node.disk.isIdle && holdsNothing(sizes);
  }
  const [block] = isQuiet ? cluster.differences.shown('not-corrupt') : [];
  if (block !== undefined)
    cluster.world.violation('identical', `nothing is under way, but block ${block} differs`);
}

/** Whatever grows with what is under way is empty when nothing is. */
export function checkEmpty(cluster: Cluster): void {
  if (isEmpty(cluster)) return;
  const tell = ({ name, core }: SimNode): string => `${name} ${JSON.stringify(core?.tableSizes?.())}`;
  cluster.world.violation('memory', `idle, but tables hold something: ${cluster.nodes.map(tell).join(', ')}`);
}

export function isEmpty(cluster: Cluster): boolean {
  return cluster.nodes.every(({ core }) => {
    const sizes = core?.tableSizes?.();
    return sizes === undefined || holdsNothing(sizes);
  });
}

const tables = [
  ...(['held', 'writes', 'peerWrites', 'locks', 'inbound', 'waitingForLog', 'extents'] as const),
  ...(['epochs', 'unstableBlocks', 'commits'] as const),
];

/** What was begun before a client left, a session ended or a disk failed goes on beside what is under way now. */
const leftoversMax = 256;

/** The table that holds more than what is under way explains, or null. */
function overflow(sizes: TableSizes, unanswered: number, capacity: number): string | null {
  const blocks = (extents: number): number => (extents * extentBytes) / blockBytes;
  const bounds: Record<(typeof tables)[number], number> = {
    held: unanswered,
    writes: unanswered + leftoversMax,
    peerWrites: leftoversMax,
    locks: unanswered + 2 * leftoversMax,
    inbound: leftoversMax,
    waitingForLog: unanswered + leftoversMax,
    extents: capacity,
    epochs: unanswered + leftoversMax,
    // Every block of the unstable set lies in an active extent (W3).
    unstableBlocks: sizes.epochs * blocks(sizes.extents + sizes.bulkExtents),
    commits: leftoversMax,
  };
  for (const name of tables) {
    const [count, bound] = [sizes[name], bounds[name]];
    if (count > bound) return `${name} holds ${count}, more than ${bound}`;
  }
  return null;
}

function holdsNothing(sizes: TableSizes): boolean {
  const { held, writes, peerWrites, locks, inbound, waitingForLog } = sizes;
  return held + writes + peerWrites + locks + inbound + waitingForLog === 0;
}
