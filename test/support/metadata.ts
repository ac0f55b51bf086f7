/** Values of the metadata for tests. */
import type { Superblock, Transaction } from '../../replicator/core/metadata.ts';
import type { Binding } from '../../replicator/shell/backing-identity.ts';
import type { MetadataStore } from '../../replicator/shell/metadata-store.ts';

export const attributeBinding: Binding = { kind: 'attribute' };

/** Every field off its simplest value; generations use all 64 bits. */
export const someSuperblock: Superblock = {
  sizeBytes: 16 * 2 ** 40,
  origin: 'created-with-data',
  current: 0xfedc_ba98_7654_3211n,
  bitmap: [0x8000_0000_0000_0000n, 1n],
  partedAsPrimary: true,
  history: [0xffff_ffff_ffff_ffffn, 2n, 0x0020_0000_0000_0001n],
  disk: 'Consistent',
  primary: true,
  writer: false,
  linked: true,
  peerExcluded: false,
  detached: true,
};

export function commitDone(store: MetadataStore, transaction: Transaction): Promise<void> {
  return new Promise((resolve) => store.commit(transaction, resolve));
}

export function initialiseDone(store: MetadataStore, superblock: Superblock): Promise<void> {
  return new Promise((resolve) => store.initialise(superblock, attributeBinding, resolve));
}
