/** Bad blocks of the Primary's disk: the peer answers the read, and the blocks are written again with its data (W9). */
import test from 'ava';
import {
  attach,
  demote,
  detachByForce,
  flushed,
  invalidate,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  pause,
  promote,
  promoteByForce,
  resume,
  run,
  summary,
} from '../../support/pair.ts';
import type { TwoCores } from '../../support/two-cores.ts';

/** Blocks that the node's disk has been asked to write for a repair or for clients, from now on. */
function repaired(pair: TwoCores): number {
  return pair.status('a').io.repairedReads;
}

/** a is Primary, everything is stable, and this block of its disk cannot be read until it is written again. */
function withBadBlock(block: number): TwoCores {
  const pair = flushed();
  pair.write('a', block, 7);
  pair.settle();
  pair.flush('a');
  pair.settle();
  pair.disk('a').badBlocks.add(block);
  // What was there is gone.
  pair.disk('a').visible[block] = 0;
  return pair;
}

test('a block that cannot be read is answered by the peer, written again, and read from here next time', (t) => {
  const pair = withBadBlock(3);
  const read = pair.read('a', 2, 3);
  pair.settle();
  t.is(read.outcome, 'ok');
  t.deepEqual(read.stamps, [0, 7, 0]);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('a').stable[3], 7, 'the rewrite is flushed');
  t.is(repaired(pair), 1);
  t.like(pair.decisions('a').at(-1), { kind: 'disk', rule: 'read-repaired' });
  const asked = pair.sent('a').length;
  const again = pair.read('a', 3);
  pair.settle();
  t.deepEqual(again.stamps, [7]);
  t.is(pair.sent('a').length, asked, 'the peer is not asked any more');
});

test('of a long read only the pieces that cannot be read are written again', (t) => {
  const pair = withBadBlock(40);
  const read = pair.read('a', 0, 100);
  pair.settle();
  t.is(read.outcome, 'ok');
  t.is(read.stamps[40], 7);
  const asked = pair.sent('a').flatMap((packet) => (packet.kind === 'read' ? [packet] : []));
  t.deepEqual(
    asked.map(({ offset, length }) => [offset / 4096, length / 4096]),
    [
      [32, 16],
      [0, 100],
    ].toReversed(),
    'the client is answered first',
  );
  t.is(repaired(pair), 1);
});

test('a write that comes during a repair is neither lost nor overtaken', (t) => {
  const pair = withBadBlock(3);
  const release = pair.hold('read', 'b');
  const read = pair.read('a', 3);
  pair.settle();
  const write = pair.write('a', 3, 8);
  const elsewhere = pair.write('a', 5, 9);
  pair.settle();
  t.is(elsewhere.outcome, 'ok', 'only the range waits');
  t.is(write.outcome, 'pending');
  t.is(pair.disk('b').visible[3], 7, 'nothing of it has been sent either');
  release();
  pair.settle();
  t.deepEqual([read.outcome, write.outcome], ['ok', 'ok']);
  t.is(pair.disk('a').visible[3], 8);
  t.deepEqual(pair.differences(), []);
  t.deepEqual(pair.lostBlocks('a'), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a write on its way when the repair begins is part of what the peer answers', (t) => {
  const pair = withBadBlock(3);
  const releaseDisk = pair.hold('write', 'b');
  pair.read('a', 2, 2);
  const write = pair.write('a', 2, 8);
  // As far as possible: the client's read is answered by the peer only after the write.
  pair.settle();
  t.is(pair.disk('b').visible[2], 0);
  releaseDisk();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.deepEqual([...pair.disk('a').visible.subarray(2, 4)], [8, 7]);
  t.deepEqual(pair.differences(), []);
});

test('reads of the same bad block are one repair', (t) => {
  const pair = withBadBlock(3);
  const reads = [pair.read('a', 3), pair.read('a', 3), pair.read('a', 2, 4)];
  pair.settle();
  t.deepEqual(
    reads.map((read) => read.outcome),
    ['ok', 'ok', 'ok'],
  );
  t.is(repaired(pair), 1);
});

test('a block that stays unreadable after it was written again puts the disk out, and the client sees no error', (t) => {
  const pair = withBadBlock(3);
  pair.disk('a').deadBlocks.add(3);
  const read = pair.read('a', 3);
  pair.settle();
  t.deepEqual([read.outcome, read.stamps], ['ok', [7]]);
  t.is(summary(pair, 'a'), 'Primary/Failed Connected Established Secondary/UpToDate');
  t.is(repaired(pair), 0);
});

for (const fault of ['failWrites', 'failFlushes'] as const) {
  test(`${fault} during the repair: the disk is out, and the client sees no error`, (t) => {
    const pair = withBadBlock(3);
    pair.disk('a')[fault] = true;
    const read = pair.read('a', 3);
    pair.settle();
    t.deepEqual([read.outcome, read.stamps], ['ok', [7]]);
    t.is(pair.status('a').diskState, 'Failed');
    const next = pair.read('a', 3);
    pair.settle();
    t.deepEqual(next.stamps, [7]);
  });
}

test('errors that come more often than a bad sector explains put the disk out', (t) => {
  const pair = flushed();
  const readBad = (): string => {
    pair.disk('a').badBlocks.add(3);
    const read = pair.read('a', 3);
    pair.settle();
    return `${read.outcome} ${pair.status('a').diskState}`;
  };
  for (let error = 1; error <= 16; error++) t.is(readBad(), 'ok UpToDate');
  pair.tick(61_000, 1_000);
  t.is(readBad(), 'ok UpToDate', 'those were long ago');
  for (let error = 2; error <= 16; error++) t.is(readBad(), 'ok UpToDate');
  t.is(readBad(), 'ok Failed');
});

test('a block that neither node can read is an error to the client, and both disks stay', (t) => {
  const pair = withBadBlock(3);
  pair.disk('b').badBlocks.add(3);
  const read = pair.read('a', 3);
  pair.settle();
  t.is(read.outcome, 'EIO');
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  pair.read('a', 3);
  pair.settle();
  t.deepEqual(
    pair.decisions('a').flatMap(({ rule, result }) => (rule === 'unreadable-on-both' ? [result] : [])),
    ['block 3 (of 4 KiB) can be read neither here nor on the peer: clients get EIO until they write there'],
    'said once',
  );
  // A write makes it good on both.
  pair.write('a', 3, 9);
  pair.settle();
  const again = pair.read('a', 3);
  pair.settle();
  t.deepEqual(again.stamps, [9]);
});

test('the peer is lost before it answers a repair: writes go on, and the block stays what it was', (t) => {
  const pair = withBadBlock(3);
  pair.hold('packet:read', 'b');
  const read = pair.read('a', 3);
  pair.settle();
  const write = pair.write('a', 3, 8);
  pair.settle();
  t.is(write.outcome, 'pending');
  pair.cutLink();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.not(read.outcome, 'pending');
  t.deepEqual(pair.marked('a'), [3]);
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.differences(), []);
});

test('the peer is lost while the block is being written again: what it answered was right', (t) => {
  const pair = withBadBlock(3);
  const release = pair.hold('write', 'a');
  const read = pair.read('a', 3);
  pair.settle();
  pair.cutLink();
  pair.settle();
  release();
  pair.settle();
  t.deepEqual([read.outcome, read.stamps], ['ok', [7]]);
  t.is(pair.disk('a').visible[3], 7);
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('a peer that does not answer a repair holds writes no longer than any request', (t) => {
  const pair = withBadBlock(3);
  const release = pair.hold('read', 'b');
  pair.read('a', 3);
  pair.settle();
  const write = pair.write('a', 3, 8);
  t.is(write.outcome, 'pending');
  const reconnect = pair.hold('linkUp', 'a');
  pair.tick(32_000, 1_000);
  t.is(write.outcome, 'ok');
  release();
  pair.settle();
  t.is(pair.disk('a').visible[3], 8, 'a late answer is not written');
  reconnect();
  pair.settle();
  t.deepEqual(pair.differences(), []);
});

test('a disk that is taken away during a repair gets nothing of it', (t) => {
  const pair = withBadBlock(3);
  const release = pair.hold('packet:readData', 'a');
  const read = pair.read('a', 3);
  pair.settle();
  pair.disk('a').failWrites = true;
  pair.write('a', 20, 5);
  pair.settle();
  t.is(pair.status('a').diskState, 'Failed');
  release();
  pair.settle();
  t.deepEqual(read.stamps, [7]);
  pair.disk('a').repair();
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a Primary that is a resync target repairs what it has already copied', (t) => {
  const pair = flushed({ core: { resyncWindowBytes: 4096, resyncWindowBusyBytes: 4096 } });
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  pair.write('b', 9, 5);
  pair.settle();
  run(pair, 'b', demote);
  pair.crash('a');
  const release = pair.hold('read', 'b');
  pair.healLink();
  pair.restart('a');
  pair.settle();
  // Its source reads slowly, and an operator makes it Primary meanwhile.
  run(pair, 'a', pause);
  release();
  pair.settle();
  t.is(pair.status('a').diskState, 'Inconsistent');
  t.is(outcome(pair, 'a', promoteByForce), 'ok');
  const block = 5 * 1024;
  t.true(pair.marked('a').length > 0 && !pair.marked('a').includes(block));
  pair.disk('a').badBlocks.add(block);
  const read = pair.read('a', block);
  pair.settle();
  t.deepEqual(read.stamps, [0]);
  t.is(repaired(pair), 1);
  t.is(pair.status('a').diskState, 'Inconsistent');
  run(pair, 'a', resume);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('a source that cannot read a block repairs nothing: the target has not got it', (t) => {
  const pair = flushed();
  run(pair, 'b', detachByForce);
  pair.write('a', 3, 7);
  pair.settle();
  pair.disk('a').badBlocks.add(3);
  run(pair, 'b', attach);
  t.is(summary(pair, 'b'), 'Secondary/Inconsistent Connected SyncTarget Primary/UpToDate');
  t.deepEqual(pair.marked('a'), [3]);
  t.is(repaired(pair), 0);
  pair.write('a', 3, 8);
  pair.tick(500);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('demoted during a repair: it is given up, and the next Primary writes there', (t) => {
  const pair = withBadBlock(3);
  const release = pair.hold('read', 'b');
  const read = pair.read('a', 2, 2);
  pair.settle();
  // The client goes without its answer when it is disconnected; only the repair is left under way.
  release();
  pair.steps(1);
  const releaseAgain = pair.hold('read', 'b');
  pair.settle();
  t.is(read.outcome, 'ok');
  t.is(outcome(pair, 'a', demote), 'ok');
  t.is(outcome(pair, 'b', promote), 'ok');
  const write = pair.write('b', 3, 9);
  pair.tick(200);
  releaseAgain();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(repaired(pair), 0);
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('a').visible[3], 9);
});

test('invalidate during a repair copies everything all the same', (t) => {
  const pair = withBadBlock(3);
  const release = pair.hold('packet:readData', 'a');
  pair.read('a', 3);
  pair.settle();
  const asked = pair.command('b', invalidate);
  pair.settle();
  release();
  pair.settle();
  pair.tick(500);
  t.not(asked.result, null);
  t.deepEqual(pair.disk('a').badBlocks.size === 0 ? pair.differences() : [], []);
});
