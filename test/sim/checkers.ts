/** What has to be true, checked against the models themselves and not against what a core believes. */
import { BlockBitmap } from '../../replicator/core/bitmap.ts';
import { extentBytes, blockBytes } from '../../replicator/core/vocabulary.ts';
import type { Cluster } from './cluster.ts';
import type { WriteRecord } from './expectations.ts';
import { sectorBytes } from './sim-disk.ts';
import type { SimNode } from './sim-node.ts';

const blocksPerExtent = extentBytes / blockBytes;
const sectorsPerBlock = blockBytes / sectorBytes;

/**
 * W1 and W13: an acknowledged write is on both disks, or it is on record that the copy without it does not count. A trim
 * promises nothing, and a copy that has lost its cache since the write was issued is the business of W3.
 */
export function checkWrite(cluster: Cluster, node: SimNode, record: WriteRecord, issuedAtMs: number): void {
  if (!record.firm) return;
  const isMissing = (where: SimNode): boolean =>
    !cluster.hasReached(where, record, 'visible') && !cluster.lostCacheSince(where, issuedAtMs);
  complainUnlessRecorded(cluster, node, isMissing, `write ${record.stamp}`);
}

/** W2: a flush is acknowledged when everything before it is on stable storage of every copy that counts. */
export function checkFlush(
  cluster: Cluster,
  node: SimNode,
  records: readonly WriteRecord[],
  issuedAtMs: number,
): void {
  const firm = records.filter((record) => record.firm);
  const isMissing = (where: SimNode): boolean =>
    !cluster.lostCacheSince(where, issuedAtMs) &&
    firm.some((record) => !cluster.hasReached(where, record, 'stable'));
  complainUnlessRecorded(cluster, node, isMissing, `a flush of ${firm.length} writes`);
}

function complainUnlessRecorded(
  cluster: Cluster,
  node: SimNode,
  isMissing: (where: SimNode) => boolean,
  what: string,
): void {
  const peer = cluster.otherOf(node);
  const { peer: status } = node.status() ?? {};
  // While it mirrors, there is no excuse; otherwise a record has to say that this copy does not count.
  const isMirroring = status?.replication === 'Established' && status.diskState === 'UpToDate';
  const ownCounts = counts(node, peer);
  const peerCounts = isMirroring || counts(peer, node);
  const ownMissing = isMissing(node);
  const peerMissing = isMissing(peer);
  const complain = (where: SimNode): void =>
    cluster.world.violation(
      `${node.name} acknowledges ${what}, but ${where.name} lacks it and nothing on record says so`,
    );
  if (ownMissing && ownCounts) complain(node);
  else if (peerMissing && peerCounts) complain(peer);
  else if (ownMissing && peerMissing) complain(peer);
}

/** Whether nothing on record, here or there, says that this copy is not whole or has been left behind. */
function counts(copy: SimNode, other: SimNode): boolean {
  const own = copy.metadata.superblock;
  const theirs = other.metadata.superblock;
  if (own.disk === 'Inconsistent' || own.disk === 'Outdated' || own.detached) return false;
  return !theirs.peerExcluded && !theirs.bitmap.includes(own.current);
}

/**
 * W3 and W4: wherever the two disks differ, or would differ if either lost its cache now, some record that survives a crash
 * says so: a bit of a persisted bitmap or an active extent, on either side.
 */
export function checkMarks(cluster: Cluster): void {
  const [a, b] = cluster.nodes;
  if (a.metadata.superblock.origin !== 'settled' || b.metadata.superblock.origin !== 'settled') return;
  const marked = new BlockBitmap(Math.max(a.disk.sectorCount, b.disk.sectorCount) / sectorsPerBlock);
  for (const node of cluster.nodes) {
    const { active, chunks } = node.metadata.image();
    for (const { chunk, image } of chunks) {
      const one = new BlockBitmap(marked.blockCount);
      if (!one.decodeChunk(chunk, image))
        return cluster.world.violation(`${node.name}: a malformed chunk ${chunk}`);
      marked.orWith(one);
    }
    for (const { first, count } of active) {
      const from = first * blocksPerExtent;
      marked.setRange(from, Math.min(count * blocksPerExtent, marked.blockCount - from));
    }
  }
  for (const left of ['visible', 'stable'] as const) {
    for (const right of ['visible', 'stable'] as const) {
      const block = firstUnmarkedDifference(a.disk[left], b.disk[right], marked);
      if (block === null) continue;
      return cluster.world.violation(
        `block ${block} differs between ${a.name} (${left}) and ${b.name} (${right}), and no record says so`,
      );
    }
  }
}

/** Identical copies: what both disks hold once nothing is under way. */
export function checkIdentical(cluster: Cluster): void {
  const [a, b] = cluster.nodes;
  const at = a.disk.visible.findIndex((value, sector) => value !== (b.disk.visible[sector] ?? 0));
  if (at === -1) return;
  cluster.world.violation(
    `idle and in sync, but sector ${at} is ${a.disk.visible[at]} on ${a.name} and ${b.disk.visible[at]} on ${b.name}`,
  );
}

/** Looked for in large pieces first: most of them are equal. */
const pieceSectors = 1024 * sectorsPerBlock;

function firstUnmarkedDifference(left: Uint32Array, right: Uint32Array, marked: BlockBitmap): number | null {
  // What only one of them has yet reads as zeroes on the other once that has grown too.
  const length = Math.max(left.length, right.length);
  for (let from = 0; from < length; from += pieceSectors) {
    const to = Math.min(length, from + pieceSectors);
    if (Buffer.compare(bytesOf(left.subarray(from, to)), bytesOf(right.subarray(from, to))) === 0) continue;
    for (let sector = from; sector < to; sector++) {
      if ((left[sector] ?? 0) === (right[sector] ?? 0)) continue;
      const block = Math.floor(sector / sectorsPerBlock);
      if (!marked.isSet(block)) return block;
      sector = (block + 1) * sectorsPerBlock - 1;
    }
  }
  return null;
}

function bytesOf(sectors: Uint32Array): Uint8Array {
  return new Uint8Array(sectors.buffer, sectors.byteOffset, sectors.byteLength);
}
