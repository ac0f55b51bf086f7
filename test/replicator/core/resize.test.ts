/**
 * Online growth: who may ask, what has to be durable before what, and which of the two nodes finishes a growth that was cut
 * short. The disks of these tests forget nothing: what a growth leaves beyond a device is there until the next one.
 */
import test from 'ava';
import { blockBytes } from '../../../replicator/core/vocabulary.ts';
import {
  attach,
  bothSecondary,
  connected,
  demote,
  detach,
  failover,
  flushed,
  grow,
  grownBlocks,
  inShort,
  invalidate,
  mirroring,
  mirroringPrimary,
  outcome,
  promote,
  promoteByForce,
  run,
  sizeOf,
  stop,
  summary,
  writeLast,
} from '../../support/pair.ts';
import type { Name, StepKind } from '../../support/two-cores.ts';
import { blocksPerExtent, names, TwoCores } from '../../support/two-cores.ts';

const oldBlocks = 8 * blocksPerExtent;

function sizes(pair: TwoCores): readonly number[] {
  return names.flatMap((name) => [
    sizeOf(pair, name) / blockBytes,
    pair.metadata(name).superblock.sizeBytes / blockBytes,
  ]);
}

const all = (blocks: number): readonly number[] => [blocks, blocks, blocks, blocks];

for (const [what, begin, asked, before] of [
  ['on the Primary', flushed, 'a', mirroringPrimary],
  ['on either of two Secondaries', connected, 'b', bothSecondary],
] as const) {
  test(`resize ${what}: both grow, nothing is copied, and the new area is mirrored`, (t) => {
    const pair = begin();
    t.is(outcome(pair, asked, grow), 'ok');
    t.deepEqual(sizes(pair), all(grownBlocks));
    t.is(summary(pair, 'a'), before);
    t.deepEqual(pair.marked('a'), []);
    if (pair.status('a').role === 'Secondary') run(pair, 'a', promote);
    const write = writeLast(pair, 'a', 7);
    pair.settle();
    t.is(write.outcome, 'ok');
    t.deepEqual([pair.disk('a').visible[grownBlocks - 1], pair.disk('b').visible[grownBlocks - 1]], [7, 7]);
    t.false([...pair.sent('a'), ...pair.sent('b')].some(({ kind }) => kind === 'resyncRequest'));
    t.is(outcome(pair, asked, grow), 'ok', 'again: it has that size');
  });
}

test('resize: client I/O goes on while it runs', (t) => {
  const pair = flushed();
  const release = pair.hold('growDisk', 'b');
  const asked = pair.command('a', grow);
  pair.settle();
  const [write, read, flush] = [pair.write('a', 3, 4), pair.read('a', 0), pair.flush('a')];
  pair.settle();
  t.deepEqual([write.outcome, read.outcome, flush.outcome], ['ok', 'ok', 'ok']);
  t.is(asked.result, null);
  release();
  pair.settle();
  t.is(inShort(asked.result), 'ok');
});

test('resize: an unmirrored device grows by itself', (t) => {
  const pair = new TwoCores({ core: { peerName: null } });
  pair.start('a');
  pair.settle();
  run(pair, 'a', promote);
  t.is(outcome(pair, 'a', grow), 'ok');
  t.is(sizeOf(pair, 'a'), grownBlocks * blockBytes);
  const write = writeLast(pair, 'a', 7);
  pair.settle();
  t.is(write.outcome, 'ok');
  pair.crash('a');
  pair.restart('a');
  t.is(sizeOf(pair, 'a'), grownBlocks * blockBytes, 'the record is larger than what it was started with');
});

test('resize: what cannot be is refused, and nothing grows', (t) => {
  const blocks = (count: number) => ({ kind: 'resize', sizeBytes: count * blockBytes }) as const;
  const pair = flushed();
  t.is(outcome(pair, 'a', blocks(oldBlocks - 1)), 'cannot-shrink');
  t.is(outcome(pair, 'a', blocks(oldBlocks + 0.5)), 'not-supported');
  t.is(outcome(pair, 'a', blocks(2 ** 32 + 1)), 'not-supported');
  t.is(outcome(pair, 'b', grow), 'not-primary');
  const release = pair.hold('growDisk', 'a');
  const first = pair.command('a', grow);
  t.is(outcome(pair, 'a', grow), 'busy');
  release();
  pair.settle();
  t.is(inShort(first.result), 'ok');

  const full = flushed();
  full.disk('b').roomBlocks = oldBlocks;
  const result = run(full, 'a', grow);
  t.regex(result?.ok === false ? result.refusal.reason : '', /b cannot grow: it is full/);
  t.deepEqual(sizes(full), all(oldBlocks));
  t.is(summary(full, 'a'), mirroringPrimary);
  full.disk('a').roomBlocks = oldBlocks;
  t.is(outcome(full, 'a', grow), 'backing-too-small');
  // Twice as much later on: what the first attempt left behind this device's end is of no importance.
  full.disk('a').roomBlocks = Infinity;
  full.disk('b').roomBlocks = Infinity;
  t.is(outcome(full, 'a', blocks(2 * oldBlocks)), 'ok');
  t.deepEqual(sizes(full), all(2 * oldBlocks));
});

test('resize: without a peer, with a resync running or a disk away it is refused', (t) => {
  const cut = flushed();
  cut.cutLink();
  cut.settle();
  t.is(outcome(cut, 'a', grow), 'not-connected');

  const syncing = flushed();
  const release = syncing.hold('packet:resyncData', 'b');
  run(syncing, 'b', invalidate);
  t.is(outcome(syncing, 'a', grow), 'resync-running');
  release();
  syncing.settle();
  t.is(outcome(syncing, 'a', grow), 'ok');

  const away = flushed();
  run(away, 'b', detach);
  t.is(outcome(away, 'a', grow), 'not-up-to-date');
  run(away, 'a', demote);
  t.is(outcome(away, 'b', grow), 'no-disk');
  run(away, 'b', attach);
  t.is(outcome(away, 'b', grow), 'ok');
});

test('resize: asked for on both nodes at once, at most one grows them, and both end equal', (t) => {
  const pair = connected();
  const asked = names.map((name) => pair.command(name, grow));
  pair.settle();
  t.true(asked.every(({ result }) => result !== null));
  t.is(outcome(pair, 'b', grow), 'ok');
  t.deepEqual(sizes(pair), all(grownBlocks));
});

/** The steps in their order; what is on record, here and there, while this one is held back. */
const steps: readonly (readonly [kind: StepKind, name: Name, a: number, b: number])[] = [
  ['growDisk', 'a', oldBlocks, oldBlocks],
  ['packet:grow', 'b', oldBlocks, oldBlocks],
  ['growDisk', 'b', oldBlocks, oldBlocks],
  ['commit', 'b', oldBlocks, oldBlocks],
  ['committed', 'b', oldBlocks, grownBlocks],
  ['packet:grown', 'a', oldBlocks, grownBlocks],
  ['commit', 'a', oldBlocks, grownBlocks],
  ['committed', 'a', grownBlocks, grownBlocks],
];

for (const [kind, name, recordA, recordB] of steps) {
  /** A growth of which everything has happened that comes before this step. */
  const cutShort = (): { pair: TwoCores; release: () => void; isAnswered: () => boolean } => {
    const pair = flushed();
    pair.write('a', oldBlocks - 1, 2, { fua: true });
    pair.settle();
    const release = pair.hold(kind, name);
    const asked = pair.command('a', grow);
    pair.settle();
    return { pair, release, isAnswered: () => asked.result !== null };
  };

  test(`resize: before ${kind} of ${name} no client sees the new size`, (t) => {
    const { pair, release, isAnswered } = cutShort();
    t.true(pair.isWaiting(kind, name));
    t.is(pair.metadata('a').superblock.sizeBytes, recordA * blockBytes);
    t.is(pair.metadata('b').superblock.sizeBytes, recordB * blockBytes);
    t.is(sizeOf(pair, 'a'), oldBlocks * blockBytes);
    t.false(isAnswered());
    release();
    pair.settle();
    t.true(isAnswered());
    t.deepEqual(sizes(pair), all(grownBlocks));
  });

  const faults: Readonly<Record<string, (pair: TwoCores) => void>> = {
    'the link is lost': (pair) => pair.cutLink(),
    'the Primary is killed': (pair) => pair.crash('a'),
    'the Primary loses power': (pair) => pair.crash('a', 'power'),
    'the Secondary is killed': (pair) => pair.crash('b'),
    'both lose power': (pair) => {
      pair.crash('a', 'power');
      pair.crash('b', 'power');
    },
    'the Secondary stops': (pair) => void run(pair, 'b', stop),
  };
  for (const [fault, happens] of Object.entries(faults)) {
    test(`resize: ${fault} before ${kind} of ${name}: both end with one size and equal disks`, (t) => {
      const { pair, release } = cutShort();
      happens(pair);
      pair.settle();
      release();
      pair.settle();
      if (pair.isUp('a')) {
        writeLast(pair, 'a', 3);
        pair.settle();
      }
      for (const node of names) if (!pair.isUp(node)) pair.restart(node);
      pair.settle();
      pair.healLink();
      pair.settle();
      t.regex(summary(pair, 'a'), /\/UpToDate Connected Established \w+\/UpToDate$/);
      t.is(sizeOf(pair, 'a'), sizeOf(pair, 'b'));
      t.deepEqual(pair.differences(), []);
      t.deepEqual(pair.lostBlocks('a'), []);
      run(pair, 'a', promote);
      t.is(outcome(pair, 'a', grow), 'ok');
      const write = writeLast(pair, 'a', 4);
      pair.settle();
      t.is(write.outcome, 'ok');
      t.deepEqual(sizes(pair), all(grownBlocks));
      t.deepEqual(pair.differences(), []);
    });
  }

  test(`resize: the link is lost and back before ${kind} of ${name}: no session between two sizes`, (t) => {
    const { pair, release } = cutShort();
    pair.breakSession();
    pair.settle();
    release();
    pair.settle();
    t.is(sizeOf(pair, 'a'), sizeOf(pair, 'b'));
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.is(outcome(pair, 'b', failover), 'ok');
    const write = writeLast(pair, 'b', 3);
    pair.settle();
    t.is(write.outcome, 'ok');
    t.is(summary(pair, 'b'), mirroringPrimary);
    t.deepEqual(pair.differences(), []);
  });

  test(`resize: the Secondary takes over by force before ${kind} of ${name}: what it writes is kept`, (t) => {
    const { pair, release } = cutShort();
    pair.crash('a', 'power');
    release();
    pair.settle();
    t.is(outcome(pair, 'b', promoteByForce), 'ok');
    const write = writeLast(pair, 'b', 9);
    pair.settle();
    t.is(write.outcome, 'ok');
    const taken = sizeOf(pair, 'b');
    pair.restart('a');
    pair.settle();
    t.is(summary(pair, 'b'), mirroringPrimary);
    t.is(sizeOf(pair, 'a'), taken);
    t.deepEqual(pair.differences(), []);
    t.deepEqual(pair.lostBlocks('a'), []);
    t.is(outcome(pair, 'b', grow), 'ok');
    t.deepEqual(sizes(pair), all(grownBlocks));
  });
}

test('resize: a failover while it runs; the new Primary may write to the new area at once', (t) => {
  const pair = flushed();
  const release = pair.hold('growDisk', 'b');
  const asked = pair.command('a', grow);
  pair.settle();
  t.is(outcome(pair, 'b', failover), 'ok');
  // The first write after a promotion waits for records of its own; the one that counts here is to find none.
  pair.write('b', 2, 7);
  pair.settle();
  const committing = pair.hold('commit', 'a');
  release();
  pair.settle();
  t.is(sizeOf(pair, 'b'), grownBlocks * blockBytes);
  const write = writeLast(pair, 'b', 8);
  pair.settle();
  t.is(write.outcome, 'pending', 'the other copy has no room for it on record yet');
  committing();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(inShort(asked.result), 'ok');
  t.is(summary(pair, 'b'), mirroringPrimary);
  t.deepEqual(pair.differences(), []);
});

test('resize: a node that cannot follow its peer says why, and follows when there is room', (t) => {
  const pair = flushed();
  const release = pair.hold('packet:grown', 'a');
  pair.command('a', grow);
  pair.settle();
  pair.cutLink();
  release();
  pair.settle();
  pair.disk('a').roomBlocks = oldBlocks;
  pair.healLink();
  pair.settle();
  t.is(pair.status('a').peer?.connection, 'StandAlone');
  t.regex(pair.status('a').peer?.lastError ?? '', /cannot follow: it is full/);
  const write = pair.write('a', 1, 5);
  pair.settle();
  t.is(write.outcome, 'ok', 'its clients are served');
  pair.disk('a').roomBlocks = Infinity;
  for (const name of names) run(pair, name, { kind: 'connect', discardMyData: false, dryRun: false });
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(sizes(pair), all(grownBlocks));
});

test('resize: a backing that takes longer than a handshake may is waited for without one', (t) => {
  const pair = flushed();
  const grown = pair.hold('packet:grown', 'a');
  pair.command('a', grow);
  pair.settle();
  pair.cutLink();
  grown();
  pair.settle();
  const release = pair.hold('growDisk', 'a');
  pair.healLink();
  pair.settle();
  pair.tick(15_000, 500);
  t.is(pair.status('a').peer?.connection, 'Connecting');
  const write = pair.write('a', 1, 5);
  pair.tick(1_000, 500);
  t.is(write.outcome, 'ok', 'clients do not wait for it');
  t.regex(pair.status('a').peer?.lastError ?? '', /grows/);
  release();
  pair.settle();
  // Clients were there a moment ago: the resync is paced.
  pair.timePasses(50);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(sizes(pair), all(grownBlocks));
  t.deepEqual(pair.differences(), []);
});

test('resize: a command is answered in time, though zeroing goes on', (t) => {
  const pair = flushed();
  const release = pair.hold('growDisk', 'a');
  const asked = pair.command('a', grow);
  pair.tick(21_000, 500);
  t.regex(asked.result?.ok === true ? asked.result.message : '', /still growing/);
  t.is(outcome(pair, 'a', grow), 'busy');
  release();
  pair.settle();
  t.deepEqual(sizes(pair), all(grownBlocks));
});

test('resize: a disk that goes while it grows is refused, and the pair goes on', (t) => {
  const pair = mirroring();
  const release = pair.hold('growDisk', 'a');
  const asked = pair.command('a', grow);
  pair.settle();
  run(pair, 'a', detach);
  release();
  pair.settle();
  t.is(inShort(asked.result), 'no-disk');
  run(pair, 'a', attach);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.deepEqual(sizes(pair), all(oldBlocks));
});

test('resize: a verify and a growth exclude each other, whoever began', (t) => {
  const verify = { kind: 'verify', action: 'start', repair: false } as const;
  for (const [verifier, grower] of [
    ['a', 'a'],
    ['b', 'a'],
    ['a', 'b'],
  ] as const) {
    const pair = connected();
    const release = pair.hold('digest', 'a');
    t.is(outcome(pair, verifier, verify), 'ok');
    t.is(outcome(pair, grower, grow), 'verify-running');
    release();
    pair.settle();
    pair.tick(500);
    const growing = pair.hold('growDisk', 'b');
    const asked = pair.command(grower, grow);
    pair.settle();
    t.is(outcome(pair, 'b', verify), 'busy');
    t.is(outcome(pair, grower, verify), 'busy');
    growing();
    pair.settle();
    t.is(inShort(asked.result), 'ok');
    t.is(outcome(pair, verifier, verify), 'ok');
    pair.tick(500);
    t.is(pair.status('a').peer?.replication, 'Established');
  }
});

test('resize: a verify that begins while the peer is asked comes first', (t) => {
  const pair = connected();
  const release = pair.hold('packet:grow', 'b');
  const asked = pair.command('a', grow);
  pair.settle();
  t.is(outcome(pair, 'b', { kind: 'verify', action: 'start', repair: false }), 'ok');
  const digests = pair.hold('digest', 'b');
  release();
  pair.settle();
  digests();
  pair.settle();
  t.true(asked.result !== null);
  t.is(sizeOf(pair, 'a'), sizeOf(pair, 'b'));
  pair.tick(500);
  t.is(summary(pair, 'a'), bothSecondary);
});

test('resize: new policies that carry the old size along do not take the growth back', (t) => {
  const pair = flushed();
  const before = pair.core('a').options;
  run(pair, 'a', grow);
  pair.core('a').step({ kind: 'configured', policies: { ...before, onPeerLoss: 'suspend' } });
  t.is(sizeOf(pair, 'a'), grownBlocks * blockBytes);
  t.is(pair.core('a').options.onPeerLoss, 'suspend');
});
