/** Commits metadata-history.ts through the real metadata thread, one after the other, and says how many are durable. */
import { openMetadata } from '../../replicator/shell/metadata-store.ts';
import { initialiseDone, someSuperblock } from './metadata.ts';
import { metadataHistory } from './metadata-history.ts';
import { sayLine } from './say-line.ts';

const [path = ''] = process.argv.slice(2);
const opened = await openMetadata({
  path,
  resourceName: 'r0',
  nodeName: 'alpha',
  onFatal: (message) => {
    throw new Error(message);
  },
});
if (!opened.ok) throw new Error(opened.refusal.reason);
const { store } = opened;
sayLine('opened');
await initialiseDone(store, someSuperblock);
sayLine('0');
for (const [index, { commit }] of metadataHistory.entries()) {
  const [first, ...others] = commit;
  if (first === undefined) throw new Error('an empty commit');
  // While a commit is under way, what comes shares the next: this one holds the rest of a list together.
  await Promise.all([
    ...(others.length === 0 ? [] : [new Promise<void>((resolve) => store.commit({}, resolve))]),
    ...commit.map((transaction) => new Promise<void>((resolve) => store.commit(transaction, resolve))),
  ]);
  sayLine(String(index + 1));
}
await store.close();
sayLine('closed');
