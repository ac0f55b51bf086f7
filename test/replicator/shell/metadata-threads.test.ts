/** Many databases in a few threads: who is where, what they share and what they do not, and how a thread ends. */
import { join } from 'node:path';
import test from 'ava';
import { openMetadataDatabase } from '../../../replicator/shell/metadata-database.ts';
import { openMetadata } from '../../../replicator/shell/metadata-store.ts';
import { metadataThreads } from '../../../replicator/shell/metadata-threads.ts';
import { commitDone, contentOf, initialiseDone, someSuperblock } from '../../support/metadata.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

async function open(path: string, onFatal: (message: string) => void) {
  const opened = await openMetadata({ path, resourceName: 'r0', nodeName: 'alpha', onFatal });
  if (!opened.ok) throw new Error(opened.refusal.reason);
  return opened.store;
}

test.serial('two threads serve any number of databases, evenly, and end with the last of them', async (t) => {
  const directory = temporaryDirectory(t);
  const paths = Array.from({ length: 7 }, (_, index) => join(directory, `${index}.db`));
  const stores = await Promise.all(paths.map((path) => open(path, (message) => t.fail(message))));
  t.deepEqual(metadataThreads.loads(), [4, 3]);
  await Promise.all(
    stores.map(async (store, index) => {
      await initialiseDone(store, someSuperblock);
      await commitDone(store, { activate: [{ first: index, count: 1 }] });
    }),
  );
  await Promise.all(stores.map((store) => store.close()));
  t.deepEqual(metadataThreads.loads(), []);
  paths.forEach((path, index) => {
    t.deepEqual(contentOf(path).recorded?.image.active, [{ first: index, count: 1 }]);
  });
});

test.serial('a commit that fails is fatal to its own database only, whose lock is given back', async (t) => {
  const directory = temporaryDirectory(t);
  const failed = Promise.withResolvers<string>();
  const bad = await open(join(directory, 'bad.db'), failed.resolve);
  // The third shares a thread with one of the two.
  const others = await Promise.all(
    ['one.db', 'two.db'].map((name) => open(join(directory, name), (message) => t.fail(message))),
  );
  bad.commit({ activate: [{ first: 1, count: 1 }] }, () => t.fail());
  t.regex(await failed.promise, /must begin with a superblock/);
  await bad.close();
  const again = openMetadataDatabase({
    path: join(directory, 'bad.db'),
    resourceName: 'r0',
    nodeName: 'alpha',
  });
  t.true(again.ok);
  if (again.ok) again.database.close();
  for (const store of others) await initialiseDone(store, someSuperblock);
  for (const store of others) await store.close();
  t.deepEqual(metadataThreads.loads(), []);
});

test.serial('a refused database leaves no thread behind', async (t) => {
  const path = join(temporaryDirectory(t), 'r0.db');
  const store = await open(path, (message) => t.fail(message));
  const refused = await openMetadata({
    path,
    resourceName: 'r0',
    nodeName: 'alpha',
    onFatal: () => t.fail(),
  });
  t.is(refused.ok ? null : refused.refusal.code, 'metadata-in-use');
  t.deepEqual(metadataThreads.loads(), [1]);
  await store.close();
  t.deepEqual(metadataThreads.loads(), []);
});
