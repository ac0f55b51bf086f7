/** A resync that compares hashes: it copies what differs, and equal blocks are proven as written ones are (W12). */
import test from 'ava';
import type { ChecksumResync } from '../../../replicator/core/options.ts';
import type { BlockRun, Packet } from '../../../replicator/core/packet.ts';
import {
  attach,
  chooser,
  connect,
  demote,
  detach,
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
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { blocksPerExtent, names } from '../../support/two-cores.ts';

/** Blocks of the packets of one kind that the node has sent. */
function blocksSent(pair: TwoCores, name: Name, kind: 'resyncData' | 'resyncSame'): readonly number[] {
  const runsOf = (packet: Packet): readonly BlockRun[] => {
    if (packet.kind === 'resyncSame' && kind === 'resyncSame') return packet.runs;
    if (packet.kind === 'scatteredData' && kind === 'resyncData') return packet.runs;
    if (packet.kind !== 'resyncData' || kind !== 'resyncData') return [];
    return [{ first: packet.offset / 4096, count: packet.length / 4096 }];
  };
  return pair
    .sent(name)
    .flatMap(runsOf)
    .flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
}

/** a, Primary, is killed with two of its writes on its way to b, and is back. */
function crashed(checksumResync: ChecksumResync): TwoCores {
  const pair = flushed({ core: { checksumResync } });
  for (let block = 0; block < 10; block++) pair.write('a', block, 2);
  pair.settle();
  pair.hold('packet:write', 'b', () => pair.isUp('a'));
  pair.write('a', 3, 7);
  pair.write('a', 5, 7);
  pair.settle();
  pair.crash('a');
  pair.settle();
  pair.restart('a');
  return pair;
}

test('after the crash of a Primary its active extents are compared, and only what differs is copied', (t) => {
  const pair = crashed('after-crash');
  pair.settle();
  t.deepEqual(pair.differences(), []);
  const source = names.find((name) => blocksSent(pair, name, 'resyncData').length > 0) ?? 'a';
  t.deepEqual(blocksSent(pair, source, 'resyncData'), [3, 5]);
  t.is(blocksSent(pair, source, 'resyncSame').length, blocksPerExtent - 2);
  for (const name of names) {
    t.deepEqual(pair.marked(name), []);
    const finished = pair.decisions(name).find(({ rule }) => rule === 'finished');
    t.like(finished?.inputs, {
      copiedBlocks: 2,
      equalBlocks: blocksPerExtent - 2,
      payloadBytes: 2 * 4096,
    });
  }
});

test('with the policy "never" the active extents are copied as they are', (t) => {
  const pair = crashed('never');
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.is(names.flatMap((name) => blocksSent(pair, name, 'resyncData')).length, blocksPerExtent);
});

test('after a forced failover the old Primary is compared with the new one', (t) => {
  const pair = flushed();
  pair.crash('a', 'power');
  pair.settle();
  run(pair, 'b', promoteByForce);
  pair.write('b', 20, 8);
  pair.settle();
  pair.restart('a');
  pair.settle();
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.deepEqual(blocksSent(pair, 'b', 'resyncData'), [20]);
  t.deepEqual(pair.differences(), []);
});

/** b has been away, and a has written blocks 0 and 5 meanwhile. */
function behind(checksumResync: ChecksumResync): TwoCores {
  const pair = flushed({ core: { checksumResync } });
  pair.cutLink();
  pair.settle();
  pair.write('a', 0, 2);
  pair.write('a', 5, 2);
  pair.settle();
  pair.healLink();
  return pair;
}

test('blocks written on one side alone are copied without being compared, unless the policy is "always"', (t) => {
  for (const [policy, hashed] of [
    ['after-crash', false],
    ['always', true],
    ['never', false],
  ] as const) {
    const pair = behind(policy);
    pair.settle();
    t.deepEqual(blocksSent(pair, 'a', 'resyncData'), [0, 5], policy);
    t.is(
      pair.sent('b').some(({ kind }) => kind === 'digestRequest'),
      hashed,
      policy,
    );
  }
});

test('invalidate copies everything, unless the policy is "always"', (t) => {
  for (const [policy, copied] of [
    ['after-crash', 8 * blocksPerExtent],
    ['always', 0],
  ] as const) {
    const pair = flushed({ core: { checksumResync: policy } });
    run(pair, 'b', invalidate);
    t.is(summary(pair, 'b'), mirroringSecondary);
    t.is(blocksSent(pair, 'a', 'resyncData').length, copied, policy);
  }
});

/** What was asked for with hashes of that kind: first block and number of blocks. */
function hashed(pair: TwoCores, name: Name, coarse: boolean): readonly (readonly [number, number])[] {
  return pair
    .sent(name)
    .flatMap((packet) =>
      packet.kind === 'digestRequest' && packet.coarse === coarse
        ? [[packet.offset / 4096, packet.length / 4096] as const]
        : [],
    );
}

/** b has other data there than a, and is to be resynced as a whole. */
function resynced(differing: readonly number[]): TwoCores {
  const pair = flushed({ core: { checksumResync: 'always' } });
  for (const block of differing) pair.disk('b').visible[block] = 666;
  run(pair, 'b', invalidate);
  return pair;
}

test('whole extents are compared by one hash for 32 blocks, and block by block only where those differ', (t) => {
  const pair = resynced([40, 45, 700]);
  const coarse = hashed(pair, 'b', true);
  t.is(
    coarse.reduce((sum, [, count]) => sum + count, 0),
    8 * blocksPerExtent,
  );
  t.deepEqual(hashed(pair, 'b', false), [
    [32, 32],
    [672, 32],
  ]);
  t.deepEqual(blocksSent(pair, 'a', 'resyncData'), [40, 45, 700]);
  t.is(blocksSent(pair, 'a', 'resyncSame').length, 8 * blocksPerExtent - 3);
  t.deepEqual(pair.differences(), []);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('where most differs, each block is compared at once; behind it, 32 of them again', (t) => {
  const differing = Array.from({ length: 2 * blocksPerExtent }, (_, at) => at);
  const pair = resynced(differing);
  t.deepEqual(
    blocksSent(pair, 'a', 'resyncData').toSorted((x, y) => x - y),
    differing,
  );
  t.deepEqual(pair.differences(), []);
  const inThere = hashed(pair, 'b', true).filter(([first]) => first < 2 * blocksPerExtent);
  // Those that are on their way before the first answer.
  t.true(inThere.length <= 4, `${inThere.length} coarse requests`);
  const behind = hashed(pair, 'b', false).filter(([first]) => first >= 2 * blocksPerExtent);
  t.true(behind.length <= 4, `${behind.length} fine requests`);
});

test('a write that comes between the coarse hashes and the finer ones is on both disks', (t) => {
  const pair = flushed({ core: { checksumResync: 'always' } });
  pair.disk('b').visible[40] = 666;
  const isFiner = (): boolean => hashed(pair, 'b', false).length > 0;
  const release = pair.hold('packet:digestRequest', 'a', isFiner);
  run(pair, 'b', invalidate);
  t.deepEqual(blocksSent(pair, 'a', 'resyncData'), []);
  pair.write('a', 39, 7, { count: 3 });
  pair.settle();
  release();
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('b').visible[40], 7);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('paused between the coarse hashes and the finer ones, it asks for nothing until it is resumed', (t) => {
  const pair = flushed({ core: { checksumResync: 'always' } });
  pair.disk('b').visible[40] = 666;
  const release = pair.hold('packet:resyncSame', 'b');
  run(pair, 'b', invalidate);
  t.is(outcome(pair, 'b', pause), 'ok');
  release();
  pair.settle();
  t.deepEqual(hashed(pair, 'b', false), []);
  t.true(pair.marked('b').includes(40) && pair.differences().includes(40));
  t.is(outcome(pair, 'b', resume), 'ok');
  pair.tick(200);
  t.deepEqual(hashed(pair, 'b', false), [[32, 32]]);
  t.deepEqual(pair.differences(), []);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('equal blocks stay marked until the target, and then the source, has flushed', (t) => {
  const pair = flushed({ core: { checksumResync: 'always' } });
  run(pair, 'b', { kind: 'disconnect' });
  pair.write('a', 5, 1);
  pair.settle();
  // By other means, so that the copies are equal though marked.
  pair.disk('b').visible[5] = 1;
  const releaseTarget = pair.hold('flush', 'b', () => pair.status('b').peer?.replication === 'SyncTarget');
  run(pair, 'b', connect);
  t.deepEqual(blocksSent(pair, 'a', 'resyncSame'), [5]);
  t.deepEqual(pair.marked('b'), [5]);
  const releaseSource = pair.hold('flush', 'a');
  releaseTarget();
  pair.settle();
  t.deepEqual(pair.marked('b'), []);
  t.deepEqual(pair.marked('a'), [5]);
  releaseSource();
  pair.settle();
  t.deepEqual(pair.marked('a'), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('what the target cannot read for hashing is copied', (t) => {
  const pair = behind('always');
  pair.disk('b').failReads = true;
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('what the source cannot read for hashing stays marked, and is asked for again', (t) => {
  const pair = behind('always');
  pair.disk('a').failReads = true;
  pair.settle();
  t.deepEqual(pair.marked('a'), [0, 5]);
  pair.disk('a').failReads = false;
  pair.tick(200);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('what the source can hash and then not read stays marked, and is asked for again', (t) => {
  const pair = behind('always');
  const release = pair.hold('read', 'a');
  pair.settle();
  pair.disk('a').failReads = true;
  release();
  pair.settle();
  t.deepEqual(pair.marked('a'), [0, 5]);
  t.is(pair.status('b').peer?.replication, 'SyncTarget');
  pair.disk('a').failReads = false;
  pair.tick(200);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

const lies: readonly (readonly [string, ChecksumResync, BlockRun])[] = [
  ['another block than was asked about', 'always', { first: 1, count: 1 }],
  ['more than was asked about', 'always', { first: 0, count: 2 }],
  ['a block that was asked for without hashes', 'never', { first: 0, count: 1 }],
];
for (const [what, policy, equal] of lies) {
  test(`said to be equal: ${what}: the session ends, and no bit is cleared`, (t) => {
    const pair = behind(policy);
    const request = policy === 'never' ? 'scatteredRequest' : 'digestRequest';
    pair.hold(policy === 'never' ? 'packet:resyncRequest' : 'packet:digestRequest', 'a');
    pair.settle();
    const asked = pair.sent('b').find(({ kind }) => kind === request);
    const { connection } = pair.core('b');
    if (asked?.kind !== request || connection.conn !== 'Connected') return t.fail('nothing asked');
    const packet = { kind: 'resyncSame', id: asked.id, runs: [equal] } as const;
    const effects = pair
      .core('b')
      .step({ kind: 'packet', session: connection.session, packet, payload: null });
    t.true(effects.some((effect) => effect.kind === 'closeLink' && effect.why === 'ProtocolError'));
    t.deepEqual(pair.marked('b'), [0, 5]);
  });
}

test('whatever order disks, metadata and link get on in, comparing under writes ends with equal disks', (t) => {
  for (let seed = 0; seed < 150; seed++) {
    const choose = chooser(seed);
    const pair = flushed({ core: { checksumResync: 'always', resyncWindowBytes: 16384 } });
    pair.cutLink();
    pair.settle();
    for (const block of [0, 1, 2, 3, 4, 5, blocksPerExtent]) {
      const stamp = 1 + choose(2);
      pair.write('a', block, stamp);
      pair.settle();
      pair.disk('b').visible[block] = 1 + choose(2);
    }
    pair.healLink();
    for (let i = 0; i < 12; i++) {
      let left = choose(12);
      const release = pair.hold('flush', 'b', () => left-- < 0);
      pair.write('a', choose(6), 1 + choose(3), { count: 1 + choose(3), fua: choose(4) === 0 });
      pair.steps(choose(6));
      release();
    }
    pair.settle(choose);
    t.deepEqual(pair.differences(), [], `seed ${seed}`);
    t.deepEqual(pair.lostBlocks('b'), [], `seed ${seed}`);
    t.is(summary(pair, 'b'), mirroringSecondary, `seed ${seed}`);
  }
});

for (const [what, primary] of [
  ['the target is Secondary', 'a'],
  ['the target is Primary', 'b'],
] as const) {
  test(`whatever order things happen in, comparing long runs under writes ends with equal disks: ${what}`, (t) => {
    for (let seed = 0; seed < 40; seed++) {
      const choose = chooser(seed);
      const pair = flushed({ extents: 1, core: { checksumResync: 'always' } });
      if (primary === 'b') {
        run(pair, 'a', demote);
        run(pair, 'b', promote);
      }
      run(pair, 'b', detach);
      pair.write(primary, 0, 3, { count: 200 });
      pair.settle();
      // By other means, so that most of it is equal though marked.
      pair.disk('b').visible.fill(3, 0, 200);
      for (let i = choose(4); i > 0; i--) pair.disk('b').visible[choose(200)] = 666;
      pair.command('b', attach);
      for (let i = 0; i < 25; i++) {
        pair.write(primary, choose(200), 10 + i, { count: 1 + choose(4) });
        for (let step = choose(8); step > 0; step--) pair.settleSome(choose);
      }
      pair.settle(choose);
      t.true(hashed(pair, 'b', true).length > 0, `seed ${seed}`);
      t.deepEqual(pair.differences(), [], `seed ${seed}`);
      t.deepEqual(pair.marked('b'), [], `seed ${seed}`);
    }
  });
}
