/** A resync that compares hashes: it copies what differs, and equal blocks are proven as written ones are (W12). */
import test from 'ava';
import type { ChecksumResync } from '../../../replicator/core/options.ts';
import type { BlockRun, Packet } from '../../../replicator/core/packet.ts';
import {
  chooser,
  connect,
  flushed,
  invalidate,
  mirroringPrimary,
  mirroringSecondary,
  promoteByForce,
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
