/** Smaller faults of disks and metadata stores, each over by itself or put right with the disk (`Cluster.repairDisk`). */
import type { Cluster } from './cluster.ts';
import type { Prng } from './prng.ts';
import type { SimNode } from './sim-node.ts';

export const troubles = [
  /** One operation fails. */
  'read-error',
  'write-error',
  'flush-error',
  /** Sectors that cannot be read until they are written. */
  'bad-sectors',
  /** Everything takes fifty times as long, or one operation takes seconds. */
  'slow-disk',
  'stuck-disk',
  'stuck-metadata',
] as const;
export type Trouble = (typeof troubles)[number];

export function makeTrouble(cluster: Cluster, node: SimNode, prng: Prng): void {
  const trouble = prng.pick(troubles);
  const { faults, sectorCount } = node.disk;
  cluster.world.trace(() => `-- ${trouble} of ${node.name}`);
  switch (trouble) {
    case 'read-error':
      return faults.failNext('read');
    case 'write-error':
      return faults.failNext('write');
    case 'flush-error':
      return faults.failNext('flush');
    case 'bad-sectors': {
      // Where something is written now and then, or else nobody ever reads it.
      const near = cluster.client.pickSector(prng);
      return faults.spoil(near, Math.min(prng.between(1, 64), sectorCount - near));
    }
    case 'slow-disk':
      return faults.slowFor(prng.between(200, 5_000));
    case 'stuck-disk':
      return faults.stickNext(prng.between(1_000, 6_000));
    case 'stuck-metadata':
      return node.metadata.stall(prng.between(500, 5_000));
    default:
      return trouble satisfies never;
  }
}
