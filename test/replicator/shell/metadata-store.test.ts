/** The metadata thread: order, shared commits, fatal failures. */
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { openMetadata } from '../../../replicator/shell/metadata-store.ts';
import type { MetadataContent } from '../../../replicator/shell/metadata-database.ts';
import type { MetadataStore } from '../../../replicator/shell/metadata-store.ts';
import { startChild } from '../../support/child.ts';
import { attributeBinding, commitDone, initialiseDone, someSuperblock } from '../../support/metadata.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

interface Opened {
  readonly store: MetadataStore;
  readonly content: MetadataContent;
  /** Resolves with what the store said when it gave up. */
  readonly fatal: Promise<string>;
}

async function open(t: ExecutionContext, path: string): Promise<Opened> {
  const { promise: fatal, resolve } = Promise.withResolvers<string>();
  const opened = await openMetadata({ path, resourceName: 'r0', nodeName: 'alpha', onFatal: resolve });
  if (!opened.ok) throw new Error(`${opened.refusal.code}: ${opened.refusal.reason}`);
  t.teardown(() => opened.store.close());
  return { store: opened.store, content: opened.content, fatal };
}

test('what was committed is there when it is opened again', async (t) => {
  const path = join(temporaryDirectory(t), 'r0.sqlite');
  const first = await open(t, path);
  t.is(first.content.recorded, null);
  await initialiseDone(first.store, someSuperblock);
  const images = Array.from({ length: 50 }, (_, chunk) => ({
    chunk,
    image: new Uint8Array(8193).fill(chunk),
  }));
  await commitDone(first.store, { activate: [{ first: 3, count: 1 }], chunks: images });
  await first.store.close();

  const second = await open(t, path);
  t.is(second.content.identity, first.content.identity);
  const { recorded } = second.content;
  t.deepEqual(recorded?.binding, attributeBinding);
  t.deepEqual(recorded?.image.superblock, someSuperblock);
  t.deepEqual(recorded?.image.active, [{ first: 3, count: 1 }]);
  t.deepEqual(
    recorded?.image.chunks.map(({ chunk, image }) => [chunk, image.byteLength, image[8192]]),
    images.map(({ chunk }) => [chunk, 8193, chunk]),
  );
});

test('commits are answered in order, never within the call, and all before closing ends', async (t) => {
  const { store } = await open(t, join(temporaryDirectory(t), 'r0.sqlite'));
  const answered: number[] = [];
  store.initialise(someSuperblock, attributeBinding, () => answered.push(0));
  for (let n = 1; n <= 500; n++) {
    store.commit({ activate: [{ first: n, count: 1 }] }, () => answered.push(n));
  }
  t.deepEqual(answered, []);
  await store.close();
  t.deepEqual(
    answered,
    Array.from({ length: 501 }, (_, n) => n),
  );
  t.throws(() => store.commit({}, () => t.fail()), { message: /closed/ });
});

test('a commit that cannot be made is fatal: it, what shares its transaction and what comes after is never answered', async (t) => {
  const path = join(temporaryDirectory(t), 'r0.sqlite');
  const { store, fatal } = await open(t, path);
  await initialiseDone(store, someSuperblock);
  const answered: string[] = [];
  store.commit({ activate: [{ first: 1, count: 1 }] }, () => answered.push('before'));
  // These set out together while the first is under way.
  store.commit({ activate: [{ first: 9, count: 1 }] }, () => answered.push('sharing'));
  store.commit({ activate: [{ first: 0, count: 0 }] }, () => answered.push('unfit'));
  store.commit({ activate: [{ first: 2, count: 1 }] }, () => answered.push('after'));
  t.regex(await fatal, /cannot be committed: activity log: 0 extents/);
  store.commit({ activate: [{ first: 3, count: 1 }] }, () => answered.push('later'));
  await store.close();
  t.deepEqual(answered, ['before']);
  const again = await open(t, path);
  t.deepEqual(again.content.recorded?.image.active, [{ first: 1, count: 1 }]);
});

test('a commit before the first superblock is fatal', async (t) => {
  const { store, fatal } = await open(t, join(temporaryDirectory(t), 'r0.sqlite'));
  store.commit({ activate: [{ first: 1, count: 1 }] }, () => t.fail());
  t.regex(await fatal, /must begin with a superblock/);
});

test('metadata in use by another process is refused, and free when that process dies', async (t) => {
  const path = join(temporaryDirectory(t), 'r0.sqlite');
  const holder = startChild(t, new URL('../../support/metadata-writer.ts', import.meta.url), [path]);
  t.is((await holder.lines.next()).value, '1');
  const location = {
    path,
    resourceName: 'r0',
    nodeName: 'alpha',
    onFatal: (message: string) => t.fail(message),
  };
  const refused = await openMetadata(location);
  t.is(refused.ok ? null : refused.refusal.code, 'metadata-in-use');
  await holder.kill();
  await (await open(t, path)).store.close();
});

test('metadata in use by another thread of this process is refused', async (t) => {
  const path = join(temporaryDirectory(t), 'r0.sqlite');
  await open(t, path);
  const refused = await openMetadata({
    path,
    resourceName: 'r0',
    nodeName: 'alpha',
    onFatal: () => t.fail(),
  });
  t.is(refused.ok ? null : refused.refusal.code, 'metadata-in-use');
});
