/** Many ranges at once on a real file: data packed in order, holes told apart, errors answered once. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { RangesFound } from '../../../replicator/core/event.ts';
import type { BackingStore } from '../../../replicator/shell/backing-store.ts';
import { faultyFileIo } from '../../../replicator/shell/fault-io.ts';
import { readRanges, writeRanges } from '../../../replicator/shell/scattered-io.ts';
import { openStore, outcome } from '../../support/backing.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const blockBytes = 4096;
/** Of every second block, as many as would be too many seeks at a time. */
const ranges = Array.from({ length: 400 }, (_, at) => ({ offset: 2 * at * blockBytes, length: blockBytes }));

function openedStore(t: ExecutionContext, faulty = false): Promise<BackingStore> {
  const path = join(temporaryDirectory(t), 'data');
  const io = faulty ? { io: faultyFileIo((kind) => kind === 'failReads') } : {};
  return openStore(t, { path, sizeBytes: 8 * 1024 * 1024, ...io });
}

function found(store: BackingStore, of = ranges): Promise<RangesFound | null> {
  return new Promise((resolve) => readRanges(store, of, resolve));
}

test('what is written to many ranges is read back from them, and nothing lies between', async (t) => {
  const store = await openedStore(t);
  const data = randomBytes(ranges.length * blockBytes);
  t.is(await outcome((done) => writeRanges(store, ranges, data, done)), null);
  const answer = await found(store);
  t.deepEqual(
    answer?.isHole,
    ranges.map(() => false),
  );
  t.true(answer?.payload instanceof Uint8Array && data.equals(answer.payload));
  const between = await found(store, [{ offset: blockBytes, length: blockBytes }]);
  t.deepEqual(between, { isHole: [true], payload: null });
});

test('holes among the ranges are told, and take no room in the data', async (t) => {
  const store = await openedStore(t);
  const some = ranges.filter((_, at) => at % 3 === 0);
  const data = randomBytes(some.length * blockBytes);
  t.is(await outcome((done) => writeRanges(store, some, data, done)), null);
  const answer = await found(store);
  t.deepEqual(
    answer?.isHole,
    ranges.map((_, at) => at % 3 !== 0),
  );
  t.true(answer?.payload instanceof Uint8Array && data.equals(answer.payload));
  t.is(await outcome((done) => writeRanges(store, some, null, done)), null);
  t.is((await found(store))?.payload, null);
});

test('a range that cannot be read fails all of them, once', async (t) => {
  const store = await openedStore(t, true);
  t.is(
    await outcome((done) => writeRanges(store, ranges, randomBytes(ranges.length * blockBytes), done)),
    null,
  );
  t.is(await found(store), null);
});
