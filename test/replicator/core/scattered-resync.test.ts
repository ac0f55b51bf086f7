/** Marks that lie apart, asked for and answered together; what else goes on between them is not held up for good. */
import test from 'ava';
import { bytesOf, spanOf, withoutRuns } from '../../../replicator/core/blocks.ts';
import { attach, flushed, mirroringPrimary, run, summary } from '../../support/pair.ts';
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

const apart = [0, 2, 4, 8, 9, 40];

/** a is Primary, b is away; a has written the blocks that lie apart meanwhile, and the link is whole again. */
function behind(stamp = 2): TwoCores {
  const pair = flushed();
  pair.cutLink();
  pair.settle();
  for (const block of apart) pair.write('a', block, stamp);
  pair.settle();
  pair.healLink();
  return pair;
}

function requests(pair: TwoCores, name: Name): readonly number[] {
  return pair
    .sent(name)
    .flatMap((packet) =>
      packet.kind === 'resyncRequest' ? [1] : packet.kind === 'scatteredRequest' ? [packet.runs.length] : [],
    );
}

test('marks that lie apart are one request and one answer', (t) => {
  const pair = behind();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(requests(pair, 'b'), [5]);
  const answers = pair.sent('a').filter(({ kind }) => kind === 'scatteredData' || kind === 'resyncData');
  t.is(answers.length, 1);
  for (const block of apart) t.is(pair.disk('b').stable[block], 2);
  t.is(pair.disk('b').visible[1], pair.disk('a').visible[1]);
  t.deepEqual(pair.differences(), []);
});

test('holes among them travel as holes', (t) => {
  const pair = behind();
  pair.disk('a').visible[4] = 0;
  pair.settle();
  const answers = pair.sent('a').flatMap((packet) => (packet.kind === 'scatteredData' ? [packet] : []));
  t.deepEqual(
    answers.map(({ zero, runs }) => [zero, runs.map(({ first }) => first)]),
    [
      [true, [4]],
      [false, [0, 2, 8, 40]],
    ],
  );
  t.is(pair.disk('b').visible[4], 0);
  t.deepEqual(pair.differences(), []);
});

test('a mirrored write to one of them, or between them, while the answer is under way is not undone', (t) => {
  const pair = behind();
  const release = pair.hold('packet:resyncData', 'b');
  pair.settle();
  pair.write('a', 2, 7);
  pair.write('a', 3, 8);
  pair.settle();
  release();
  pair.settle();
  t.deepEqual([...pair.disk('b').visible.slice(2, 4)], [7, 8]);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('a Primary that is the target holds back its writes to what is asked for, and no others', (t) => {
  // Apart from the extents that were active when the disk went, which are copied as a whole.
  const far = 2 * blocksPerExtent;
  const pair = flushed();
  run(pair, 'a', { kind: 'detach', force: false });
  for (const block of apart) pair.write('a', far + block, 5);
  pair.settle();
  const release = pair.hold('packet:resyncData', 'a');
  run(pair, 'a', attach);
  const held = pair.write('a', far + 2, 7);
  pair.write('a', far + 3, 8);
  pair.settle();
  t.is(held.outcome, 'pending');
  t.deepEqual([...pair.disk('b').visible.slice(far + 2, far + 4)], [5, 8]);
  release();
  pair.settle();
  t.is(held.outcome, 'ok');
  t.deepEqual([...pair.disk('a').visible.slice(far + 2, far + 4)], [7, 8]);
  t.deepEqual(pair.differences(), []);
});

test('a block that the source cannot read keeps none of the others out of sync', (t) => {
  const pair = behind();
  pair.disk('a').deadBlocks.add(4);
  pair.settle();
  pair.tick(3_000);
  t.deepEqual(pair.marked('b'), [4]);
  pair.disk('a').deadBlocks.delete(4);
  pair.tick(5_000);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('an answer for blocks that were not asked for ends the session', (t) => {
  for (const [runs, length] of [
    [[{ first: 1, count: 1 }], 4096],
    [[{ first: 0, count: 1 }], 8192],
    [[], 4096],
  ] as const) {
    const pair = behind();
    pair.hold('packet:resyncRequest', 'a');
    pair.settle();
    const asked = pair.sent('b').find(({ kind }) => kind === 'scatteredRequest');
    if (asked?.kind !== 'scatteredRequest') throw new Error('nothing was asked for');
    const { connection } = pair.core('b');
    if (connection.conn !== 'Connected') return t.fail('not connected');
    const packet = { kind: 'scatteredData', id: asked.id, runs, length, zero: true } as const;
    const effects = pair
      .core('b')
      .step({ kind: 'packet', session: connection.session, packet, payload: null });
    t.true(effects.some((effect) => effect.kind === 'closeLink' && effect.why === 'ProtocolError'));
    t.deepEqual(pair.marked('b'), apart);
  }
});

test('runs less others are what is left of them, or nothing when others are not in them', (t) => {
  const runs = [
    { first: 2, count: 3 },
    { first: 8, count: 1 },
  ];
  t.deepEqual(withoutRuns(runs, []), runs);
  t.deepEqual(withoutRuns(runs, runs), []);
  t.deepEqual(withoutRuns(runs, [{ first: 3, count: 1 }]), [
    { first: 2, count: 1 },
    { first: 4, count: 1 },
    { first: 8, count: 1 },
  ]);
  t.deepEqual(
    withoutRuns(runs, [
      { first: 2, count: 1 },
      { first: 4, count: 1 },
    ]),
    [
      { first: 3, count: 1 },
      { first: 8, count: 1 },
    ],
  );
  for (const bad of [
    { first: 1, count: 2 },
    { first: 4, count: 2 },
    { first: 5, count: 1 },
    { first: 9, count: 1 },
    { first: 3, count: 0 },
  ])
    t.is(withoutRuns(runs, [bad]), null);
  t.deepEqual(bytesOf(spanOf(runs), 1e6), { offset: 8192, length: 7 * 4096 });
});
