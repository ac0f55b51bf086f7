/** The marks in memory against what the store holds of them. */
import test from 'ava';
import { decodeInto } from '../../../replicator/core/metadata-load.ts';
import type { ChunkImage, Superblock } from '../../../replicator/core/metadata.ts';
import { OutOfSync } from '../../../replicator/core/out-of-sync.ts';

const MiB = 1024 * 1024;
const chunkBytes = 256 * MiB;
const sizeBytes = 3 * chunkBytes + 1;

function marked(outOfSync: OutOfSync): string {
  return [...outOfSync.bits.runs()].map(({ first, count }) => `${first}+${count}`).join(' ');
}

/** A store of chunk images, and what a restart would read from it. */
class Store {
  readonly #chunks = new Map<number, Uint8Array>();

  apply(images: readonly ChunkImage[]): void {
    for (const { chunk, image } of images) {
      if (image === null) this.#chunks.delete(chunk);
      else this.#chunks.set(chunk, image);
    }
  }

  load(): OutOfSync {
    const outOfSync = new OutOfSync(sizeBytes);
    decodeInto(outOfSync, {
      superblock: {} as Superblock,
      active: [],
      chunks: [...this.#chunks].map(([chunk, image]) => ({ chunk, image })),
    });
    return outOfSync;
  }
}

test('a partial last block counts, and is marked with the rest', (t) => {
  const outOfSync = new OutOfSync(sizeBytes);
  t.is(outOfSync.blockCount, (3 * chunkBytes) / 4096 + 1);
  outOfSync.markAll();
  t.is(outOfSync.blocks, outOfSync.blockCount);
  outOfSync.clearAll();
  outOfSync.markExtents({ first: (3 * chunkBytes) / (4 * MiB), count: 1 });
  t.is(outOfSync.blocks, 1, 'an extent ends with the device');
});

test('marking rounds out', (t) => {
  const outOfSync = new OutOfSync(sizeBytes);
  outOfSync.mark(4095, 2);
  t.is(marked(outOfSync), '0+2');
  t.true(outOfSync.isDirty(8191, 1));
  t.false(outOfSync.isDirty(8192, 100));
  t.is(outOfSync.bytes, 8192);
});

test('an extent that becomes inactive takes the unsaved marks of its chunk along, and no others', (t) => {
  const outOfSync = new OutOfSync(sizeBytes);
  const store = new Store();
  outOfSync.mark(0, 1);
  outOfSync.mark(chunkBytes, 1);
  t.deepEqual(outOfSync.takeImagesFor([]), []);
  const images = outOfSync.takeImagesFor([{ first: 3, count: 1 }]);
  t.deepEqual(
    images.map(({ chunk }) => chunk),
    [0],
  );
  store.apply(images);
  t.is(marked(store.load()), '0+1');
  t.deepEqual(outOfSync.takeImagesFor([{ first: 3, count: 1 }]), [], 'saved already');
  t.true(outOfSync.hasUnsaved);
  store.apply(outOfSync.takeImagesFor([{ first: 60, count: 10 }]));
  t.is(marked(store.load()), marked(outOfSync), 'a range over two chunks takes both');
  t.false(outOfSync.hasUnsaved);
});

test('what is cleared is removed from the store by the next image', (t) => {
  const outOfSync = new OutOfSync(sizeBytes);
  const store = new Store();
  outOfSync.mark(chunkBytes - 4096, 8192);
  store.apply(outOfSync.takeAll());
  t.is(marked(store.load()), '65535+2');
  outOfSync.clear([{ first: 65535, count: 2 }]);
  const images = outOfSync.takeUnsaved(Infinity);
  t.deepEqual(images, [
    { chunk: 0, image: null },
    { chunk: 1, image: null },
  ]);
  store.apply(images);
  t.is(store.load().blocks, 0);
});

test('saving in the background takes as much as it is told to', (t) => {
  const outOfSync = new OutOfSync(sizeBytes);
  outOfSync.markAll();
  t.is(outOfSync.takeUnsaved(3).length, 3);
  t.is(outOfSync.takeUnsaved(3).length, 1);
  t.is(outOfSync.takeUnsaved(3).length, 0);
});

test('takeAll has every mark, and leaves nothing unsaved', (t) => {
  const outOfSync = new OutOfSync(sizeBytes);
  const store = new Store();
  outOfSync.markRun({ first: 7, count: 3 });
  outOfSync.markRun({ first: 0, count: 0 });
  outOfSync.markExtents({ first: 64, count: 2 });
  store.apply(outOfSync.takeAll());
  t.is(marked(store.load()), marked(outOfSync));
  t.false(outOfSync.hasUnsaved);
});

test('a stored image that does not parse is a broken invariant, not a clean bitmap', (t) => {
  const store = new Store();
  store.apply([{ chunk: 0, image: new Uint8Array([9]) }]);
  t.throws(() => store.load(), { message: /chunk 0/ });
});
