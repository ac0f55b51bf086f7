/** Holds a backing store open until its input ends: a second process for the tests of the lock. */
import { openBackingStore } from '../../replicator/shell/backing-opening.ts';
import { someIdentity } from './backing.ts';

const [path = '', sizeBytes = ''] = process.argv.slice(2);
const opened = await openBackingStore({
  path,
  sizeBytes: Number(sizeBytes),
  create: true,
  identity: someIdentity,
  binding: null,
});
console.log(opened.ok ? 'open' : opened.refusal.code);
process.stdin.resume();
