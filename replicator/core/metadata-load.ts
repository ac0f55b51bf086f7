/** Reads what metadata holds into memory; what does not parse is a broken invariant, not an empty bitmap. */
import type { MetadataImage } from './metadata.ts';
import { assert } from './out.ts';
import type { OutOfSync } from './out-of-sync.ts';

export function decodeInto(outOfSync: OutOfSync, image: MetadataImage): void {
  for (const { chunk, image: bytes } of image.chunks) {
    assert(outOfSync.bits.decodeChunk(chunk, bytes), `chunk ${chunk} of the stored bitmap does not parse`);
  }
}
