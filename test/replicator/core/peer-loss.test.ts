/** Loss of the peer: what becomes out of sync, what is recorded before an answer, who steps down (W3, W13). */
import test from 'ava';
import {
  connected,
  demote,
  disconnect,
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
import { blocksPerExtent } from '../../support/two-cores.ts';

test('a write in flight when the peer is lost is acknowledged only once the new generation is on record', (t) => {
  const pair = mirroring();
  const before = pair.metadata('a').superblock.current;
  const releasePackets = pair.holdPacketsTo('b');
  const write = pair.write('a', 3, 5);
  pair.settle();
  const release = pair.hold('commit', 'a', () => true);
  pair.cutLink();
  pair.settle();
  t.is(write.outcome, 'pending');
  t.is(pair.disk('a').visible[3], 5);
  t.deepEqual(pair.status('a').suspended, ['generation']);
  release();
  releasePackets();
  pair.settle();
  t.is(write.outcome, 'ok');
  const { current, bitmap, peerExcluded, writer } = pair.metadata('a').superblock;
  t.not(current, before);
  t.deepEqual(bitmap, [before]);
  t.true(peerExcluded);
  t.true(writer);
});

test('after the loss of the peer the first write waits for a probe, and then for the record', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  const releaseProbe = pair.hold('probe', 'a');
  const releaseCommit = pair.hold('committed', 'a');
  const write = pair.write('a', 0, 2);
  pair.settle();
  t.deepEqual(pair.status('a').suspended, ['peer-lost']);
  t.is(pair.disk('a').visible[0], 1);
  releaseProbe();
  pair.settle();
  t.deepEqual(pair.status('a').suspended, ['generation']);
  t.is(pair.disk('a').visible[0], 1);
  releaseCommit();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.deepEqual(pair.marked('a'), [0]);
});

test('alone, later writes wait for nothing but the own disk', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2);
  pair.settle();
  const { commits } = pair.metadata('a');
  const write = pair.write('a', 1, 3);
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.metadata('a').commits, commits);
});

test('what was written since the last flush the peer completed is out of sync, and nothing else', (t) => {
  const pair = flushed();
  pair.write('a', 10, 4, { count: 2 });
  pair.settle();
  pair.flush('a');
  pair.settle();
  pair.write('a', 20, 5);
  pair.write('a', 30, 6, { count: 3 });
  pair.settle();
  pair.crash('b', 'power');
  pair.settle();
  t.deepEqual(pair.marked('a'), [20, 30, 31, 32]);
  pair.restart('b');
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  const requested = pair
    .sent('b')
    .flatMap((packet) => (packet.kind === 'digestRequest' ? [packet.offset / 4096] : []));
  t.deepEqual(requested, [20, 30]);
});

test('a flush that the peer has not completed covers nothing', (t) => {
  const pair = flushed();
  pair.write('a', 20, 5);
  pair.settle();
  pair.hold('flush', 'b');
  pair.flush('a');
  pair.settle();
  pair.crash('b', 'power');
  pair.settle();
  t.deepEqual(pair.marked('a'), [20]);
});

test('a flush that only the peer has completed covers nothing either', (t) => {
  const pair = flushed();
  pair.write('a', 20, 5);
  pair.settle();
  const release = pair.hold('flush', 'a');
  pair.flush('a');
  pair.settle();
  pair.crash('b', 'power');
  pair.settle();
  t.deepEqual(pair.marked('a'), [20]);
  release();
  pair.settle();
  t.deepEqual(pair.marked('a'), [20]);
});

test('the crash of a Primary marks exactly the active extents', (t) => {
  for (const how of ['kill', 'power'] as const) {
    const pair = flushed();
    pair.write('a', 2 * blocksPerExtent + 7, 3);
    pair.settle();
    pair.crash('a', how);
    pair.settle();
    pair.healLink();
    const releaseLink = pair.hold('linkUp', 'b');
    pair.restart('a');
    pair.settle();
    const extents = [...new Set(pair.marked('a').map((block) => Math.floor(block / blocksPerExtent)))];
    t.deepEqual(extents, [0, 2]);
    t.is(pair.marked('a').length, 2 * blocksPerExtent);
    releaseLink();
    pair.settle();
    t.deepEqual(pair.differences(), []);
    t.deepEqual(pair.lostBlocks('a'), []);
    t.is(pair.disk('a').visible[2 * blocksPerExtent + 7], 3);
  }
});

test('a survivor is the source for the Primary that crashed, which may have lost its cache', (t) => {
  const pair = flushed();
  pair.write('a', 1, 9);
  pair.settle();
  pair.crash('a', 'power');
  pair.settle();
  t.is(pair.disk('b').stable[1], 9, 'what the survivor had received is stable');
  pair.restart('a');
  pair.settle();
  t.true(pair.decisions('b').some(({ rule }) => rule === 'survivor-self'));
  t.is(pair.disk('a').visible[1], 9);
  t.deepEqual(pair.differences(), []);
});

test('when both lost power the crashed Primary is the source, and everything flushed is there', (t) => {
  for (const first of ['a', 'b'] as const) {
    const pair = flushed();
    pair.write('a', 1, 9);
    pair.settle();
    pair.hold('linkDown', 'a', () => false);
    pair.crash('a', 'power');
    pair.crash('b', 'power');
    pair.restart(first);
    pair.settle();
    pair.restart(first === 'a' ? 'b' : 'a');
    pair.settle();
    t.is(pair.disk('a').visible[0], 1);
    t.deepEqual(pair.differences(), []);
    t.is(summary(pair, 'a'), 'Secondary/UpToDate Connected Established Secondary/UpToDate');
  }
});

test('a cut without writes: no new generation, and only what was not flushed is copied', (t) => {
  const pair = flushed();
  pair.write('a', 7, 2);
  pair.settle();
  const before = pair.metadata('a').superblock.current;
  pair.cutLink();
  pair.settle();
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(pair.metadata('a').superblock.current, before);
  t.is(pair.metadata('b').superblock.current, before);
  const copied = pair
    .sent('b')
    .flatMap((packet) => (packet.kind === 'digestRequest' ? [packet.offset / 4096] : []));
  t.deepEqual(copied, [7]);
});

test('a cut of a flushed pair copies nothing', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.false(pair.sent('b').some(({ kind }) => kind === 'resyncRequest'));
});

test('a session that breaks for a moment loses no write, in whatever step it breaks', (t) => {
  for (let at = 0; at < 60; at++) {
    const pair = flushed();
    const writes = [
      pair.write('a', 0, 11, { count: 2 }),
      pair.write('a', 1, 12, { fua: true }),
      pair.write('a', blocksPerExtent, 13),
    ];
    const flush = pair.flush('a');
    const left = pair.steps(at) === at;
    pair.breakSession();
    pair.settle();
    t.deepEqual(
      [...writes, flush].map(({ outcome }) => outcome),
      ['ok', 'ok', 'ok', 'ok'],
      `broken after ${at} steps`,
    );
    t.deepEqual(pair.differences(), [], `broken after ${at} steps`);
    t.deepEqual(pair.lostBlocks('b'), []);
    if (!left) return;
  }
  t.fail('the writes never ended');
});

test('a frozen Primary whose peer was promoted refuses late writes, and comes back as its target', (t) => {
  const pair = flushed();
  // Frozen: nothing reaches a, and nothing of what it began gets on, while b is told of the loss.
  const releases = [
    pair.hold('linkDown', 'a'),
    pair.hold('write', 'a'),
    pair.hold('packet:written', 'a'),
    pair.holdPacketsTo('b'),
  ];
  const late = pair.write('a', 0, 66);
  pair.cutLink();
  pair.settle();
  t.is(outcome(pair, 'b', promoteByForce), 'ok');
  const taken = pair.write('b', 0, 77);
  pair.settle();
  t.is(taken.outcome, 'ok');
  for (const release of releases) release();
  pair.healLink();
  pair.settle();
  t.is(late.outcome, 'ESHUTDOWN');
  t.is(pair.write('a', 1, 67).outcome, 'ESHUTDOWN');
  t.false(pair.isServing('a'));
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.is(summary(pair, 'b'), mirroringPrimary);
  t.is(pair.disk('a').visible[0], 77);
  t.deepEqual(pair.differences(), []);
});

test('a Primary that finds out by a probe that the peer took over steps down', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  pair.write('b', 0, 77);
  pair.settle();
  // Probes get through before a session does.
  const release = pair.hold('linkUp', 'a');
  pair.healLink();
  const late = pair.write('a', 0, 66);
  pair.settle();
  t.is(late.outcome, 'ESHUTDOWN');
  t.is(pair.status('a').role, 'Secondary');
  t.is(pair.status('a').diskState, 'Outdated');
  t.is(pair.metadata('a').superblock.disk, 'Outdated');
  release();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('a Primary that hears in a new session that the peer took over steps down, though its probe is lost', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  pair.write('b', 0, 77);
  pair.settle();
  const release = pair.hold('probe', 'a');
  const late = pair.write('a', 0, 66);
  pair.settle();
  pair.losesProbes = true;
  pair.healLink();
  pair.settle();
  // The session has to wait: going on alone or not is undecided.
  t.is(late.outcome, 'pending');
  release();
  pair.settle();
  t.is(late.outcome, 'ESHUTDOWN');
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.is(pair.disk('a').visible[0], 77);
  t.deepEqual(pair.differences(), []);
});

test('a Primary that has stood still asks more than once before it goes on alone', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  pair.write('b', 0, 77);
  pair.settle();
  pair.nowMs += 60_000;
  pair.tick(100, 100);
  const release = pair.hold('linkUp', 'a');
  const late = pair.write('a', 0, 66);
  pair.settle();
  t.is(late.outcome, 'pending');
  pair.healLink();
  pair.tick(200);
  t.is(late.outcome, 'ESHUTDOWN');
  t.is(pair.status('a').role, 'Secondary');
  release();
  pair.settle();
  // Clients were there a moment ago: the resync is paced.
  pair.timePasses(50);
  t.deepEqual(pair.differences(), []);
});

test('a Primary that has stood still goes on alone when nobody answers at all', (t) => {
  const pair = flushed();
  pair.nowMs += 60_000;
  pair.tick(100, 100);
  pair.cutLink();
  const write = pair.write('a', 0, 66);
  pair.settle();
  t.is(write.outcome, 'pending');
  pair.tick(1_000);
  t.is(write.outcome, 'ok');
});

test('a silent peer is lost after the peer timeout, and not before', (t) => {
  const pair = flushed();
  pair.holdPacketsTo('a');
  pair.hold('linkUp', 'a');
  pair.tick(4000);
  t.is(pair.status('a').peer?.connection, 'Connected');
  pair.tick(200);
  t.is(pair.status('a').peer?.connection, 'Connecting');
});

test('a peer that answers pings but no writes is lost after the ack timeout', (t) => {
  const pair = flushed();
  const release = pair.hold('write', 'b');
  const shared = pair.metadata('a').superblock.current;
  const write = pair.write('a', 0, 2);
  pair.settle();
  pair.tick(30_000);
  t.is(pair.status('a').peer?.connection, 'Connected');
  t.is(write.outcome, 'pending');
  pair.tick(200);
  t.is(write.outcome, 'ok');
  t.not(pair.metadata('a').superblock.current, shared);
  release();
  pair.settle();
  t.deepEqual(pair.differences(), []);
});

test('an idle pair stays connected', (t) => {
  const pair = flushed();
  pair.tick(60_000);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('a pause of this process alone does not drop the peer', (t) => {
  const pair = flushed();
  pair.tick(3_900, 3_900);
  t.is(pair.status('a').peer?.connection, 'Connected');
  pair.nowMs += 60_000;
  pair.tick(100, 100);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('onPeerLoss suspend: writes wait until the peer is back', (t) => {
  const pair = flushed({ core: { onPeerLoss: 'suspend' } });
  pair.cutLink();
  pair.settle();
  const write = pair.write('a', 0, 2);
  pair.settle();
  pair.tick(5_000);
  t.is(write.outcome, 'pending');
  t.deepEqual(pair.status('a').suspended, ['policy']);
  t.is(pair.disk('a').visible[0], 1);
  pair.healLink();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.disk('b').visible[0], 2);
  t.deepEqual(pair.status('a').suspended, []);
});

test('onPeerLoss suspend: a write in flight is acknowledged once the peer is back and the marks are on record', (t) => {
  const pair = flushed({ core: { onPeerLoss: 'suspend' } });
  pair.hold('packet:write', 'b', () => false);
  const release = pair.holdPacketsTo('b');
  const write = pair.write('a', 0, 2);
  pair.settle();
  pair.cutLink();
  pair.settle();
  t.is(write.outcome, 'pending');
  release();
  pair.healLink();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.deepEqual(pair.differences(), []);
});

test('a graceful disconnect of the Primary outdates the peer', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'a', disconnect), 'ok');
  t.is(summary(pair, 'a'), 'Primary/UpToDate StandAlone Off Unknown/DUnknown');
  t.is(summary(pair, 'b'), 'Secondary/Outdated Connecting Off Unknown/DUnknown');
  t.is(pair.metadata('b').superblock.disk, 'Outdated');
  t.is(outcome(pair, 'b', promote), 'not-up-to-date');
});

test('a graceful disconnect of the Secondary leaves the Primary to go on alone', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'b', disconnect), 'ok');
  const write = pair.write('a', 0, 2);
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(summary(pair, 'b'), 'Secondary/Consistent StandAlone Off Unknown/DUnknown');
  t.is(outcome(pair, 'b', promote), 'peer-may-be-primary');
});

test('nobody wrote since: after a graceful disconnect nothing is copied', (t) => {
  const pair = flushed();
  run(pair, 'a', disconnect);
  run(pair, 'a', { kind: 'connect', discardMyData: false, dryRun: false });
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.false(pair.sent('b').some(({ kind }) => kind === 'resyncRequest'));
});

test('both Secondary, a cut leaves no trace', (t) => {
  const pair = connected();
  pair.cutLink();
  pair.settle();
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), 'Secondary/UpToDate Connected Established Secondary/UpToDate');
  t.deepEqual(pair.marked('a'), []);
});

test('a Secondary that was cut off does not become Primary unasked', (t) => {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  t.is(outcome(pair, 'b', promote), 'peer-may-be-primary');
  t.is(pair.status('b').diskState, 'Consistent');
  t.is(outcome(pair, 'a', demote), 'ok');
});

test('without a copy in reach I/O waits, and fails with EIO after the no-data timeout', (t) => {
  const pair = flushed();
  pair.disk('a').failFlushes = true;
  pair.flush('a');
  pair.settle();
  t.is(pair.status('a').diskState, 'Failed');
  pair.cutLink();
  pair.settle();
  const read = pair.read('a', 0);
  const write = pair.write('a', 0, 2);
  pair.tick(29_900);
  t.deepEqual([read.outcome, write.outcome], ['pending', 'pending']);
  t.deepEqual(pair.status('a').suspended, ['no-data']);
  pair.tick(300);
  t.deepEqual([read.outcome, write.outcome], ['EIO', 'EIO']);
  pair.healLink();
  pair.settle();
  const again = pair.read('a', 0);
  pair.settle();
  t.deepEqual(again.stamps, [1]);
});

test('marks outlive a crash when their extents have left the activity log', (t) => {
  const pair = flushed({ extents: 32 });
  pair.cutLink();
  pair.settle();
  for (let extent = 1; extent < 32; extent++) pair.write('a', extent * blocksPerExtent + 5, extent);
  pair.settle();
  t.true(pair.metadata('a').activeExtents.length <= 7);
  pair.crash('a');
  pair.restart('a');
  pair.settle();
  for (let extent = 1; extent < 32; extent++) t.true(pair.marked('a').includes(extent * blocksPerExtent + 5));
  t.true(pair.marked('a').length < 8 * blocksPerExtent);
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.deepEqual(pair.lostBlocks('b'), []);
});
