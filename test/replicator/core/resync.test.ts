/** Resync beside client writes, in many interleavings: bits are cleared by proof alone, nothing goes back (W5, W12). */
import test from 'ava';
import {
  attach,
  bothSecondary,
  chooser,
  connect,
  connected,
  detachByForce,
  flushed,
  inShort,
  invalidate,
  invalidatePeer,
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
import { blocksPerExtent, names, TwoCores } from '../../support/two-cores.ts';

/** a is Primary, b is away; a has written `blocks` (stamp 2) meanwhile, and the link is whole again but nothing has arrived. */
function behind(
  blocks: readonly number[],
  options: ConstructorParameters<typeof TwoCores>[0] = {},
): TwoCores {
  const pair = flushed(options);
  pair.cutLink();
  pair.settle();
  for (const block of blocks) pair.write('a', block, 2);
  pair.settle();
  pair.healLink();
  return pair;
}

test('bits are cleared on the source only by resyncStable, and on the target only by a flush', (t) => {
  const pair = behind([0, 5]);
  const releaseFlush = pair.hold('flush', 'b');
  pair.settle();
  releaseFlush();
  const releaseAgain = pair.hold('flush', 'b', () => pair.disk('b').visible[5] === 2);
  pair.settle();
  t.is(pair.disk('b').visible[0], 2);
  t.is(pair.disk('b').visible[5], 2);
  t.deepEqual(pair.marked('b'), [0, 5]);
  const releaseStable = pair.hold('packet:resyncStable', 'a');
  releaseAgain();
  pair.settle();
  t.deepEqual(pair.marked('b'), []);
  t.deepEqual(pair.marked('a'), [0, 5]);
  releaseStable();
  pair.settle();
  t.deepEqual(pair.marked('a'), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a target that loses power before its flush is copied again', (t) => {
  const pair = behind([0, 5]);
  pair.hold('flush', 'b', () => pair.disk('b').visible[5] === 2);
  pair.settle();
  t.deepEqual(pair.marked('a'), [0, 5]);
  pair.crash('b', 'power');
  pair.settle();
  t.deepEqual(pair.marked('a'), [0, 5]);
});

test('while it is copied to, a disk is Inconsistent on record', (t) => {
  const pair = behind([0, 5]);
  const release = pair.hold('packet:resyncData', 'b');
  pair.settle();
  t.is(summary(pair, 'a'), 'Primary/UpToDate Connected SyncSource Secondary/Inconsistent');
  t.is(summary(pair, 'b'), 'Secondary/Inconsistent Connected SyncTarget Primary/UpToDate');
  t.is(pair.metadata('b').superblock.disk, 'Inconsistent');
  t.is(pair.metadata('a').superblock.disk, 'UpToDate');
  const promotion = pair.command('b', promote);
  release();
  pair.settle();
  t.is(inShort(promotion.result), 'peer-is-primary');
});

test('nothing is copied before the union of the marks is on record at the source', (t) => {
  const pair = behind([0, 5]);
  const release = pair.hold('commit', 'a', () => pair.status('a').peer?.replication === 'StartingSyncS');
  pair.settle();
  t.is(pair.status('a').peer?.replication, 'StartingSyncS');
  t.false(pair.sent('a').some(({ kind }) => kind === 'syncStart'));
  t.not(pair.metadata('b').superblock.disk, 'Inconsistent');
  release();
  pair.settle();
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('writes go on, mirrored, during a resync', (t) => {
  const pair = behind([0, 5, 9]);
  const release = pair.hold('read', 'a');
  pair.settle();
  const writes = [pair.write('a', 5, 7), pair.write('a', 100, 8)];
  pair.settle();
  t.is(writes[0]?.outcome, 'pending', 'the block is being read for the target');
  t.is(writes[1]?.outcome, 'ok');
  t.is(pair.disk('b').visible[100], 8);
  release();
  pair.settle();
  t.is(writes[0]?.outcome, 'ok');
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('b').visible[5], 7);
});

test('a client write and the resync of the same block never overtake each other, in any order of steps', (t) => {
  // All orders of the first steps, depth first; then the rest in order.
  const depth = 7;
  let histories = 0;
  for (let path: number[] | null = []; path !== null; histories++) {
    const pair = behind([0]);
    const releases = names.map((name) => pair.hold('packet:resyncRequest', name));
    pair.settle();
    for (const release of releases) release();
    pair.write('a', 0, 50, { count: 2 });
    pair.write('a', 0, 51);
    const taken: number[] = [];
    const widths: number[] = [];
    const given = path;
    pair.settle((count) => {
      const choice = given[taken.length] ?? 0;
      if (taken.length >= depth) return 0;
      taken.push(choice);
      widths.push(count);
      return choice;
    });
    t.deepEqual([pair.disk('a').visible[0], pair.disk('a').visible[1]], [51, 50]);
    if (pair.differences().length > 0 || pair.marked('a').length > 0) return t.fail(`path ${taken.join()}`);
    path = nextPath(taken, widths);
  }
  t.true(histories > 50);
});

test('whatever order disks, metadata and link get on in, a resync under writes ends with equal disks', (t) => {
  for (let seed = 0; seed < 150; seed++) {
    const choose = chooser(seed);
    const pair = behind([0, 1, 2, 3, blocksPerExtent], { core: { resyncWindowBytes: 8192 } });
    for (let i = 0; i < 12; i++) {
      let left = choose(12);
      const release = pair.hold('flush', 'b', () => left-- < 0);
      pair.write('a', choose(5), 60 + i, { count: 1 + choose(3), fua: choose(4) === 0 });
      pair.steps(choose(6));
      release();
    }
    pair.settle(choose);
    t.deepEqual(pair.differences(), [], `seed ${seed}`);
    t.deepEqual(pair.lostBlocks('b'), [], `seed ${seed}`);
    t.is(summary(pair, 'b'), mirroringSecondary, `seed ${seed}`);
  }
});

test('a Primary that is not whole reads what is marked from its peer, and the rest from its own disk', (t) => {
  const pair = flushed();
  run(pair, 'a', { kind: 'detach', force: false });
  pair.write('a', 2 * blocksPerExtent, 6);
  pair.settle();
  const hold = pair.hold('packet:resyncData', 'a');
  run(pair, 'a', { kind: 'attach' });
  t.is(summary(pair, 'a'), 'Primary/Inconsistent Connected SyncTarget Secondary/UpToDate');
  const reads = [pair.read('a', 2 * blocksPerExtent), pair.read('a', 0)];
  pair.settle();
  // The answer is behind the data in the stream: only then does it arrive.
  t.is(reads[0]?.outcome, 'pending');
  const local = pair.read('a', 3 * blocksPerExtent);
  pair.settle();
  t.is(local.outcome, 'ok');
  hold();
  pair.settle();
  t.deepEqual(reads[0]?.stamps, [6]);
  t.deepEqual(reads[1]?.stamps, [1]);
  t.is(pair.sent('a').filter(({ kind }) => kind === 'read').length, 2);
});

test('a Primary that is not whole, and writes while it is copied to, ends equal to its peer', (t) => {
  for (let seed = 0; seed < 150; seed++) {
    const choose = chooser(seed);
    const pair = flushed({ core: { resyncWindowBytes: 8192, resyncWindowBusyBytes: 4096 } });
    run(pair, 'a', { kind: 'detach', force: false });
    for (let block = 0; block < 4; block++) pair.write('a', block, 6);
    pair.settle();
    pair.command('a', { kind: 'attach' });
    for (let i = 0; i < 10; i++) {
      pair.steps(choose(8));
      pair.write('a', choose(4), 70 + i, { count: 1 + choose(2) });
      if (choose(3) === 0) pair.read('a', choose(4));
    }
    pair.settle(choose);
    t.deepEqual(pair.differences(), [], `seed ${seed}`);
    t.deepEqual(pair.lostBlocks('a'), [], `seed ${seed}`);
    t.is(summary(pair, 'a'), mirroringPrimary, `seed ${seed}`);
  }
});

for (const [who, protocol] of [
  ['a', 'C'],
  ['b', 'C'],
  ['a', 'A'],
] as const) {
  test(`data on ${who} is copied to the empty disk of its peer (protocol ${protocol})`, (t) => {
    const origin = { origin: 'created-with-data' } as const;
    const pair = new TwoCores({ [who]: origin, core: { protocol } });
    pair.disk(who).fill(9);
    pair.start();
    pair.settle();
    t.is(summary(pair, 'a'), bothSecondary);
    t.is(pair.disk('a').visible[7], 9);
    t.deepEqual(pair.differences(), []);
  });
}

test('data on both: unrelated, and nothing is overwritten until one gives way', (t) => {
  const origin = { origin: 'created-with-data' } as const;
  const pair = new TwoCores({ a: origin, b: origin });
  pair.disk('a').fill(9);
  pair.disk('b').fill(8);
  pair.start();
  pair.settle();
  t.is(summary(pair, 'a'), 'Secondary/Inconsistent StandAlone Off Unknown/DUnknown');
  t.is(pair.disk('a').visible[0], 9);
  t.is(pair.disk('b').visible[0], 8);
  run(pair, 'a', { kind: 'connect', discardMyData: true, dryRun: false });
  run(pair, 'b', connect);
  t.is(summary(pair, 'a'), bothSecondary);
  t.is(pair.disk('a').visible[0], 8);
  t.deepEqual(pair.differences(), []);
});

test('invalidate copies everything from the peer', (t) => {
  const pair = flushed();
  pair.disk('b').fill(123);
  t.is(outcome(pair, 'b', invalidate), 'ok');
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('invalidate-peer copies everything to the peer', (t) => {
  const pair = flushed();
  pair.disk('b').fill(123);
  t.is(outcome(pair, 'a', invalidatePeer), 'ok');
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('an invalidated disk that loses its process is still to be copied whole', (t) => {
  const pair = connected();
  pair.disk('b').fill(123);
  pair.hold('packet:resyncData', 'b');
  run(pair, 'b', invalidate);
  pair.crash('b');
  pair.crash('a');
  pair.restart('a');
  pair.restart('b');
  pair.settle();
  t.is(pair.status('b').diskState, 'Inconsistent');
  t.is(pair.marked('a').length, 8 * blocksPerExtent);
});

test('a resync can be paused and resumed from either side', (t) => {
  for (const name of names) {
    const pair = behind([0, 5, 9], { core: { resyncWindowBytes: 4096, resyncWindowBusyBytes: 4096 } });
    const release = pair.hold('packet:resyncData', 'b');
    pair.settle();
    t.is(outcome(pair, name, pause), 'ok');
    release();
    pair.settle();
    pair.tick(1_000);
    t.is(pair.status('a').peer?.replication, 'PausedSyncS');
    t.is(pair.status('b').peer?.replication, 'PausedSyncT');
    t.true(pair.marked('a').length >= 2);
    t.is(outcome(pair, name, resume), 'ok');
    t.is(summary(pair, 'b'), mirroringSecondary);
    t.deepEqual(pair.differences(), []);
    t.is(outcome(pair, name, pause), 'no-resync');
  }
});

test('a resync that is interrupted goes on with what is left', (t) => {
  const pair = behind([0, 5, 9], { core: { resyncWindowBytes: 4096 } });
  pair.hold('packet:resyncRequest', 'a', () => pair.marked('b').length < 3);
  pair.settle();
  pair.breakSession();
  pair.settle();
  const before = pair.sent('b').filter(({ kind }) => kind === 'resyncRequest').length;
  t.true(before >= 1);
  t.deepEqual(pair.differences().length > 0, false);
});

test('a source that crashes during a resync keeps what the target lacks on record', (t) => {
  for (const how of ['kill', 'power'] as const) {
    const pair = behind([0, 5, 9]);
    const release = pair.hold('packet:resyncData', 'b');
    pair.settle();
    pair.flush('a');
    pair.settle();
    pair.crash('a', how);
    pair.settle();
    release();
    t.is(outcome(pair, 'b', promote), 'not-up-to-date');
    pair.restart('a');
    pair.settle();
    t.is(summary(pair, 'b'), bothSecondary);
    t.deepEqual(pair.differences(), []);
    t.deepEqual(pair.lostBlocks('a'), []);
  }
});

test('a target promoted by force after its source is gone is Primary of what it has', (t) => {
  const pair = behind([0, 5, 9]);
  const release = pair.hold('packet:resyncData', 'b');
  pair.settle();
  pair.crash('a');
  pair.settle();
  release();
  const result = run(pair, 'b', promoteByForce);
  t.is(inShort(result), 'ok');
  t.true(result?.ok === true && result.givenUp.some((what) => what.includes('consistency')));
  t.is(pair.status('b').diskState, 'UpToDate');
});

test('a Primary may begin a generation while its peer is copied to; the peer ends with that one', (t) => {
  const pair = connected();
  const release = pair.hold('write', 'b');
  run(pair, 'b', invalidate);
  t.is(outcome(pair, 'a', promote), 'ok');
  const write = pair.write('a', 3, 4);
  pair.settle();
  t.is(pair.status('b').peer?.replication, 'SyncTarget');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(pair.metadata('b').superblock.current, pair.metadata('a').superblock.current);
  t.deepEqual(pair.metadata('a').superblock.bitmap, []);
  t.deepEqual(pair.differences(), []);
});

test('a Primary that had no data in reach when it was promoted begins a generation with its first write', (t) => {
  const pair = connected();
  const releaseWrites = pair.hold('write', 'b');
  run(pair, 'b', invalidate);
  const before = pair.metadata('a').superblock.current;
  // While the promotion is being recorded, the disk goes, and with it the session: it was the source of a resync.
  const releaseCommits = pair.hold('commit', 'a');
  const promoted = pair.command('a', promote);
  pair.settle();
  pair.command('a', detachByForce);
  const releaseLink = pair.hold('linkUp', 'a');
  releaseCommits();
  pair.settle();
  t.is(inShort(promoted.result), 'ok');
  t.is(pair.status('a').diskState, 'Diskless');
  t.is(pair.core('a').exposed, 0n);
  releaseLink();
  run(pair, 'a', attach);
  releaseWrites();
  const write = pair.write('a', 3, 4);
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(summary(pair, 'a'), mirroringPrimary);
  const { current } = pair.metadata('a').superblock;
  t.not(current, before);
  t.is(pair.core('a').exposed, current);
  t.is(pair.metadata('b').superblock.current, current);
  t.deepEqual(pair.differences(), []);
});

test('both nodes say how far the resync is', (t) => {
  const pair = behind([0, 5, 9, 11], { core: { resyncWindowBytes: 4096 } });
  const release = pair.hold('packet:resyncData', 'b');
  pair.settle();
  const totals = names.map((name) => pair.status(name).peer?.sync?.totalBytes);
  t.deepEqual(totals, [4 * 4096, 4 * 4096]);
  release();
  pair.settle();
  t.is(pair.status('a').peer?.sync, null);
});

/** The next sequence of choices in depth-first order; null after the last. */
function nextPath(taken: readonly number[], widths: readonly number[]): number[] | null {
  for (let at = taken.length - 1; at >= 0; at--) {
    const choice = taken[at] ?? 0;
    if (choice + 1 < (widths[at] ?? 0)) return [...taken.slice(0, at), choice + 1];
  }
  return null;
}

test('data and holes of one request travel in pieces, and nothing is proven before all are written', (t) => {
  const pair = behind([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  pair.cutLink();
  pair.settle();
  for (const block of [0, 1, 2, 5, 6, 8, 9]) pair.zeroes('a', block);
  pair.settle();
  const releaseData = pair.hold('packet:resyncData', 'b');
  pair.healLink();
  pair.settle();
  const pieces = pair.sent('a').filter((packet) => packet.kind === 'resyncData');
  t.deepEqual(
    pieces.map(({ offset, length, zero }) => [offset / 4096, length / 4096, zero]),
    [
      [0, 3, true],
      [3, 2, false],
      [5, 2, true],
      [7, 1, false],
      [8, 2, true],
    ],
  );
  const releaseWrite = pair.hold('write', 'b', () => pair.disk('b').visible[7] === 2);
  releaseData();
  pair.settle();
  t.deepEqual(pair.marked('b'), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  t.true(pair.isWaiting('write', 'b'));
  releaseWrite();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('a source that can read only the beginning of a request: the rest of it is asked for again', (t) => {
  const pair = behind([2, 3, 4]);
  pair.cutLink();
  pair.settle();
  pair.zeroes('a', 2);
  pair.settle();
  pair.healLink();
  const release = pair.hold('read', 'a', () => pair.sent('a').some((packet) => packet.kind === 'resyncData'));
  pair.settle();
  pair.disk('a').failReads = true;
  release();
  pair.settle();
  t.true(pair.sent('a').some(({ kind }) => kind === 'resyncFailed'));
  t.deepEqual(pair.marked('b'), [3, 4]);
  pair.disk('a').failReads = false;
  pair.tick(500);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});
