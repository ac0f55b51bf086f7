/** Group commit of the activity log: which writes share a transaction, and which wait for none (W4). */
import test from 'ava';
import { detach, flushed, run } from '../../support/pair.ts';
import type { Request, TwoCores } from '../../support/two-cores.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

/** Mirroring and stable, with the first extent of the device active. */
function pairOf(extents: number, activityLogExtents: number): TwoCores {
  const pair = flushed({ extents, core: { activityLogExtents } });
  pair.write('a', 0, 1);
  pair.settle();
  return pair;
}

/** A write to each of the extents, all in one turn. */
function writeEach(pair: TwoCores, first: number, count: number): readonly Request[] {
  return Array.from({ length: count }, (_, i) => pair.write('a', (first + i) * blocksPerExtent, 100 + i));
}

function outcomes(requests: readonly Request[]): readonly string[] {
  return [...new Set(requests.map(({ outcome }) => outcome))];
}

test('group commit: the misses of one turn cost one transaction', (t) => {
  const pair = pairOf(40, 40);
  const { commits } = pair.metadata('a');
  const writes = writeEach(pair, 1, 32);
  t.false(pair.isWaiting('commit', 'a'));
  pair.settle();
  t.deepEqual(outcomes(writes), ['ok']);
  t.is(pair.metadata('a').commits, commits + 1);
  t.is(pair.metadata('a').durable.at(-1)?.activate?.length, 32);
});

test('group commit: so do those that evict', (t) => {
  const pair = pairOf(40, 10);
  writeEach(pair, 1, 9);
  pair.settle();
  pair.flush('a');
  pair.settle();
  const { commits } = pair.metadata('a');
  const writes = writeEach(pair, 20, 10);
  pair.settle();
  t.deepEqual(outcomes(writes), ['ok']);
  t.is(pair.metadata('a').commits, commits + 1);
  t.is(pair.metadata('a').durable.at(-1)?.deactivate?.length, 10);
});

test('group commit: misses that arrive while one is under way share the next', (t) => {
  const pair = pairOf(40, 40);
  const { commits } = pair.metadata('a');
  const release = pair.hold('commit', 'a');
  const first = writeEach(pair, 1, 1);
  pair.settle();
  const later = [...writeEach(pair, 2, 5)];
  pair.settle();
  later.push(...writeEach(pair, 7, 5));
  pair.settle();
  t.deepEqual(outcomes([...first, ...later]), ['pending']);
  release();
  pair.settle();
  t.deepEqual(outcomes([...first, ...later]), ['ok']);
  t.is(pair.metadata('a').commits, commits + 2);
});

test('group commit: a write to an active extent waits neither for the turn nor for the commit of others', (t) => {
  const pair = pairOf(40, 40);
  const releaseTurn = pair.hold('turn', 'a');
  const misses = writeEach(pair, 1, 3);
  const early = pair.write('a', 1, 7);
  pair.settle();
  t.is(early.outcome, 'ok');
  const releaseCommit = pair.hold('commit', 'a');
  releaseTurn();
  pair.settle();
  t.true(pair.isWaiting('commit', 'a'));
  const late = pair.write('a', 2, 8);
  pair.settle();
  t.is(late.outcome, 'ok');
  t.deepEqual(outcomes(misses), ['pending']);
  releaseCommit();
  pair.settle();
  t.deepEqual(outcomes(misses), ['ok']);
});

test('group commit: nothing is sent or written before the extents are active on record', (t) => {
  const pair = pairOf(40, 40);
  pair.hold('committed', 'a');
  const sent = pair.sent('a').length;
  writeEach(pair, 1, 3);
  pair.settle();
  t.is(pair.sent('a').length, sent);
  t.is(pair.disk('a').visible[blocksPerExtent], 0);
});

test('group commit: writes that come to the only disk, that of the Secondary, share one as well', (t) => {
  const pair = pairOf(40, 40);
  run(pair, 'a', detach);
  const { commits } = pair.metadata('b');
  const release = pair.hold('turn', 'b');
  const writes = writeEach(pair, 1, 8);
  pair.settle();
  release();
  pair.settle();
  t.deepEqual(outcomes(writes), ['ok']);
  t.is(pair.metadata('b').commits, commits + 1);
});

test('group commit: more of them than the log holds, and time that passes: none is left behind', (t) => {
  const pair = pairOf(40, 7);
  run(pair, 'a', detach);
  const release = pair.hold('write', 'b');
  const writes = writeEach(pair, 1, 30);
  pair.settle();
  pair.tick(300);
  release();
  pair.settle();
  t.deepEqual(outcomes(writes), ['ok']);
});

test('group commit: the disk goes away before the turn ends: the writes go on without its log', (t) => {
  const pair = pairOf(40, 40);
  const release = pair.hold('turn', 'a');
  const writes = writeEach(pair, 1, 4);
  run(pair, 'a', detach);
  release();
  pair.settle();
  t.deepEqual(outcomes(writes), ['ok']);
  t.deepEqual(pair.lostBlocks('b'), []);
});
