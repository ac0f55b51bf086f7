/** Errors of the backing device on either node: who detaches, who goes on, what is copied afterwards (W9). */
import test from 'ava';
import {
  attach,
  connected,
  demote,
  detach,
  detachByForce,
  flushed,
  mirroring,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  promote,
  promoteByForce,
  run,
  summary,
} from '../../support/pair.ts';
import type { TwoCores } from '../../support/two-cores.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

/** Blocks that b asked a for, or a asked b for. */
function copied(pair: TwoCores, target: 'a' | 'b'): readonly number[] {
  return pair
    .sent(target)
    .flatMap((packet) =>
      packet.kind === 'resyncRequest'
        ? Array.from({ length: packet.length / 4096 }, (_, i) => packet.offset / 4096 + i)
        : packet.kind === 'scatteredRequest'
          ? packet.runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i))
          : [],
    );
}

for (const operation of ['write', 'fua', 'flush', 'read'] as const) {
  test(`a failed ${operation} on the Primary detaches its disk, and the client sees no error`, (t) => {
    const pair = flushed();
    const disk = pair.disk('a');
    if (operation === 'write') disk.failWrites = true;
    else if (operation === 'read') disk.failReads = true;
    else disk.failFlushes = true;
    const request =
      operation === 'flush'
        ? pair.flush('a')
        : operation === 'read'
          ? pair.read('a', 0)
          : pair.write('a', 0, 5, { fua: operation === 'fua' });
    pair.settle();
    t.is(request.outcome, 'ok');
    if (operation === 'read') t.deepEqual(request.stamps, [1]);
    t.is(summary(pair, 'a'), 'Primary/Failed Connected Established Secondary/UpToDate');
    t.is(summary(pair, 'b'), 'Secondary/UpToDate Connected Established Primary/Diskless');
    const write = pair.write('a', 4, 6);
    pair.settle();
    const read = pair.read('a', 4);
    pair.settle();
    t.is(write.outcome, 'ok');
    t.deepEqual(read.stamps, [6]);
    t.deepEqual(pair.lostBlocks('b'), []);
  });
}

for (const operation of ['write', 'flush'] as const) {
  test(`a failed ${operation} on the Secondary detaches its disk, and the Primary goes on`, (t) => {
    const pair = flushed();
    if (operation === 'write') pair.disk('b').failWrites = true;
    else pair.disk('b').failFlushes = true;
    const release = pair.hold('commit', 'a');
    const write = pair.write('a', 0, 5);
    const flush = pair.flush('a');
    pair.settle();
    t.is(flush.outcome, 'pending', 'not before it is on record that the peer lacks it');
    release();
    pair.settle();
    t.deepEqual([write.outcome, flush.outcome], ['ok', 'ok']);
    t.is(summary(pair, 'a'), 'Primary/UpToDate Connected Established Secondary/Failed');
    t.true(pair.metadata('a').superblock.peerExcluded);
    t.deepEqual(pair.marked('a'), [0]);
  });
}

test('a disk that comes back gets only what it missed and what was not stable on it', (t) => {
  const pair = flushed();
  pair.write('a', 3 * blocksPerExtent, 4);
  pair.settle();
  pair.flush('a');
  pair.settle();
  pair.disk('b').failWrites = true;
  pair.write('a', 9, 5);
  pair.settle();
  pair.write('a', 2 * blocksPerExtent, 6);
  pair.settle();
  pair.disk('b').repair();
  t.is(outcome(pair, 'b', attach), 'ok');
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
  t.deepEqual(copied(pair, 'b'), [9, 2 * blocksPerExtent]);
});

test('a Primary whose disk comes back copies its active extents and what the peer wrote meanwhile', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'a', detach), 'ok');
  pair.write('a', 3 * blocksPerExtent + 1, 6);
  pair.settle();
  t.is(outcome(pair, 'a', attach), 'ok');
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
  t.deepEqual(
    [...new Set(copied(pair, 'a').map((block) => Math.floor(block / blocksPerExtent)))],
    [0, 3],
    'extent 0 was active here; of extent 3 one block was written there',
  );
  t.is(copied(pair, 'a').length, blocksPerExtent + 1);
});

test('a disk can go and come back twice', (t) => {
  const pair = flushed();
  for (let round = 1; round <= 2; round++) {
    t.is(outcome(pair, 'a', detach), 'ok');
    const write = pair.write('a', round, 10 + round);
    pair.settle();
    t.is(write.outcome, 'ok');
    t.is(outcome(pair, 'a', attach), 'ok');
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.deepEqual(pair.differences(), []);
    t.is(pair.disk('a').visible[round], 10 + round);
  }
});

test('while the Primary has no disk the peer keeps account: its crash costs the marks and nothing else', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  pair.write('a', 3 * blocksPerExtent, 6);
  pair.flush('a');
  pair.settle();
  t.deepEqual(pair.metadata('b').activeExtents, [3]);
  pair.crash('b', 'power');
  pair.settle();
  pair.restart('b');
  pair.settle();
  const read = pair.read('a', 3 * blocksPerExtent);
  pair.settle();
  t.deepEqual(read.stamps, [6]);
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('a write to a diskless Primary is acknowledged only when the peer has recorded that it is alone', (t) => {
  const pair = flushed();
  const release = pair.hold('commit', 'b');
  run(pair, 'a', detach);
  const write = pair.write('a', 0, 5);
  pair.settle();
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.not(pair.metadata('b').superblock.current, pair.metadata('a').superblock.current);
});

for (const protocol of ['A', 'B', 'C'] as const) {
  test(`protocol ${protocol}: a diskless Primary writes, and reads what it wrote`, (t) => {
    const pair = flushed({ core: { protocol } });
    t.is(outcome(pair, 'a', detach), 'ok');
    const release = pair.hold('write', 'b');
    const write = pair.write('a', 0, 5);
    pair.settle();
    const read = pair.read('a', 0);
    pair.settle();
    if (protocol !== 'C') {
      t.is(write.outcome, 'ok');
      t.is(read.outcome, 'pending', 'the write it has to show is not on the disk yet');
    }
    release();
    pair.settle();
    t.is(write.outcome, 'ok');
    const again = pair.read('a', 0);
    pair.settle();
    t.deepEqual(again.stamps, [5]);
    if (protocol !== 'C') t.deepEqual(read.stamps, [5]);
  });
}

test('the last copy is not detached without force', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  t.is(outcome(pair, 'a', detach), 'last-copy');
  t.is(outcome(pair, 'a', detachByForce), 'ok');
  t.is(outcome(pair, 'a', detach), 'already-detached');
});

test('the last copy, detached by force and attached again, is a source still', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2);
  pair.settle();
  run(pair, 'a', detachByForce);
  t.is(outcome(pair, 'a', attach), 'ok');
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(pair.disk('b').visible[0], 2);
});

test('a write that fails on the only copy is an error to the client, and the disk stays', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 1, 3);
  pair.settle();
  pair.disk('a').failWrites = true;
  const write = pair.write('a', 0, 5);
  const read = pair.read('a', 1);
  pair.settle();
  t.is(write.outcome, 'EIO');
  t.deepEqual(read.stamps, [3]);
  t.is(pair.status('a').diskState, 'UpToDate');
});

test('a read that fails on the only copy is an error to the client, and the disk stays', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.disk('a').failReads = true;
  const read = pair.read('a', 0);
  pair.settle();
  t.is(read.outcome, 'EIO');
  t.is(pair.status('a').diskState, 'UpToDate');
});

test('a flush that fails on the only copy is never tried again: the disk is out', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2);
  pair.settle();
  pair.disk('a').failFlushes = true;
  const flush = pair.flush('a');
  pair.settle();
  t.is(flush.outcome, 'EIO');
  t.is(pair.status('a').diskState, 'Failed');
});

test('a forced write whose flush fails on the only copy puts the disk out, and the next flush says so once', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 1, 2);
  pair.settle();
  pair.disk('a').failFlushes = true;
  const write = pair.write('a', 0, 3, { fua: true });
  pair.settle();
  t.is(write.outcome, 'EIO');
  t.is(pair.status('a').diskState, 'Failed');
  pair.disk('a').repair();
  run(pair, 'a', attach);
  pair.healLink();
  pair.settle();
  const [first, second] = [pair.flush('a'), pair.flush('a')];
  pair.settle();
  t.is(first.outcome, 'EIO', 'what was acknowledged before may be gone');
  t.is(second.outcome, 'ok');
});

test('a resync target whose disk fails is Inconsistent when it comes back', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2, { count: 2 });
  pair.settle();
  pair.hold('read', 'a');
  pair.healLink();
  pair.settle();
  t.is(pair.status('b').diskState, 'Inconsistent');
  run(pair, 'b', detach);
  t.is(pair.metadata('b').superblock.disk, 'Inconsistent');
  pair.cutLink();
  pair.settle();
  t.is(outcome(pair, 'b', attach), 'ok');
  t.is(pair.status('b').diskState, 'Inconsistent');
});

test('a write error of a resync target ends the resync; attached again, it goes on where it was', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2, { count: 2 });
  pair.settle();
  pair.disk('b').failWrites = true;
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), 'Primary/UpToDate Connected Established Secondary/Failed');
  t.deepEqual(pair.marked('a'), [0, 1]);
  pair.disk('b').repair();
  run(pair, 'b', attach);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('blocks that the source cannot read stay marked, and are asked for again after a while', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2, { count: 2 });
  pair.settle();
  pair.disk('a').failReads = true;
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'b'), 'Secondary/Inconsistent Connected SyncTarget Primary/UpToDate');
  t.deepEqual(pair.marked('a'), [0, 1]);
  const asked = copied(pair, 'b').length;
  pair.tick(1_000);
  t.true(copied(pair, 'b').length > asked);
  t.true(copied(pair, 'b').length < asked + 100, 'a bad block is no reason to keep the link busy');
  pair.disk('a').repair();
  pair.tick(1_000);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('a node whose disk cannot be opened again says why, and stays without', (t) => {
  const pair = flushed();
  pair.disk('b').failWrites = true;
  pair.write('a', 0, 2);
  pair.settle();
  t.is(outcome(pair, 'b', attach), 'backing-failed');
  t.is(pair.status('b').diskState, 'Failed');
  t.is(outcome(pair, 'a', attach), 'already-attached');
});

test('a node without a disk is promoted when the peer has the data', (t) => {
  const pair = connected();
  run(pair, 'a', promote);
  pair.write('a', 0, 1);
  pair.settle();
  run(pair, 'a', demote);
  run(pair, 'b', detach);
  t.is(outcome(pair, 'b', promote), 'ok');
  const write = pair.write('b', 0, 2);
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.disk('a').visible[0], 2);
  run(pair, 'b', attach);
  t.is(summary(pair, 'b'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('a diskless Primary that loses its peer steps down when the peer was promoted meanwhile', (t) => {
  const pair = flushed();
  run(pair, 'a', detach);
  pair.write('a', 0, 2);
  pair.settle();
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  pair.write('b', 0, 3);
  const late = pair.write('a', 0, 4);
  pair.settle();
  pair.healLink();
  pair.settle();
  t.is(late.outcome, 'ESHUTDOWN');
  t.is(pair.status('a').role, 'Secondary');
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('a').visible[0], 3);
});

test('a write in flight when both the peer and then the own disk go is not acknowledged on the strength of either', (t) => {
  const pair = mirroring();
  const releasePackets = pair.holdPacketsTo('b');
  const write = pair.write('a', 0, 5);
  pair.settle();
  const release = pair.hold('commit', 'a');
  pair.cutLink();
  pair.settle();
  pair.command('a', detachByForce);
  release();
  pair.settle();
  t.is(write.outcome, 'pending');
  pair.healLink();
  releasePackets();
  pair.settle();
  pair.tick(40_000, 1_000);
  t.not(write.outcome, 'pending');
  if (write.outcome === 'ok') t.is(pair.disk('b').visible[0], 5);
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
  t.deepEqual(pair.lostBlocks('b'), []);
});

test('both disks fail at once: neither that returns alone is taken for whole, unless forced', (t) => {
  for (const name of ['a', 'b'] as const) {
    const pair = mirroring();
    for (const one of [pair.disk('a'), pair.disk('b')]) one.failWrites = true;
    pair.write('a', 0, 2);
    pair.settle();
    t.regex(summary(pair, 'a'), /^Primary\/Failed .*\/Failed$/);
    // What was in its cache is gone, and the other one may have it.
    pair.disk(name).losePower();
    pair.disk(name).failWrites = false;
    t.is(outcome(pair, name, attach), 'ok');
    t.is(pair.status(name).diskState, 'Outdated');
    t.deepEqual(pair.status('a').suspended, ['no-data']);
    const other = name === 'a' ? 'b' : 'a';
    pair.disk(other).failWrites = false;
    t.is(outcome(pair, other, attach), 'ok');
    t.is(pair.status('a').diskState, 'Outdated');
    t.is(pair.status('b').diskState, 'Outdated');
    t.is(pair.decisions('a').findLast(({ kind }) => kind === 'handshake')?.rule, 'no-usable-source');
    t.is(outcome(pair, 'a', promote), 'not-up-to-date');
    t.is(outcome(pair, 'a', promoteByForce), 'ok');
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.deepEqual(pair.differences(), []);
  }
});

test('promoted by force beside a peer that is no better: the answer says what is given up (W8)', (t) => {
  const pair = mirroring();
  for (const one of [pair.disk('a'), pair.disk('b')]) one.failWrites = true;
  pair.write('a', 0, 2);
  pair.settle();
  for (const one of [pair.disk('a'), pair.disk('b')]) one.repair();
  run(pair, 'a', attach);
  run(pair, 'b', attach);
  t.is(outcome(pair, 'a', demote), 'ok');
  t.is(summary(pair, 'b'), 'Secondary/Outdated Connected Off Secondary/Outdated');
  for (const command of [{ ...promoteByForce, dryRun: true }, promoteByForce]) {
    const result = run(pair, 'b', command);
    t.deepEqual(result?.ok === true && result.givenUp, [
      'what a has of the data and the Outdated disk here has not',
      'the newest data: the disk here is known to be Outdated',
    ]);
  }
});

test('a disk that fails while a forced promotion is recorded stays away: nothing is written until it is back', (t) => {
  const pair = flushed();
  pair.write('a', 0, 5);
  pair.settle();
  const releaseFlush = pair.hold('flush', 'b');
  pair.cutLink();
  pair.settle();
  const releaseCommit = pair.hold('commit', 'b');
  const asked = pair.command('b', promoteByForce);
  pair.settle();
  pair.disk('b').failFlushes = true;
  releaseFlush();
  pair.settle();
  releaseCommit();
  pair.settle();
  t.true(asked.result?.ok);
  t.is(pair.status('b').role, 'Primary');
  t.is(pair.status('b').diskState, 'Failed');
  const write = pair.write('b', 0, 6);
  pair.settle();
  t.deepEqual(pair.status('b').suspended, ['no-data']);
  pair.disk('b').failFlushes = false;
  t.is(outcome(pair, 'b', attach), 'ok');
  t.is(pair.status('b').diskState, 'Consistent');
  t.is(write.outcome, 'pending');
  pair.healLink();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(summary(pair, 'b'), mirroringPrimary);
  // What differs after a crash is on record (W4).
  t.deepEqual(pair.metadata('b').activeExtents, [0]);
  t.deepEqual(pair.differences(), []);
});

test('a read that is under way when the disk fails is answered by the peer: the disk may have fallen back', (t) => {
  const pair = mirroring();
  const release = pair.hold('read', 'a');
  const read = pair.read('a', 0);
  pair.disk('a').failFlushes = true;
  pair.flush('a');
  pair.settle();
  t.is(pair.status('a').diskState, 'Failed');
  pair.disk('a').losePower();
  release();
  pair.settle();
  t.is(read.outcome, 'ok');
  t.deepEqual(read.stamps, [1]);
});

test('a write that waited while the disk went and came back asks for its extents anew before it is issued', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 2, 3);
  pair.settle();
  const releaseWrites = pair.hold('write', 'a');
  const stuck = pair.write('a', 0, 5);
  const waiting = pair.write('a', 0, 6);
  pair.settle();
  run(pair, 'a', detachByForce);
  t.is(outcome(pair, 'a', attach), 'ok');
  pair.healLink();
  pair.settle();
  t.is(pair.status('a').peer?.replication, 'SyncSource');
  t.deepEqual(pair.metadata('a').activeExtents, []);
  releaseWrites();
  pair.settle();
  t.deepEqual([stuck.outcome, waiting.outcome], ['ok', 'ok']);
  // Extents stay active until they have to make room.
  t.deepEqual(pair.metadata('a').activeExtents, [0]);
  t.deepEqual(pair.differences(), []);
  t.deepEqual(pair.lostBlocks('a'), []);
});
