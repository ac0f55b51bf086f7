/** A short life of a replica as commits of its metadata, of every kind that there is, and what each leaves on record. */
import type { MetadataImage, Superblock, Transaction } from '../../replicator/core/metadata.ts';
import { someSuperblock } from './metadata.ts';

const mirrored: Superblock = { ...someSuperblock, primary: false, peerExcluded: false, detached: false };

/** After the one that initialises. Transactions in one list are issued together and share one commit. */
export const metadataHistory: readonly { readonly what: string; readonly commit: readonly Transaction[] }[] =
  [
    { what: 'promoted', commit: [{ superblock: { ...mirrored, primary: true } }] },
    {
      what: 'a new generation',
      commit: [{ superblock: { ...mirrored, primary: true, current: 3n, writer: true } }],
    },
    { what: 'extents activated', commit: [{ activate: extents(0, 7) }] },
    {
      what: 'extents evicted for others',
      commit: [{ deactivate: extents(0, 3), activate: extents(100, 3) }],
    },
    {
      what: 'alone: the peer excluded, marks of an evicted extent',
      commit: [
        {
          superblock: {
            ...mirrored,
            primary: true,
            current: 4n,
            bitmap: [3n],
            peerExcluded: true,
            linked: false,
          },
          chunks: [chunk(0, 1), chunk(9, 2)],
          deactivate: extents(3, 1),
        },
      ],
    },
    { what: 'a chunk replaced', commit: [{ chunks: [chunk(9, 3)] }] },
    {
      what: 'a resync begins: all chunks replaced',
      commit: [
        {
          superblock: { ...mirrored, primary: true, current: 4n, bitmap: [3n, 2n] },
          clearChunks: true,
          chunks: [chunk(1, 4), chunk(9, 5), chunk(40, 6)],
        },
      ],
    },
    {
      what: 'a chunk proven clean, and extents, in one commit',
      commit: [
        { chunks: [{ chunk: 9, image: null }] },
        { activate: extents(200, 2) },
        { deactivate: extents(4, 1) },
      ],
    },
    {
      what: 'the resync is finished',
      commit: [{ superblock: { ...mirrored, primary: true, current: 4n, bitmap: [] }, clearChunks: true }],
    },
    {
      what: 'detached',
      commit: [{ superblock: { ...mirrored, primary: true, current: 4n, detached: true } }],
    },
    {
      what: 'stopped cleanly',
      commit: [
        {
          superblock: { ...mirrored, current: 4n, bitmap: [], linked: false },
          deactivate: [...extents(5, 2), ...extents(100, 3), ...extents(200, 2)],
        },
      ],
    },
  ];

/** On record after so many of them. */
export function imageAfter(commits: number): MetadataImage {
  let superblock = someSuperblock;
  const active = new Set<number>();
  const chunks = new Map<number, Uint8Array>();
  for (const transaction of metadataHistory.slice(0, commits).flatMap(({ commit }) => commit)) {
    superblock = transaction.superblock ?? superblock;
    for (const { first } of transaction.deactivate ?? []) active.delete(first);
    for (const { first } of transaction.activate ?? []) active.add(first);
    if (transaction.clearChunks === true) chunks.clear();
    for (const { chunk, image } of transaction.chunks ?? []) {
      if (image === null) chunks.delete(chunk);
      else chunks.set(chunk, image);
    }
  }
  return {
    superblock,
    active: [...active].sort((a, b) => a - b).map((first) => ({ first, count: 1 })),
    chunks: [...chunks].sort(([a], [b]) => a - b).map(([chunk, image]) => ({ chunk, image })),
  };
}

function extents(first: number, count: number): { readonly first: number; readonly count: number }[] {
  return Array.from({ length: count }, (_, index) => ({ first: first + index, count: 1 }));
}

/** Large enough to spill over several pages of the database. */
function chunk(number: number, fill: number): { readonly chunk: number; readonly image: Uint8Array } {
  return { chunk: number, image: Buffer.alloc(9_000, fill) };
}

/** Bytes in a form that is compared whatever kind of array holds them. */
export function comparable(image: MetadataImage | null): unknown {
  if (image === null) return null;
  const chunks = image.chunks.map((chunk) => [chunk.chunk, Buffer.from(chunk.image).toString('hex')]);
  return { ...image, chunks };
}
