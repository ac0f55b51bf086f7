/** Two cores that mirror: what an acknowledgement waits for, and in which order writes land (W1, W2, W5). */
import test from 'ava';
import {
  chooser,
  connected,
  flushed,
  mirroring,
  mirroringPrimary,
  mirroringSecondary,
  promote,
  run,
  summary,
} from '../../support/pair.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

test('two new, empty disks are in sync without a copy', (t) => {
  const pair = connected();
  run(pair, 'a', promote);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.false([...pair.sent('a'), ...pair.sent('b')].some(({ kind }) => kind === 'resyncRequest'));
  t.is(pair.status('a').generation.current, pair.status('b').generation.current);
});

test('a write is on both disks when it is acknowledged', (t) => {
  const pair = mirroring();
  const write = pair.write('a', 5, 7);
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(pair.disk('a').visible[5], 7);
  t.is(pair.disk('b').visible[5], 7);
});

test('a write is not acknowledged before the peer says it is written', (t) => {
  const pair = mirroring();
  const release = pair.hold('packet:written', 'a');
  const write = pair.write('a', 0, 2);
  pair.settle();
  t.true(pair.isWaiting('packet:written', 'a'));
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
});

test('a write is not acknowledged before the peer has written it', (t) => {
  const pair = mirroring();
  const release = pair.hold('write', 'b');
  const write = pair.write('a', 0, 2);
  pair.settle();
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
});

test('a write is not acknowledged before the own disk has it', (t) => {
  const pair = mirroring();
  const release = pair.hold('write', 'a');
  const write = pair.write('a', 0, 2);
  pair.settle();
  t.is(pair.disk('b').visible[0], 2);
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
});

for (const node of ['a', 'b'] as const) {
  test(`a flush waits for the disk of ${node}`, (t) => {
    const pair = mirroring();
    const release = pair.hold('flush', node);
    const flush = pair.flush('a');
    pair.settle();
    t.is(flush.outcome, 'pending');
    release();
    pair.settle();
    t.is(flush.outcome, 'ok');
    t.is(pair.disk('a').stable[0], 1);
    t.is(pair.disk('b').stable[0], 1);
  });

  test(`a write with FUA waits for a flush of the disk of ${node}`, (t) => {
    const pair = mirroring();
    const release = pair.hold('flush', node);
    const write = pair.write('a', 9, 3, { fua: true });
    pair.settle();
    t.is(pair.disk(node).visible[9], 3);
    t.is(write.outcome, 'pending');
    release();
    pair.settle();
    t.is(write.outcome, 'ok');
    t.is(pair.disk('a').stable[9], 3);
    t.is(pair.disk('b').stable[9], 3);
  });
}

test('a flush at the peer covers a write that came before it and is still being written', (t) => {
  const pair = mirroring();
  const release = pair.hold('write', 'b');
  pair.write('a', 3, 4);
  const flush = pair.flush('a');
  pair.settle();
  t.is(flush.outcome, 'pending');
  release();
  pair.settle();
  t.is(flush.outcome, 'ok');
  t.is(pair.disk('b').stable[3], 4);
});

test('overlapping writes end in the same order on both disks, whichever disk is slow', (t) => {
  for (const slow of ['a', 'b'] as const) {
    const pair = mirroring();
    const release = pair.hold('write', slow);
    const writes = [
      pair.write('a', 0, 10, { count: 3 }),
      pair.write('a', 2, 11, { count: 3 }),
      pair.write('a', 1, 12, { count: 2 }),
    ];
    pair.settle();
    release();
    pair.settle();
    t.deepEqual(
      writes.map(({ outcome }) => outcome),
      ['ok', 'ok', 'ok'],
    );
    t.deepEqual([...pair.disk('a').visible.subarray(0, 5)], [10, 12, 12, 11, 11]);
    t.deepEqual(pair.differences(), []);
  }
});

test('overlapping writes end alike on both disks in whatever order disks and link get on', (t) => {
  for (let seed = 0; seed < 200; seed++) {
    const pair = mirroring();
    const choose = chooser(seed);
    for (let i = 0; i < 6; i++) {
      pair.write('a', choose(4), 20 + i, { count: 1 + choose(3) });
      if (choose(3) === 0) pair.trim('a', choose(4));
    }
    pair.settle(choose);
    t.deepEqual(pair.differences(), [], `seed ${seed}`);
    t.deepEqual(pair.lostBlocks('a'), [], `seed ${seed}`);
  }
});

test('trim and write zeroes reach the peer as such', (t) => {
  const pair = mirroring();
  pair.write('a', 4, 6, { count: 4 });
  pair.settle();
  const trim = pair.trim('a', 4);
  const zeroes = pair.zeroes('a', 6);
  pair.settle();
  t.deepEqual([trim.outcome, zeroes.outcome], ['ok', 'ok']);
  t.deepEqual([...pair.disk('b').visible.subarray(4, 8)], [0, 6, 0, 6]);
  const ops = pair.sent('a').flatMap((packet) => (packet.kind === 'write' ? [packet.op] : []));
  t.deepEqual(ops.slice(-2), ['trim', 'zeroes']);
});

test('a read sees every acknowledged write', (t) => {
  const pair = mirroring();
  pair.write('a', 1, 8);
  pair.settle();
  const read = pair.read('a', 0, 3);
  pair.settle();
  t.is(read.outcome, 'ok');
  t.deepEqual(read.stamps, [1, 8, 0]);
});

test('a Secondary refuses reads, writes and flushes', (t) => {
  const pair = mirroring();
  const requests = [pair.read('b', 0), pair.write('b', 0, 5), pair.flush('b'), pair.trim('b', 0)];
  pair.settle();
  t.deepEqual(
    requests.map(({ outcome }) => outcome),
    ['ESHUTDOWN', 'ESHUTDOWN', 'ESHUTDOWN', 'ESHUTDOWN'],
  );
  t.is(pair.disk('b').visible[0], 1);
});

test('a write starts only once its extent is durably active', (t) => {
  const pair = flushed();
  const release = pair.hold('commit', 'a');
  const write = pair.write('a', 3 * blocksPerExtent, 5);
  pair.settle();
  t.is(write.outcome, 'pending');
  t.is(pair.disk('a').visible[3 * blocksPerExtent], 0);
  t.is(pair.disk('b').visible[3 * blocksPerExtent], 0);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.deepEqual(pair.metadata('a').activeExtents, [0, 3]);
});

test('writes to active extents cost no metadata commit', (t) => {
  const pair = flushed();
  const before = pair.metadata('a').commits + pair.metadata('b').commits;
  for (let block = 1; block < 50; block++) pair.write('a', block, block);
  pair.flush('a');
  pair.settle();
  t.is(pair.metadata('a').commits + pair.metadata('b').commits, before);
});

test('more hot extents than the activity log has are written after all, by checkpoints of its own', (t) => {
  const pair = mirroring({ extents: 32 });
  const writes = Array.from({ length: 64 }, (_, i) => pair.write('a', (i % 32) * blocksPerExtent, i + 1));
  pair.settle();
  t.true(writes.every(({ outcome }) => outcome === 'ok'));
  t.true(pair.metadata('a').activeExtents.length <= 7);
  t.deepEqual(pair.differences(), []);
});

test('protocol A acknowledges once the own disk has the write, B once the peer has received it', (t) => {
  for (const [protocol, atWritten, atReceived] of [
    ['A', 'ok', 'ok'],
    ['B', 'ok', 'pending'],
    ['C', 'pending', 'pending'],
  ] as const) {
    const pair = mirroring({ core: { protocol } });
    const releaseWrites = pair.hold('write', 'b');
    const one = pair.write('a', 0, 2);
    pair.settle();
    t.is(one.outcome, atWritten, `${protocol}: the peer has received it, and not written`);
    const releasePackets = pair.holdPacketsTo('b');
    const two = pair.write('a', 1, 2);
    pair.settle();
    t.is(two.outcome, atReceived, `${protocol}: it is on its way`);
    releasePackets();
    releaseWrites();
    pair.settle();
    t.deepEqual([one.outcome, two.outcome], ['ok', 'ok']);
    t.deepEqual(pair.differences(), []);
  }
});

test('with protocol A and B a flush still waits for the stable storage of the peer', (t) => {
  for (const protocol of ['A', 'B'] as const) {
    const pair = mirroring({ core: { protocol } });
    const release = pair.hold('flush', 'b');
    pair.write('a', 2, 2);
    const flush = pair.flush('a');
    pair.settle();
    t.is(flush.outcome, 'pending');
    release();
    pair.settle();
    t.is(flush.outcome, 'ok');
    t.is(pair.disk('b').stable[2], 2);
  }
});

test('the first write after a promotion begins a generation that both disks record', (t) => {
  const pair = connected();
  run(pair, 'a', promote);
  const before = pair.status('a').generation.current;
  const release = pair.hold('commit', 'a');
  const write = pair.write('a', 0, 1);
  pair.settle();
  t.is(write.outcome, 'pending');
  t.is(pair.disk('a').visible[0], 0);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  const { current, history } = pair.metadata('a').superblock;
  t.not(current, before);
  t.is(history[0], before);
  t.is(pair.metadata('b').superblock.current, current);
  t.deepEqual(
    pair.metadata('a').superblock.bitmap,
    [],
    'the peer holds it: nothing is to be covered any more',
  );
});

test('a write of a new generation reaches the disk of the peer only once the peer has recorded that generation', (t) => {
  const pair = connected();
  run(pair, 'a', promote);
  const release = pair.hold('commit', 'b');
  const write = pair.write('a', 0, 1);
  pair.settle();
  t.is(pair.disk('a').visible[0], 1);
  t.is(pair.disk('b').visible[0], 0);
  t.is(write.outcome, 'pending');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.deepEqual(pair.differences(), []);
});
