/**
 * What comes late: answers of a disk after it has gone, writes that have waited through a change of roles, records that are
 * made while something else is under way.
 */
import test from 'ava';
import { LocalDisk } from '../../../replicator/core/local-disk.ts';
import { Out } from '../../../replicator/core/out.ts';
import {
  attach,
  demoteByForce,
  detach,
  disconnect,
  failover,
  flushed,
  inShort,
  mirroring,
  outcome,
  promote,
  promoteByForce,
  run,
  stop,
  summary,
} from '../../support/pair.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

for (const protocol of ['A', 'B', 'C'] as const) {
  test(`protocol ${protocol}: a write with FUA is acknowledged when the Secondary has flushed, and not before (W2)`, (t) => {
    const pair = flushed({ core: { protocol } });
    const release = pair.hold('flush', 'b');
    const write = pair.write('a', 3, 7, { fua: true });
    pair.settle();
    t.is(write.outcome, 'pending');
    release();
    pair.settle();
    t.is(write.outcome, 'ok');
    t.deepEqual(pair.lostBlocks('b'), []);
  });
}

test('a write that has waited for its range through a time without the role is refused, though this node is Primary again (W13)', (t) => {
  const pair = mirroring();
  const release = pair.hold('write', 'a');
  const slow = pair.write('a', 5, 2);
  const waiting = pair.write('a', 5, 3);
  pair.settle();
  t.is(outcome(pair, 'b', disconnect), 'ok');
  t.is(outcome(pair, 'b', promoteByForce), 'ok');
  pair.healLink();
  run(pair, 'b', { kind: 'connect', discardMyData: false, dryRun: false });
  pair.tick(1000);
  t.is(pair.status('a').role, 'Secondary');
  pair.crash('b');
  pair.tick(6000);
  t.is(outcome(pair, 'a', promoteByForce), 'ok');
  const newer = pair.write('a', 5, 4);
  release();
  pair.settle();
  pair.tick(1000);
  t.is(newer.outcome, 'ok');
  t.is(slow.outcome, 'ESHUTDOWN');
  t.is(waiting.outcome, 'ESHUTDOWN');
  const read = pair.read('a', 5);
  pair.settle();
  t.deepEqual(read.stamps, [4]);
});

test('a Primary without a disk forgets an epoch when the Secondary has flushed it', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'a', detach), 'ok');
  for (let stamp = 2; stamp < 30; stamp++) {
    pair.write('a', stamp, stamp);
    pair.settle();
    pair.flush('a');
    pair.settle();
  }
  t.is(pair.core('a').tableSizes().epochs, 1);
});

test('a flush under way when the disk goes has failed at once, and its answer means nothing when the disk is back (W2)', (t) => {
  const out = new Out();
  const disk = new LocalDisk(out);
  const outcomes: string[] = [];
  disk.flush((outcome) => outcomes.push(outcome));
  const [effect] = out.take();
  disk.onGone();
  t.deepEqual(outcomes, ['failed']);
  if (effect?.kind !== 'flushLocal') return t.fail('nothing is flushed');
  disk.onFlushed(effect.id, 'ok');
  t.deepEqual(outcomes, ['failed']);
});

test('a Secondary without a disk is told when its Primary goes on alone, and does not take its old disk for the newest', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'b', detach), 'ok');
  pair.write('a', 1, 8);
  pair.settle();
  t.is(outcome(pair, 'a', demoteByForce), 'ok');
  t.is(outcome(pair, 'b', promote), 'ok');
  t.is(outcome(pair, 'a', { kind: 'detach', force: true }), 'ok');
  run(pair, 'b', attach);
  t.regex(summary(pair, 'b'), /^Primary\/Outdated /);
  run(pair, 'a', attach);
  pair.tick(1000);
  const read = pair.read('b', 1);
  pair.settle();
  t.deepEqual(read.stamps, [8]);
});

test('the record of a generation that both are to share waits for what is under way, and for a flush', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'a', demoteByForce), 'ok');
  t.is(outcome(pair, 'a', promote), 'ok');
  const { current } = pair.metadata('a').superblock;
  const release = pair.hold('flush', 'a');
  const write = pair.write('a', 2, 9);
  pair.settle();
  t.is(write.outcome, 'pending');
  t.is(pair.metadata('a').superblock.current, current);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.not(pair.metadata('a').superblock.current, current);
});

test('protocol B: a Secondary that stops has on its disk what it had acknowledged on arrival', (t) => {
  const pair = flushed({ core: { protocol: 'B' } });
  const release = pair.hold('write', 'b');
  const write = pair.write('a', 4, 6);
  pair.settle();
  t.is(write.outcome, 'ok');
  const asked = pair.command('b', stop);
  pair.settle();
  t.is(asked.result, null, 'it waits for the write that has arrived');
  t.true(pair.metadata('b').superblock.linked);
  release();
  pair.settle();
  t.true(asked.result?.ok);
  t.false(pair.metadata('b').superblock.linked);
});

test('protocol B: a Secondary that loses its Primary is a survivor once what had arrived is on its disk', (t) => {
  const pair = flushed({ core: { protocol: 'B' } });
  const release = pair.hold('write', 'b');
  const write = pair.write('a', 4, 6);
  pair.settle();
  t.is(write.outcome, 'ok');
  pair.crash('a');
  pair.tick(6000);
  t.true(pair.metadata('b').superblock.linked);
  release();
  pair.settle();
  t.false(pair.metadata('b').superblock.linked);
});

for (const protocol of ['A', 'B'] as const) {
  test(`protocol ${protocol}: a Secondary is promoted by force once what had arrived is on its disk, and shows it`, (t) => {
    const pair = flushed({ core: { protocol } });
    const release = pair.hold('write', 'b');
    const write = pair.write('a', 0, 6);
    pair.settle();
    t.is(write.outcome, 'ok');
    pair.crash('a', 'power');
    pair.settle();
    const asked = pair.command('b', promoteByForce);
    pair.settle();
    t.is(asked.result, null);
    release();
    pair.settle();
    t.true(asked.result?.ok);
    const read = pair.read('b', 0);
    pair.settle();
    t.deepEqual(read.stamps, [6]);
  });
}

test('protocol B: a Secondary whose disk fails with what had arrived is not promoted, though by force', (t) => {
  const pair = flushed({ core: { protocol: 'B' } });
  const release = pair.hold('write', 'b');
  pair.write('a', 0, 6);
  pair.settle();
  pair.crash('a', 'power');
  pair.settle();
  const asked = pair.command('b', promoteByForce);
  pair.disk('b').failWrites = true;
  release();
  pair.settle();
  t.is(inShort(asked.result), 'no-disk');
  t.is(pair.status('b').role, 'Secondary');
  pair.restart('a');
  pair.settle();
  t.is(outcome(pair, 'a', promote), 'ok', 'no record stands in the way of the other copy');
});

test('protocol A: what a Primary without a disk writes twice is written in that order, though the first write waits for its extents (W5)', (t) => {
  const pair = flushed({ core: { protocol: 'A' } });
  t.is(outcome(pair, 'a', detach), 'ok');
  pair.write('a', blocksPerExtent - 1, 4);
  pair.settle();
  const release = pair.hold('commit', 'b');
  const first = pair.write('a', blocksPerExtent - 1, 5, { count: 2 });
  pair.settle();
  t.is(first.outcome, 'ok');
  const second = pair.write('a', blocksPerExtent - 1, 6);
  pair.settle();
  t.is(second.outcome, 'ok');
  release();
  pair.settle();
  const read = pair.read('a', blocksPerExtent - 1, 2);
  pair.settle();
  t.deepEqual(read.stamps, [6, 5]);
});

test('a wish of the peer to take over that had to wait is forgotten with its session: the Primary stays one', (t) => {
  const pair = flushed();
  run(pair, 'a', demoteByForce);
  run(pair, 'a', promote);
  const release = pair.hold('commit', 'a');
  pair.write('a', 1, 2);
  pair.settle();
  const asked = pair.command('b', failover);
  pair.settle();
  pair.cutLink();
  pair.settle();
  t.is(inShort(asked.result), 'not-connected');
  release();
  pair.tick(1000);
  t.is(pair.status('a').role, 'Primary');
});
