/** Values of the metadata for tests. */
import type { Superblock, Transaction } from '../../replicator/core/metadata.ts';
import type { Binding } from '../../replicator/shell/backing-identity.ts';
import { openMetadataDatabase } from '../../replicator/shell/metadata-database.ts';
import type { MetadataContent, MetadataDatabase } from '../../replicator/shell/metadata-database.ts';
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

/** The database of resource r0 on node alpha; throws when it is refused. */
export function opened(path: string): {
  readonly database: MetadataDatabase;
  readonly content: MetadataContent;
} {
  const result = openMetadataDatabase({ path, resourceName: 'r0', nodeName: 'alpha' });
  if (!result.ok) throw new Error(result.refusal.reason);
  return result;
}

/** What the next start would find. */
export function contentOf(path: string): MetadataContent {
  const { database, content } = opened(path);
  database.close();
  return content;
}
