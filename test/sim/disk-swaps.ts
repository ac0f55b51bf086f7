/**
 * Disks that come back as another one: new and empty, of a pair that this one never met, or as it was some time ago. The
 * other node has everything at that moment, and the copy swapped in must not become the better one by itself.
 */
import type { MetadataImage, Superblock } from '../../replicator/core/metadata.ts';
import type { Cluster } from './cluster.ts';
import { freshSuperblock } from './cluster.ts';
import type { Prng } from './prng.ts';
import type { SimNode } from './sim-node.ts';

export type Swap = 'new-disk' | 'foreign-disk' | 'old-disk';

/** Stamps from here on are on foreign disks only: no client has ever written them. */
const foreignStamps = 0xf000_0000;

interface OldCopy {
  readonly sectors: Uint32Array;
  readonly image: MetadataImage;
}

export class DiskSwaps {
  readonly #cluster: Cluster;
  readonly #old = new Map<SimNode, OldCopy>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** A copy of a node's disk while the node is down, to come back later. */
  remember(node: SimNode): void {
    if (node.isUp || this.#old.has(node)) return;
    this.#old.set(node, { sectors: node.disk.visible.slice(), image: node.metadata.image() });
  }

  /** Whether it was done; the node is down then. */
  swap(what: Swap, node: SimNode, prng: Prng): boolean {
    const cluster = this.#cluster;
    const other = cluster.otherOf(node);
    const isSafe =
      cluster.swapped === null &&
      other.status()?.diskState === 'UpToDate' &&
      !other.disk.isFailing &&
      other.metadata.superblock.origin === 'settled' &&
      // While they grow, nobody can tell how large a new disk has to be.
      other.metadata.superblock.sizeBytes === node.metadata.superblock.sizeBytes &&
      (cluster.growingTo === 0 || cluster.growingTo === node.metadata.superblock.sizeBytes) &&
      cluster.firstMissing(other) === null;
    if (!isSafe) return false;
    const copy = this.#make(what, node, other, prng);
    if (copy === null) return false;
    cluster.loseDisk(node);
    cluster.generations.forgive();
    cluster.differences.ignore();
    node.disk.replace(copy.sectors);
    node.metadata.replace(copy.image);
    cluster.world.trace(() => `-- ${node.name} has got another disk: ${what}`);
    if (what === 'new-disk') cluster.differences.watch();
    else cluster.swapped = node;
    return true;
  }

  #make(what: Swap, node: SimNode, other: SimNode, prng: Prng): OldCopy | null {
    const { sectorCount } = node.disk;
    // As an operator defines it: as large as the one that is there.
    const { sizeBytes } = other.metadata.superblock;
    const none = { active: [], chunks: [] };
    if (what === 'new-disk') {
      const superblock = freshSuperblock(prng, sizeBytes);
      return { sectors: new Uint32Array(sectorCount), image: { superblock, ...none } };
    }
    if (what === 'foreign-disk') {
      const sectors = new Uint32Array(sectorCount).fill(foreignStamps + prng.int(1000));
      return { sectors, image: { superblock: foreignSuperblock(prng, sizeBytes), ...none } };
    }
    const old = this.#old.get(node);
    if (old === undefined) return null;
    // A generation that the other side may still hold for this disk's own, or has marks relative to, is one of which
    // nobody can tell that this copy of it is not the latest.
    const { current, origin } = old.image.superblock;
    const { superblock } = other.metadata;
    const isOutgrown =
      origin === 'settled' &&
      current !== superblock.current &&
      !superblock.bitmap.includes(current) &&
      superblock.history.includes(current);
    if (isOutgrown) this.#old.delete(node);
    return isOutgrown ? old : null;
  }
}

function foreignSuperblock(prng: Prng, sizeBytes: number): Superblock {
  const withData = prng.chance(0.3);
  return {
    ...freshSuperblock(prng, sizeBytes),
    origin: withData ? 'created-with-data' : 'settled',
    history: [prng.bits64()],
    disk: 'UpToDate',
  };
}
