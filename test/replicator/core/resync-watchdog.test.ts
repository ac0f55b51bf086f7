/** A resync that gets nowhere: begun anew, ever more rarely, and with its reason in the status. */
import test from 'ava';
import { flushed, invalidate, mirroringPrimary, pause, run, summary } from '../../support/pair.ts';
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { names } from '../../support/two-cores.ts';

const syncSource = 'Primary/UpToDate Connected SyncSource Secondary/Inconsistent';

function restarts(pair: TwoCores, name: Name): number {
  return pair.decisions(name).filter(({ kind, rule }) => kind === 'resync' && rule === 'restarted').length;
}

function sync(pair: TwoCores, name: Name) {
  return pair.status(name).peer?.sync ?? null;
}

for (const [what, kind, where] of [
  ['a read of the source', 'read', 'a'],
  ['a write of the target', 'write', 'b'],
  ['a flush of the target', 'flush', 'b'],
] as const) {
  test(`${what} that is never answered: the resync is begun anew after resyncStallMs`, (t) => {
    const pair = flushed();
    const release = pair.hold(kind, where, () => pair.status('b').peer?.replication === 'SyncTarget');
    run(pair, 'b', invalidate);
    pair.tick(29_000);
    t.is(restarts(pair, 'b'), 0);
    t.is(sync(pair, 'b')?.stalled, null);
    pair.tick(2_000);
    t.is(restarts(pair, 'b'), 1);
    t.is(summary(pair, 'a'), syncSource);
    t.regex(sync(pair, 'b')?.stalled ?? '', /begun anew once/);
    release();
    pair.tick(500);
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.deepEqual(pair.differences(), []);
  });
}

test('what hangs for good is tried ever more rarely', (t) => {
  const pair = flushed();
  pair.hold('read', 'a');
  run(pair, 'b', invalidate);
  pair.tick(31_000);
  t.is(restarts(pair, 'b'), 1);
  pair.tick(61_000);
  t.is(restarts(pair, 'b'), 2);
  pair.tick(600_000, 500);
  t.is(restarts(pair, 'b'), 4);
  t.is(restarts(pair, 'a'), 0, 'one of the two is enough');
});

test('a target that asks for nothing is noticed by the source', (t) => {
  const pair = flushed();
  const release = pair.hold('packet:resyncRequest', 'a');
  // Otherwise everything behind it would wait too, and the link be lost.
  pair.configure('b', { resyncStallMs: 3_600_000 });
  pair.configure('a', { peerTimeoutMs: 3_600_000 });
  run(pair, 'b', invalidate);
  pair.tick(59_000);
  t.is(restarts(pair, 'a'), 0);
  pair.tick(2_000);
  t.is(restarts(pair, 'a'), 1);
  release();
  pair.tick(500);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a paused resync is never begun anew', (t) => {
  const pair = flushed();
  pair.hold('packet:resyncData', 'b', () => sync(pair, 'b')?.pausedBy.length === 0);
  run(pair, 'b', invalidate);
  run(pair, 'a', pause);
  pair.tick(600_000, 500);
  t.is(restarts(pair, 'a') + restarts(pair, 'b'), 0);
});

test('a slow rate is no standstill', (t) => {
  const pair = flushed({ core: { resyncRateMax: 4096, resyncStallMs: 2_000 } });
  for (const name of names) pair.disk(name).fill(9);
  pair.tick(200);
  run(pair, 'b', invalidate);
  pair.tick(60_000);
  t.is(restarts(pair, 'a') + restarts(pair, 'b'), 0);
  t.true((sync(pair, 'b')?.doneBytes ?? 0) >= 50 * 4096);
});

test('unreadable blocks of the source are found one by one, named on both nodes, and keep nobody busy', (t) => {
  const pair = flushed();
  for (const name of names) pair.disk(name).fill(9);
  pair.disk('a').deadBlocks.add(5).add(7).add(8).add(3000);
  run(pair, 'b', invalidate);
  pair.tick(5_000);
  t.deepEqual(pair.marked('a'), [5, 7, 8, 3000]);
  t.is(sync(pair, 'a')?.stalled, 'this node cannot read blocks 5, 7, 8, 3000 (of 4 KiB)');
  t.is(sync(pair, 'b')?.stalled, 'a cannot read blocks 5, 7, 8, 3000 (of 4 KiB)');
  const before = pair.sent('b').length;
  pair.tick(600_000, 500);
  const asked = pair.sent('b').filter(({ kind }, at) => at >= before && kind === 'resyncRequest').length;
  t.true(asked > 20 && asked < 80, `${asked} requests in ten minutes`);
  t.is(restarts(pair, 'a') + restarts(pair, 'b'), 0);
  pair.disk('a').deadBlocks.delete(3000);
  pair.tick(61_000, 500);
  t.is(sync(pair, 'a')?.stalled, 'this node cannot read blocks 5, 7, 8 (of 4 KiB)');
  t.is(sync(pair, 'b')?.stalled, 'a cannot read blocks 5, 7, 8 (of 4 KiB)');
  pair.write('a', 7, 50, { count: 2 });
  pair.disk('a').deadBlocks.clear();
  pair.tick(61_000, 500);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('over reconnects and writes, what is done never falls and never exceeds the total', (t) => {
  const pair = flushed({ core: { resyncRateMax: 4 * 1024 * 1024 } });
  for (const name of names) pair.disk(name).fill(9);
  pair.tick(200);
  run(pair, 'b', invalidate);
  const before = { a: 0, b: 0 };
  let seen = 0;
  for (let round = 0; round < 45; round++) {
    pair.tick(200);
    pair.write('a', (round * 37) % 8000, round + 100, { count: 20 });
    pair.settle();
    if (round % 14 === 13) {
      pair.cutLink();
      pair.write('a', (round * 91) % 8000, round + 200, { count: 30 });
      pair.settle();
      pair.healLink();
      pair.settle();
    }
    for (const name of names) {
      const progress = sync(pair, name);
      if (progress === null) continue;
      seen++;
      t.true(progress.doneBytes >= before[name], `${name}: ${progress.doneBytes} after ${before[name]}`);
      t.true(progress.doneBytes <= progress.totalBytes);
      t.is(progress.totalBytes - progress.doneBytes, pair.status(name).peer?.outOfSyncBytes ?? -1);
      before[name] = progress.doneBytes;
    }
  }
  t.true(seen > 60);
  t.true(before.b > 10 * 1024 * 1024);
});

test('a resync of everything, after one that was interrupted, begins at nothing', (t) => {
  const pair = flushed({ core: { resyncRateMax: 4 * 1024 * 1024 } });
  for (const name of names) pair.disk(name).fill(9);
  pair.tick(200);
  run(pair, 'b', invalidate);
  pair.tick(4_000);
  t.true((sync(pair, 'b')?.doneBytes ?? 0) > 0);
  run(pair, 'b', invalidate);
  t.is(sync(pair, 'b')?.totalBytes, pair.sizeBytes);
  t.is(sync(pair, 'b')?.doneBytes, 0);
});
