/** Giving up one of two copies: the other one is stable first, and stays; and what is left when a disk fails unasked. */
import test from 'ava';
import type { Command } from '../../../replicator/core/command.ts';
import type { DiskState } from '../../../replicator/core/vocabulary.ts';
import {
  attach,
  bothSecondary,
  connect,
  connected,
  detach,
  detachByForce,
  disconnect,
  flushed,
  inShort,
  invalidate,
  invalidatePeer,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  promoteByForce,
  run,
  summary,
} from '../../support/pair.ts';
import { names, other } from '../../support/two-cores.ts';
import type { Name } from '../../support/two-cores.ts';

const ways: readonly { what: string; on: Name; command: Command; survivor: Name; gone: DiskState }[] = [
  { what: 'detach of the Secondary', on: 'b', command: detach, survivor: 'a', gone: 'Diskless' },
  {
    what: 'detach by force of the Secondary',
    on: 'b',
    command: detachByForce,
    survivor: 'a',
    gone: 'Diskless',
  },
  { what: 'detach of the Primary', on: 'a', command: detach, survivor: 'b', gone: 'Diskless' },
  { what: 'invalidate', on: 'b', command: invalidate, survivor: 'a', gone: 'Inconsistent' },
  { what: 'invalidate-peer', on: 'a', command: invalidatePeer, survivor: 'a', gone: 'Inconsistent' },
  { what: 'disconnect of the Primary', on: 'a', command: disconnect, survivor: 'a', gone: 'Outdated' },
];

for (const { what, on, command, survivor, gone } of ways) {
  test(`${what}: the copy that is left holds on stable storage all that was acknowledged`, (t) => {
    const pair = flushed();
    const write = pair.write('a', 5, 9);
    pair.settle();
    t.is(write.outcome, 'ok');
    t.is(pair.disk(survivor).stable[5], 0);
    const release = pair.hold('flush', survivor);
    // What is copied afterwards is not the question here.
    pair.hold('read', survivor);
    const asked = pair.command(on, command);
    pair.settle();
    const victim = other(survivor);
    t.is(pair.status(victim).diskState, 'UpToDate');
    t.is(pair.metadata(victim).superblock.disk, 'UpToDate');
    t.is(asked.result === null || command === invalidatePeer, true);
    release();
    pair.settle();
    t.is(inShort(asked.result), 'ok');
    t.is(pair.status(victim).diskState, gone);
    t.is(pair.disk(survivor).stable[5], 9);
  });
}

test('two nodes that detach at the same moment: one does, the other one stays', (t) => {
  for (const start of [() => connected(), () => flushed()]) {
    const pair = start();
    const asked = names.map((name) => pair.command(name, detach));
    pair.settle();
    t.deepEqual(
      asked.map(({ result }) => inShort(result)),
      ['ok', 'busy'],
    );
    t.is(pair.status('a').diskState, 'Diskless');
    t.is(pair.status('b').diskState, 'UpToDate');
    t.is(pair.metadata('b').superblock.disk, 'UpToDate');
    run(pair, 'a', attach);
    t.deepEqual(pair.differences(), []);
  }
});

test('of a detach and an invalidate at the same moment one is carried out', (t) => {
  const pair = connected();
  const asked = [pair.command('b', invalidate), pair.command('a', detach)];
  pair.settle();
  t.deepEqual(
    asked.map(({ result }) => inShort(result)),
    ['busy', 'ok'],
  );
  t.is(pair.status('b').diskState, 'UpToDate');
});

test('a node that has granted the other its detach keeps its own disk until that is done', (t) => {
  const pair = connected();
  const release = pair.hold('packet:giveUpReply', 'a');
  const asked = pair.command('a', detach);
  pair.settle();
  t.is(outcome(pair, 'b', detach), 'busy');
  t.is(outcome(pair, 'b', detachByForce), 'busy');
  t.is(outcome(pair, 'b', invalidate), 'busy');
  release();
  pair.settle();
  t.is(inShort(asked.result), 'ok');
  t.is(outcome(pair, 'b', detach), 'ok', 'nobody is Primary: it may go too');
});

test('a copy that cannot be made stable is not the one to be left', (t) => {
  const pair = flushed();
  pair.disk('b').failFlushes = true;
  t.is(outcome(pair, 'a', detach), 'busy');
  t.is(summary(pair, 'a'), 'Primary/UpToDate Connected Established Secondary/Failed');
  t.is(outcome(pair, 'a', detach), 'last-copy');
});

for (const [command, on] of [
  [disconnect, 'a'],
  [invalidatePeer, 'a'],
] as const) {
  test(`${command.kind}: refused when the own copy cannot be made stable`, (t) => {
    const pair = flushed();
    pair.disk('a').failFlushes = true;
    t.is(outcome(pair, on, command), 'backing-failed');
    t.is(pair.status('b').diskState, 'UpToDate');
    t.is(pair.status('b').peer?.connection, 'Connected');
  });
}

test('a connect that comes while a disconnect waits for the disk is the last word', (t) => {
  const pair = flushed();
  const release = pair.hold('flush', 'a');
  const asked = pair.command('a', disconnect);
  pair.settle();
  t.is(outcome(pair, 'a', connect), 'ok');
  release();
  pair.settle();
  t.is(inShort(asked.result), 'busy');
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('the connection is lost before the other copy is known to be stable: nothing is given up', (t) => {
  for (const command of [detach, invalidate]) {
    const pair = flushed();
    pair.hold('flush', 'a');
    const asked = pair.command('b', command);
    pair.settle();
    pair.cutLink();
    pair.settle();
    t.is(inShort(asked.result), 'not-connected');
    t.true(pair.core('b').hasDisk);
    t.not(pair.status('b').diskState, 'Inconsistent');
  }
});

test('a peer that is too slow to make its copy stable: refused, and later neither node is stuck with it', (t) => {
  const pair = connected();
  const release = pair.hold('flush', 'b');
  const asked = pair.command('a', detach);
  pair.tick(20_200);
  t.is(inShort(asked.result), 'busy');
  t.is(summary(pair, 'a'), bothSecondary);
  release();
  pair.settle();
  t.is(summary(pair, 'a'), bothSecondary, 'the grant is too late');
  t.is(outcome(pair, 'b', detach), 'ok');
  t.is(summary(pair, 'a'), 'Secondary/UpToDate Connected Established Secondary/Diskless');
});

test('a disk that fails: the Primary flushes its own at once, without being asked', (t) => {
  const pair = flushed();
  pair.write('a', 5, 9);
  pair.settle();
  pair.disk('b').failWrites = true;
  pair.write('a', 6, 9);
  const release = pair.hold('write', 'a');
  pair.settle();
  t.is(pair.disk('a').stable[5], 9);
  release();
  pair.settle();
  t.deepEqual(pair.lostBlocks('a'), []);
});

test('a Primary whose disk fails acknowledges nothing before the other copy is stable', (t) => {
  const pair = flushed();
  pair.write('a', 5, 9);
  pair.settle();
  const release = pair.hold('flush', 'b');
  pair.disk('a').failWrites = true;
  const write = pair.write('a', 6, 9);
  pair.settle();
  t.is(pair.status('a').diskState, 'Failed');
  t.is(write.outcome, 'pending');
  t.is(pair.disk('b').stable[5], 0);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.disk('b').stable[5], 9);
});

test('both disks fail, one while it is to take over from the other: requests wait for data, and then fail', (t) => {
  const pair = flushed();
  pair.disk('b').failFlushes = true;
  pair.disk('a').failWrites = true;
  const write = pair.write('a', 6, 9);
  pair.settle();
  t.is(summary(pair, 'a'), 'Primary/Failed Connected Established Secondary/Failed');
  t.deepEqual(pair.status('a').suspended, ['no-data']);
  pair.tick(31_000, 1_000);
  t.is(write.outcome, 'EIO');
  pair.disk('a').repair();
  run(pair, 'a', attach);
  t.is(outcome(pair, 'a', promoteByForce), 'ok', 'nothing proves that this copy is the newest');
  const flushes = [pair.flush('a'), pair.flush('a')];
  pair.settle();
  t.deepEqual(
    flushes.map((flush) => flush.outcome),
    ['EIO', 'ok'],
    'what was acknowledged before may be gone: clients hear of it once',
  );
});

test('the peer is lost while it makes its copy the only one: it is asked again when it is back', (t) => {
  const pair = flushed();
  const release = pair.hold('flush', 'b');
  pair.disk('a').failWrites = true;
  const write = pair.write('a', 6, 9);
  pair.settle();
  pair.breakSession();
  pair.settle();
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.disk('b').visible[6], 9);
  pair.disk('a').repair();
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('under protocol A too, what is written while this copy is given up waits for the one that is left', (t) => {
  const pair = flushed({ core: { protocol: 'A' } });
  const release = pair.holdPacketsTo('b');
  const asked = pair.command('a', detachByForce);
  const write = pair.write('a', 5, 9);
  pair.settle();
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(inShort(asked.result), 'ok');
  t.is(pair.disk('b').visible[5], 9);
});

test('a disk takes no generation of the Primary between its attach and the handshake that finds what it lacks', (t) => {
  const pair = flushed();
  run(pair, 'b', detach);
  const arrive = pair.hold('packet:newGeneration', 'b');
  // Written alone: the generation of the copy that b lacks is on its way to b.
  pair.write('a', 5, 9);
  pair.settle();
  const known = pair.hold('committed', 'b');
  pair.command('b', attach);
  pair.settle();
  arrive();
  pair.settle();
  t.not(pair.metadata('b').superblock.current, pair.metadata('a').superblock.current);
  known();
  pair.settle();
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});
