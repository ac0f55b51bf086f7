/** When operations run on the calling thread and when in the pool, by an injected clock. */
import test from 'ava';
import { QuickPath } from '../../../replicator/shell/quick-path.ts';

function scripted(restOps = 3, restOpsMax = 12) {
  let nowMs = 0;
  const path = new QuickPath({ nowMs: () => nowMs, slowMs: 2, restOps, restOpsMax });
  const take = (tookMs: number): void => path.run(() => void (nowMs += tookMs));
  /** Operations sent to the pool before the own thread is tried again. */
  const rest = (): number => {
    let count = 0;
    while (!path.isOpen()) count += 1;
    return count;
  };
  return { path, take, rest };
}

test('operations stay on the thread while they are quick', (t) => {
  const { path, take } = scripted();
  for (let i = 0; i < 100; i++) {
    t.true(path.isOpen());
    take(2);
  }
});

test('a slow operation sends the next ones to the pool, then the thread is tried again', (t) => {
  const { path, take, rest } = scripted(3);
  take(2.1);
  t.is(rest(), 3);
  t.true(path.isOpen());
});

test('slow operations in a row send ever more to the pool, up to the limit', (t) => {
  const { take, rest } = scripted(3, 10);
  const rests = [0, 1, 2, 3].map(() => {
    take(50);
    return rest();
  });
  t.deepEqual(rests, [3, 6, 10, 10]);
});

test('a quick operation forgets the slow ones before it', (t) => {
  const { take, rest } = scripted(3, 12);
  take(50);
  rest();
  take(50);
  t.is(rest(), 6);
  take(1);
  take(50);
  t.is(rest(), 3);
});

test('a slow operation that throws is learnt from as well', (t) => {
  let nowMs = 0;
  const path = new QuickPath({ nowMs: () => nowMs, slowMs: 2, restOps: 1, restOpsMax: 1 });
  t.throws(() =>
    path.run(() => {
      nowMs += 5;
      throw new Error('EIO');
    }),
  );
  t.false(path.isOpen());
});
