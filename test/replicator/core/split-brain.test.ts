/** Both nodes have written without each other: nothing is lost until somebody decides, and then nothing else is. */
import test from 'ava';
import {
  connect,
  connectDiscarding,
  demote,
  flushed,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  promote,
  promoteByForce,
  run,
  summary,
} from '../../support/pair.ts';
import type { TwoCores } from '../../support/two-cores.ts';
import { names } from '../../support/two-cores.ts';

/** Both have written since they parted (a block 1, b block 2, both block 3), and have met again. */
function split(): TwoCores {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 1, 21);
  pair.write('a', 3, 22);
  run(pair, 'b', promoteByForce);
  pair.write('b', 2, 31);
  pair.write('b', 3, 32);
  pair.settle();
  pair.healLink();
  pair.settle();
  return pair;
}

test('both have written: both stand alone, keep their role and go on', (t) => {
  const pair = split();
  for (const name of names) {
    t.is(summary(pair, name), 'Primary/UpToDate StandAlone Off Unknown/DUnknown split-brain');
    const write = pair.write(name, 8, 80);
    const read = pair.read(name, 3);
    pair.settle();
    t.is(write.outcome, 'ok');
    t.deepEqual(read.stamps, [name === 'a' ? 22 : 32]);
    t.regex(pair.status(name).peer?.lastError ?? '', /split brain/);
    t.is(pair.decisions(name).findLast(({ kind }) => kind === 'handshake')?.rule, 'bitmap-both');
  }
});

test('a split brain outlives a restart of both', (t) => {
  const pair = split();
  for (const name of names) pair.crash(name);
  for (const name of names) pair.restart(name);
  pair.settle();
  for (const name of names) t.true(pair.status(name).splitBrain);
  t.deepEqual([pair.disk('a').visible[3], pair.disk('b').visible[3]], [22, 32]);
  t.is(outcome(pair, 'a', promote), 'split-brain');
});

test('connecting again without a decision leads to a split brain again', (t) => {
  const pair = split();
  run(pair, 'a', connect);
  run(pair, 'b', connect);
  for (const name of names) t.true(pair.status(name).splitBrain);
  t.deepEqual([pair.disk('a').visible[3], pair.disk('b').visible[3]], [22, 32]);
});

test('the side that gives way gets everything that either has written since they parted, and no more', (t) => {
  for (const [loser, winner] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    const pair = split();
    t.is(outcome(pair, loser, connectDiscarding), 'discard-needs-secondary');
    t.is(outcome(pair, loser, demote), 'ok');
    t.is(outcome(pair, loser, connectDiscarding), 'ok');
    t.true(pair.status(winner).splitBrain, 'the winner has not been told to connect');
    t.is(outcome(pair, winner, connect), 'ok');
    t.is(summary(pair, winner), mirroringPrimary);
    t.is(summary(pair, loser), mirroringSecondary);
    t.deepEqual(pair.differences(), []);
    t.deepEqual(
      [...pair.disk(loser).visible.subarray(0, 4)],
      loser === 'a' ? [1, 0, 31, 32] : [1, 21, 0, 22],
    );
    const copied = pair
      .sent(loser)
      .flatMap((packet) =>
        packet.kind === 'resyncRequest' ? [packet.offset / 4096, packet.length / 4096] : [],
      );
    t.deepEqual(copied, [1, 3], 'blocks 1 to 3');
    // The decision was for this once.
    t.is(pair.metadata(loser).superblock.current, pair.metadata(winner).superblock.current);
    t.false(pair.published(loser)?.discardMyData ?? true);
  }
});

test('both giving way decides nothing', (t) => {
  const pair = split();
  for (const name of names) run(pair, name, demote);
  for (const name of names) run(pair, name, connectDiscarding);
  for (const name of names) t.true(pair.status(name).splitBrain);
});

test('a resync after a split brain that is cut short goes on, and is no new split brain', (t) => {
  const pair = split();
  run(pair, 'a', demote);
  const release = pair.hold('packet:resyncData', 'a');
  run(pair, 'a', connectDiscarding);
  run(pair, 'b', connect);
  t.is(pair.status('a').diskState, 'Inconsistent');
  pair.crash('a');
  pair.crash('b');
  release();
  pair.restart('b');
  pair.restart('a');
  pair.settle();
  t.is(summary(pair, 'a'), 'Secondary/UpToDate Connected Established Secondary/UpToDate');
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('a').visible[3], 32);
});

test('the other was promoted in vain while nobody wrote: that is no split brain', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  run(pair, 'b', demote);
  pair.healLink();
  pair.settle();
  // a has not written since: there is no fork, b's generation is a's with nothing lost.
  t.is(pair.status('a').splitBrain, false);
  t.deepEqual(pair.differences(), []);
  t.deepEqual(pair.lostBlocks('a'), []);
});

test('while connected there is nothing to connect, and nothing to discard', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'a', connect), 'ok');
  t.is(outcome(pair, 'a', connectDiscarding), 'discard-needs-secondary');
  t.is(outcome(pair, 'b', connectDiscarding), 'already-connected');
});
