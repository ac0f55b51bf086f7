/** What has to be true, checked against the models themselves and not against what a core believes. */
import type { Cluster } from './cluster.ts';
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

function complainUnlessRecorded(
  cluster: Cluster,
  checker: Checker,
  node: SimNode,
  isMissing: (where: SimNode) => boolean,
  what: () => string,
): void {
  const peer = cluster.otherOf(node);
  const ownMissing = isMissing(node);
  const peerMissing = isMissing(peer);
  if (!ownMissing && !peerMissing) return;
  // While it mirrors, there is no excuse; otherwise a record has to say that this copy does not count.
  const { peer: status } = node.status() ?? {};
  const isMirroring = status?.replication === 'Established' && status.diskState === 'UpToDate';
  const complain = (where: SimNode): void =>
    cluster.world.violation(
      checker,
      `${node.name} acknowledges ${what()}, but ${where.name} lacks it and nothing on record says so`,
    );
  if (ownMissing && counts(node, peer)) complain(node);
  else if (peerMissing && (isMirroring || counts(peer, node))) complain(peer);
  else if (ownMissing && peerMissing) complain(peer);
}

/** Whether nothing on record, here or there, says that this copy is not whole or has been left behind. */
function counts(copy: SimNode, other: SimNode): boolean {
  const own = copy.metadata.superblock;
  const theirs = other.metadata.superblock;
  if (own.disk === 'Inconsistent' || own.disk === 'Outdated' || own.detached) return false;
  return !theirs.peerExcluded && !theirs.bitmap.includes(own.current);
}

/** Identical copies: what both disks hold once nothing is under way. */
export function checkIdentical(cluster: Cluster): void {
  const [{ name, disk }, { name: otherName, disk: other }] = cluster.nodes;
  for (let sector = 0; sector < disk.sectorCount; sector++) {
    if (disk.visible[sector] === other.visible[sector]) continue;
    return cluster.world.violation(
      'identical',
      `idle and in sync, but sector ${sector} is ${disk.visible[sector]} on ${name} and ${other.visible[sector]} on ${otherName}`,
    );
  }
}
