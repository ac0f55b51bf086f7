/**
 * Commits numbered transactions as fast as they become durable, and says which are, until it is killed. Transaction n sets
 * the size to n, activates extent n, and puts n into both chunk 0 and chunk n modulo 100: parts that must agree.
 */
import { openMetadata } from '../../replicator/shell/metadata-store.ts';
import { initialiseDone, someSuperblock } from './metadata.ts';
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
await initialiseDone(store, { ...someSuperblock, sizeBytes: 1 });

/** As many are under way at once, so that commits share a transaction of the database. */
const depth = 5;
let next = 1;
function commitNext(): void {
  const n = next++;
  const image = Buffer.alloc(8);
  image.writeBigUInt64LE(BigInt(n));
  store.commit(
    {
      superblock: { ...someSuperblock, sizeBytes: n },
      activate: [{ first: n, count: 1 }],
      chunks: [
        { chunk: 0, image },
        { chunk: 1 + (n % 100), image },
      ],
    },
    () => {
      // Straight to the pipe: what has been said must have been durable before.
      sayLine(String(n));
      commitNext();
    },
  );
}
for (let i = 0; i < depth; i++) commitNext();
