/** When blocks written to both sides stop counting as unstable. */
import test from 'ava';
import { Epochs } from '../../../replicator/core/epochs.ts';

function drained(epochs: Epochs): number[] {
  const blocks = new Set<number>();
  epochs.drain((bitmap) => {
    for (const { first, count } of bitmap.runs()) for (let i = 0; i < count; i++) blocks.add(first + i);
  });
  return [...blocks].toSorted((a, b) => a - b);
}

test('blocks of an epoch are forgotten when flushes of both sides cover it, in either order', (t) => {
  for (const order of ['local', 'peer'] as const) {
    const epochs = new Epochs(100);
    const epoch = epochs.begin(0, 4096);
    epochs.localDone(epoch);
    t.is(epochs.close(), epoch);
    const local = (): void => epochs.onLocalStable(epochs.localCover());
    const peer = (): void => epochs.onPeerStable(epoch);
    if (order === 'local') local();
    else peer();
    t.is(epochs.stable, 0);
    if (order === 'local') peer();
    else local();
    t.is(epochs.stable, epoch);
    t.deepEqual(drained(epochs), []);
  }
});

test('what is not stable on both sides is handed out, rounded out to blocks, and only once', (t) => {
  const epochs = new Epochs(100);
  epochs.localDone(epochs.begin(100, 4096));
  const first = epochs.close();
  epochs.onLocalStable(epochs.localCover());
  epochs.begin(10 * 4096, 1);
  t.is(first, 1);
  t.deepEqual(drained(epochs), [0, 1, 10]);
  t.deepEqual(drained(epochs), []);
});

test('a local flush covers no epoch with a write still under way', (t) => {
  const epochs = new Epochs(100);
  const one = epochs.begin(0, 4096);
  epochs.close();
  const two = epochs.begin(4096, 4096);
  epochs.localDone(two);
  epochs.close();
  t.is(epochs.localCover(), one - 1);
  epochs.localDone(one);
  t.is(epochs.localCover(), two);
});

test('after the loss of the peer nothing counts as unstable, and late completions of before are ignored', (t) => {
  const epochs = new Epochs(100);
  const epoch = epochs.begin(0, 4096);
  drained(epochs);
  t.true(epochs.stable >= epoch);
  t.true(epochs.current > epochs.stable);
  epochs.localDone(epoch);
  t.notThrows(() => epochs.localDone(epoch));
});

test('an epoch that completes more writes than it began is a bug', (t) => {
  const epochs = new Epochs(100);
  t.throws(() => epochs.localDone(epochs.current), { message: /more local writes/ });
});

test('a device that grows: what was unstable before stays so, and the new area counts', (t) => {
  const epochs = new Epochs(8);
  epochs.begin(7 * 4096, 4096);
  epochs.grow(20);
  epochs.begin(19 * 4096, 4096);
  epochs.close();
  epochs.begin(12 * 4096, 4096);
  t.deepEqual(drained(epochs), [7, 12, 19]);
});

test('epochs without writes leave nothing to remember, however many flushes there are', (t) => {
  const epochs = new Epochs(100);
  for (let flush = 1; flush <= 1000; flush++) t.is(epochs.close(), flush);
  t.is(epochs.openCount, 1);
  const epoch = epochs.begin(0, 4096);
  t.is(epoch, 1001);
  epochs.localDone(epoch);
  epochs.close();
  epochs.onLocalStable(epochs.localCover());
  epochs.onPeerStable(epoch);
  t.deepEqual(drained(epochs), []);
});

test('while one write does not end, the epochs after it are joined: their number is bounded, nothing is forgotten', (t) => {
  const epochs = new Epochs(4000);
  const stuck = epochs.begin(0, 4096);
  epochs.close();
  const underWay: number[] = [];
  for (let block = 1; block <= 1000; block++) {
    const epoch = epochs.begin(block * 4096, 4096);
    if (block % 10 === 0) underWay.push(epoch);
    else epochs.localDone(epoch);
    epochs.onPeerStable(epochs.close());
    t.is(epochs.localCover(), stuck - 1);
    t.false(epochs.hasMoreToProve);
  }
  t.true(epochs.openCount < 100);
  t.is(epochs.unstableBlocks, 1001);
  epochs.localDone(stuck);
  t.true(epochs.hasMoreToProve);
  epochs.onLocalStable(epochs.localCover());
  // Writes of joined epochs are still under way: these and all that is joined with them stay.
  t.is(epochs.localCover(), (underWay[0] ?? 0) - 1);
  t.true(epochs.stable < (underWay[0] ?? 0));
  for (const epoch of underWay) epochs.localDone(epoch);
  epochs.onLocalStable(epochs.localCover());
  t.is(epochs.stable, epochs.current - 1);
  t.is(epochs.openCount, 1);
  t.deepEqual(drained(epochs), []);
});
