/**
 * Flushes that fail, and what becomes of clients' requests then: never a success that rests on what may be gone (W2), and no
 * acknowledged write lost while a copy has it.
 */
import test from 'ava';
import { defaultCoreOptions } from '../../../replicator/core/options.ts';
import {
  attach,
  detach,
  flushed,
  mirroring,
  mirroringPrimary,
  outcome,
  run,
  summary,
} from '../../support/pair.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

test('a flush that fails on the only whole copy is an error, though a peer that is being copied to has flushed', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 3, 2);
  pair.settle();
  pair.healLink();
  const releaseResync = pair.hold('write', 'b');
  pair.settle();
  t.is(summary(pair, 'a'), 'Primary/UpToDate Connected SyncSource Secondary/Inconsistent');
  const releaseFlush = pair.hold('flush', 'a');
  const flush = pair.flush('a');
  pair.settle();
  t.is(pair.core('a').flushes.oldestUnansweredMs(), null, 'the target has flushed what it has');
  pair.disk('a').failFlushes = true;
  releaseFlush();
  pair.settle();
  pair.disk('a').losePower();
  pair.disk('a').repair();
  releaseResync();
  t.is(outcome(pair, 'a', attach), 'ok');
  pair.settle();
  t.deepEqual(pair.lostBlocks('a'), [3]);
  t.is(flush.outcome, 'EIO');
});

for (const operation of ['write', 'fua', 'flush'] as const) {
  test(`a ${operation} that only the peer has carried out waits for a lost peer no longer than any other request`, (t) => {
    const pair = flushed();
    const releaseHandOff = pair.hold('packet:peerDiskGone', 'b');
    const releaseDisk = pair.hold(operation === 'write' ? 'write' : 'flush', 'a');
    if (operation === 'write') pair.disk('a').failWrites = true;
    else pair.disk('a').failFlushes = true;
    const request =
      operation === 'flush' ? pair.flush('a') : pair.write('a', 0, 5, { fua: operation === 'fua' });
    pair.settle();
    releaseDisk();
    pair.settle();
    t.is(request.outcome, 'pending', 'not before it is on record that this copy does not count');
    pair.cutLink();
    releaseHandOff();
    pair.settle();
    t.is(request.outcome, 'pending');
    pair.tick(defaultCoreOptions.noDataTimeoutMs + 1_000, 1_000);
    t.is(request.outcome, 'EIO');
  });
}

test('a flush that only a lost peer has carried out is carried out again when that is back', (t) => {
  const pair = flushed();
  const releaseHandOff = pair.hold('packet:peerDiskGone', 'b');
  const releaseDisk = pair.hold('flush', 'a');
  pair.disk('a').failFlushes = true;
  const flush = pair.flush('a');
  pair.settle();
  releaseDisk();
  pair.settle();
  pair.cutLink();
  releaseHandOff();
  pair.settle();
  t.is(flush.outcome, 'pending');
  pair.healLink();
  pair.settle();
  t.is(flush.outcome, 'ok');
  t.deepEqual(pair.disk('b').stable[0], 1);
});
test('a Primary whose flush fails while its peer is away gives way to that peer, which has all that was acknowledged', (t) => {
  const pair = mirroring();
  pair.cutLink();
  pair.disk('a').failFlushes = true;
  pair.settle();
  t.is(pair.status('a').diskState, 'Failed');
  pair.disk('a').losePower();
  pair.disk('a').repair();
  t.is(outcome(pair, 'a', attach), 'ok');
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.lostBlocks('b'), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.lostBlocks('a'), []);
});

test('a flush that fails on the peer of a Primary without a disk is an error, also once that disk is back', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  const write = pair.write('a', 3, 2);
  pair.settle();
  t.is(write.outcome, 'ok');
  pair.disk('b').failFlushes = true;
  const flush = pair.flush('a');
  pair.settle();
  t.is(flush.outcome, 'pending');
  pair.disk('b').losePower();
  pair.disk('b').repair();
  t.is(outcome(pair, 'b', attach), 'ok');
  pair.settle();
  t.deepEqual(pair.lostBlocks('b'), [3]);
  t.is(flush.outcome, 'EIO');
  const next = pair.flush('a');
  pair.settle();
  t.is(next.outcome, 'ok');
});

test('a source whose disk fails under the Primary that it is copied to: the next flush says so', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  pair.write('a', 3, 2);
  pair.settle();
  const releaseResync = pair.hold('read', 'b');
  t.is(outcome(pair, 'a', attach), 'ok');
  t.is(summary(pair, 'a'), 'Primary/Inconsistent Connected SyncTarget Secondary/UpToDate');
  const write = pair.write('a', 5 * blocksPerExtent, 7);
  pair.settle();
  t.is(write.outcome, 'ok');
  pair.disk('b').failFlushes = true;
  const flush = pair.flush('a');
  releaseResync();
  pair.settle();
  pair.disk('b').losePower();
  pair.disk('b').repair();
  t.is(outcome(pair, 'b', attach), 'ok');
  pair.settle();
  t.deepEqual(pair.lostBlocks('b'), [5 * blocksPerExtent]);
  t.is(flush.outcome, 'EIO');
});

for (const own of ['no disk', 'a disk that is copied to'] as const) {
  test(`the power fails under the only whole copy of a Primary with ${own}: its next flush says so, once`, (t) => {
    const pair = flushed();
    run(pair, 'a', detach);
    const releaseResync = pair.hold('read', 'b');
    if (own !== 'no disk') run(pair, 'a', attach);
    const write = pair.write('a', 5 * blocksPerExtent, 2);
    pair.settle();
    t.is(write.outcome, 'ok');
    pair.crash('b', 'power');
    releaseResync();
    pair.settle();
    pair.restart('b');
    pair.settle();
    t.deepEqual(pair.lostBlocks('b'), [5 * blocksPerExtent]);
    const outcomes = [pair.flush('a'), pair.flush('a')];
    pair.settle();
    t.deepEqual(
      outcomes.map((flush) => flush.outcome),
      ['EIO', 'ok'],
    );
  });
}

test('a flush under way when the power fails under the only whole copy is an error', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  pair.write('a', 3, 2);
  pair.settle();
  const releaseFlush = pair.hold('flush', 'b');
  const flush = pair.flush('a');
  pair.settle();
  pair.crash('b', 'power');
  releaseFlush();
  pair.settle();
  pair.restart('b');
  pair.settle();
  t.is(flush.outcome, 'EIO');
});

test('the only whole copy of a Primary goes down with nothing unflushed, or only its link does: no flush fails', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  pair.write('a', 3, 2);
  pair.settle();
  pair.breakSession();
  pair.settle();
  const afterBreak = pair.flush('a');
  pair.settle();
  t.is(afterBreak.outcome, 'ok');
  pair.crash('b', 'power');
  pair.settle();
  pair.restart('b');
  pair.settle();
  const afterCrash = pair.flush('a');
  pair.settle();
  t.is(afterCrash.outcome, 'ok');
  t.deepEqual(pair.lostBlocks('b'), []);
});

test('the only whole copy fails under flushes that wait: each of them is an error, and the next one is not', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 3, 2);
  pair.settle();
  pair.disk('a').failFlushes = true;
  const write = pair.write('a', 0, 3, { fua: true });
  pair.settle();
  t.is(write.outcome, 'EIO');
  const waiting = [pair.flush('a'), pair.flush('a')];
  pair.settle();
  t.deepEqual(pair.status('a').suspended, ['no-data']);
  pair.disk('a').losePower();
  pair.disk('a').repair();
  run(pair, 'a', attach);
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.lostBlocks('a'), [3]);
  t.deepEqual(
    waiting.map((flush) => flush.outcome),
    ['EIO', 'EIO'],
  );
  const next = pair.flush('a');
  pair.settle();
  t.is(next.outcome, 'ok');
});

test('the power fails under the only whole copy, the peer, and flushes under way there: each of them is an error', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  pair.write('a', 3, 2);
  pair.settle();
  const releaseFlush = pair.hold('flush', 'b');
  const underWay = [pair.flush('a'), pair.flush('a')];
  pair.settle();
  pair.crash('b', 'power');
  releaseFlush();
  pair.settle();
  pair.restart('b');
  pair.settle();
  t.deepEqual(pair.lostBlocks('b'), [3]);
  t.deepEqual(
    underWay.map((flush) => flush.outcome),
    ['EIO', 'EIO'],
  );
  const next = pair.flush('a');
  pair.settle();
  t.is(next.outcome, 'ok');
});
