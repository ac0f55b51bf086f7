/** A Primary whose I/O waits: by policy until it is told to go on, or for data that an operator has to choose. */
import test from 'ava';
import type { CommandResult } from '../../../replicator/core/refusal.ts';
import {
  attach,
  demote,
  demoteByForce,
  detachByForce,
  flushed,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  promote,
  promoteByForce,
  run,
  stop,
  summary,
} from '../../support/pair.ts';
import type { PairOptions } from '../../support/two-cores.ts';

const suspend = { onPeerLoss: 'suspend' } as const;

/** a is Primary, its peer is lost, and a write waits. */
function suspended(options: PairOptions = { core: suspend }) {
  const pair = flushed(options);
  pair.cutLink();
  pair.settle();
  const write = pair.write('a', 0, 2);
  pair.settle();
  return { pair, write };
}

function givenUp(result: CommandResult | null): readonly string[] {
  return result?.ok === true ? result.givenUp : [];
}

test('suspended from the loss of the peer on, and the status says so before anybody asks', (t) => {
  const pair = flushed({ core: suspend });
  pair.cutLink();
  pair.settle();
  t.deepEqual(pair.status('a').suspended, ['policy']);
  const requests = [pair.write('a', 0, 2), pair.read('a', 0), pair.flush('a')];
  pair.tick(120_000, 5_000);
  t.deepEqual(
    requests.map((request) => request.outcome),
    ['pending', 'pending', 'pending'],
    'no error, however long it takes',
  );
  pair.healLink();
  pair.settle();
  t.deepEqual(
    requests.map((request) => request.outcome),
    ['ok', 'ok', 'ok'],
  );
  t.deepEqual(pair.status('a').suspended, []);
});

test('promote without force says what a suspended Primary waits for, and what to do', (t) => {
  const { pair, write } = suspended();
  const result = run(pair, 'a', promote);
  t.true(
    result?.ok === false && result.refusal.code === 'suspended' && /force/.test(result.refusal.nextStep),
  );
  t.is(write.outcome, 'pending');
});

test('promote with force goes on alone, once the new generation is on record', (t) => {
  const { pair, write } = suspended();
  const release = pair.hold('commit', 'a');
  const asked = pair.command('a', promoteByForce);
  pair.settle();
  t.is(asked.result, null);
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(givenUp(asked.result).length, 2);
  t.is(write.outcome, 'ok');
  t.true(pair.metadata('a').superblock.peerExcluded);
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('promote with force finds out that the peer has taken over: the suspended Primary steps down instead', (t) => {
  const { pair, write } = suspended();
  run(pair, 'b', promoteByForce);
  const taken = pair.write('b', 0, 3);
  pair.settle();
  t.is(taken.outcome, 'ok');
  // The nodes can talk again, and no session is up yet.
  const hold = pair.hold('linkUp', 'a');
  pair.healLink();
  t.is(outcome(pair, 'a', promoteByForce), 'peer-is-primary');
  t.is(write.outcome, 'ESHUTDOWN');
  t.is(pair.status('a').role, 'Secondary');
  hold();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('a dry run of promote with force leaves a Primary suspended', (t) => {
  const { pair, write } = suspended();
  const { commits } = pair.metadata('a');
  const result = run(pair, 'a', { kind: 'promote', force: true, dryRun: true });
  t.is(givenUp(result).length, 2);
  t.is(pair.metadata('a').commits, commits);
  t.is(write.outcome, 'pending');
});

test('the policy changed to continue: what waits goes on, and nothing is recorded that nobody asked for', (t) => {
  const { pair, write } = suspended();
  pair.configure('a', { onPeerLoss: 'continue' });
  pair.settle();
  t.is(write.outcome, 'ok');
  t.true(pair.metadata('a').superblock.peerExcluded);
  const idle = flushed({ core: suspend });
  idle.cutLink();
  idle.settle();
  idle.configure('a', { onPeerLoss: 'continue' });
  idle.settle();
  t.deepEqual(idle.status('a').suspended, []);
  t.false(idle.metadata('a').superblock.peerExcluded);
});

test('the policy changed to continue: a write that was in flight at the loss is acknowledged on record', (t) => {
  const pair = flushed({ core: suspend });
  const packets = pair.holdPacketsTo('b');
  const write = pair.write('a', 0, 2);
  pair.settle();
  pair.cutLink();
  packets();
  pair.settle();
  t.is(write.outcome, 'pending');
  pair.configure('a', { onPeerLoss: 'continue' });
  pair.settle();
  t.is(write.outcome, 'ok');
  t.true(pair.metadata('a').superblock.peerExcluded);
});

test('the policy changed to suspend: a Primary cut off that has not gone on alone yet stops there', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.configure('a', suspend);
  t.deepEqual(pair.status('a').suspended, ['policy']);
  const alone = flushed();
  alone.cutLink();
  alone.settle();
  alone.write('a', 0, 2);
  alone.settle();
  alone.configure('a', suspend);
  t.deepEqual(alone.status('a').suspended, [], 'this one is on record as the only copy');
});

test('demote of a suspended Primary: refused while requests wait, with force they fail', (t) => {
  const pair = flushed({ core: suspend });
  const packets = pair.holdPacketsTo('b');
  const inFlight = pair.write('a', 1, 2);
  pair.settle();
  pair.cutLink();
  packets();
  pair.settle();
  const held = [pair.write('a', 0, 2), pair.flush('a')];
  pair.settle();
  const result = run(pair, 'a', demote);
  t.true(result?.ok === false && result.refusal.code === 'suspended');
  t.is(outcome(pair, 'a', { kind: 'demote', force: false, dryRun: true }), 'suspended');
  t.is(outcome(pair, 'a', demoteByForce), 'ok');
  t.deepEqual(
    [inFlight, ...held].map((request) => request.outcome),
    ['ESHUTDOWN', 'ESHUTDOWN', 'ESHUTDOWN'],
  );
  t.is(pair.status('a').role, 'Secondary');
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.deepEqual(pair.lostBlocks('a'), []);
});

test('demote of a suspended Primary that nobody waits for needs no force', (t) => {
  const pair = flushed({ core: suspend });
  pair.cutLink();
  pair.settle();
  t.is(outcome(pair, 'a', demote), 'ok');
  t.deepEqual(pair.status('a').suspended, []);
});

test('a suspended Primary can be stopped', (t) => {
  const { pair, write } = suspended();
  t.is(outcome(pair, 'a', stop), 'ok');
  t.is(write.outcome, 'ESHUTDOWN');
  t.false(pair.isUp('a'));
});

test('a suspended Primary whose disk goes waits for data, not for a word', (t) => {
  const { pair, write } = suspended();
  t.is(outcome(pair, 'a', detachByForce), 'ok');
  t.deepEqual(pair.status('a').suspended, ['no-data']);
  t.is(outcome(pair, 'a', promoteByForce), 'no-disk');
  pair.healLink();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.disk('b').visible[0], 2);
});

/** Both disks failed under the same write, each of their nodes believing that the other one goes on; both are back. */
function bothOutdated() {
  const pair = flushed();
  pair.disk('a').failWrites = true;
  pair.disk('b').failWrites = true;
  const toB = pair.hold('packet:diskState', 'b');
  const toA = pair.holdPacketsTo('a');
  const write = pair.write('a', 3, 9);
  pair.settle();
  toA();
  toB();
  pair.settle();
  pair.disk('a').repair();
  pair.disk('b').repair();
  pair.cutLink();
  pair.settle();
  run(pair, 'a', attach);
  run(pair, 'b', attach);
  pair.healLink();
  pair.settle();
  return { pair, write };
}

test('both disks Outdated: promote by force on the Primary makes its own the newest, and what waits goes on', (t) => {
  const { pair, write } = bothOutdated();
  t.is(summary(pair, 'a'), 'Primary/Outdated Connected Off Secondary/Outdated');
  t.deepEqual(pair.status('a').suspended, ['no-data']);
  t.is(write.outcome, 'pending');
  const without = run(pair, 'a', promote);
  t.true(without?.ok === false && without.refusal.code === 'not-up-to-date');
  t.is(outcome(pair, 'a', { kind: 'promote', force: true, dryRun: true }), 'ok');
  t.deepEqual(pair.status('a').suspended, ['no-data']);
  const release = pair.hold('commit', 'a');
  const asked = pair.command('a', promoteByForce);
  pair.settle();
  t.is(write.outcome, 'pending', 'not before the choice is on record');
  release();
  pair.settle();
  t.is(givenUp(asked.result).length, 1);
  t.is(write.outcome, 'ok');
  t.true(pair.isServing('a'));
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('b').visible[3], 9);
});

test('both disks Outdated: the other node can be chosen instead', (t) => {
  const { pair } = bothOutdated();
  t.is(outcome(pair, 'a', demoteByForce), 'ok');
  t.is(outcome(pair, 'b', promote), 'not-up-to-date');
  t.is(outcome(pair, 'b', promoteByForce), 'ok');
  t.is(summary(pair, 'b'), mirroringPrimary);
  t.is(summary(pair, 'a'), mirroringSecondary);
});

test('a Primary made newest on a disk older than what its clients have seen disconnects them', (t) => {
  const pair = flushed();
  run(pair, 'a', detachByForce);
  const elsewhere = pair.write('a', 3, 9);
  pair.settle();
  t.is(elsewhere.outcome, 'ok');
  pair.crash('b', 'power');
  pair.settle();
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), 'Primary/Outdated Connecting Off Unknown/DUnknown');
  const waiting = pair.read('a', 3);
  pair.settle();
  const without = run(pair, 'a', promote);
  t.true(without?.ok === false && without.refusal.code === 'not-up-to-date');
  const result = run(pair, 'a', promoteByForce);
  t.true(givenUp(result).some((what) => what.includes('connections of clients')));
  t.is(waiting.outcome, 'ESHUTDOWN');
  t.true(pair.isServing('a'));
  t.is(pair.status('a').diskState, 'UpToDate');
  const write = pair.write('a', 4, 1);
  pair.settle();
  t.is(write.outcome, 'ok');
  // What the other copy holds alone is not overwritten without being asked.
  pair.restart('b');
  pair.settle();
  t.true(pair.status('b').splitBrain);
});
