/**
 * Histories cut short at every metadata commit of either node, by the end of the process or a loss of power, with the
 * commit lost or durable and nobody told. However it is cut, the pair must find back to equal disks with every
 * acknowledged write on them.
 */
import test from 'ava';
import {
  demote,
  failover,
  flushed,
  grow,
  inShort,
  invalidate,
  mirroring,
  promote,
  promoteByForce,
  run,
  sizeOf,
  stop,
  summary,
  writeLast,
} from '../../support/pair.ts';
import type { Name } from '../../support/two-cores.ts';
import { blocksPerExtent, names, TwoCores } from '../../support/two-cores.ts';

interface History {
  readonly name: string;
  readonly begin: () => TwoCores;
  /** What happens; each part is followed by everything that can happen after it. */
  readonly parts: readonly ((pair: TwoCores) => void)[];
}

const histories: readonly History[] = [
  {
    name: 'a fresh pair meets, one is promoted and written to',
    begin: () => {
      const pair = new TwoCores();
      pair.start();
      return pair;
    },
    parts: [
      (pair) => pair.command('a', promote),
      (pair) => pair.write('a', 3, 1),
      (pair) => pair.write('a', blocksPerExtent, 2, { fua: true }),
    ],
  },
  {
    name: 'data meets an empty disk',
    begin: () => {
      const pair = new TwoCores({ a: { origin: 'created-with-data' } });
      pair.disk('a').fill(9);
      pair.start();
      return pair;
    },
    parts: [() => undefined],
  },
  {
    name: 'the link is cut, the Primary goes on, the peer comes back',
    begin: flushed,
    parts: [
      (pair) => pair.write('a', 1, 2),
      (pair) => pair.cutLink(),
      // With FUA: of a single copy only what is flushed outlives a loss of power.
      (pair) => pair.write('a', 2, 3, { fua: true }),
      (pair) => pair.write('a', 3 * blocksPerExtent, 4, { fua: true }),
      (pair) => pair.healLink(),
      (pair) => pair.write('a', 2, 5),
    ],
  },
  {
    name: 'the Primary is demoted and the other promoted',
    begin: mirroring,
    parts: [
      (pair) => pair.command('a', demote),
      (pair) => pair.command('b', promote),
      (pair) => pair.write('b', 5, 6),
      (pair) => pair.command('a', failover),
      (pair) => pair.write('a', 5, 7),
    ],
  },
  {
    name: 'the Primary is cut off and superseded by force',
    begin: flushed,
    parts: [
      (pair) => pair.cutLink(),
      (pair) => pair.command('b', promoteByForce),
      (pair) => pair.write('b', 2, 3, { fua: true }),
      (pair) => pair.healLink(),
      (pair) => pair.write('b', 2, 4),
    ],
  },
  {
    name: 'a disk is invalidated and copied again while clients write',
    begin: flushed,
    parts: [
      (pair) => pair.command('b', invalidate),
      (pair) => pair.write('a', 2, 3, { fua: true }),
      (pair) => pair.flush('a'),
    ],
  },
  {
    name: 'the Primary loses its disk and gets it back',
    begin: flushed,
    parts: [
      (pair) => pair.command('a', { kind: 'detach', force: false }),
      (pair) => pair.write('a', 2, 3, { fua: true }),
      (pair) => pair.write('a', blocksPerExtent, 3, { fua: true }),
      (pair) => pair.command('a', { kind: 'attach' }),
      (pair) => pair.write('a', 2, 4, { fua: true }),
    ],
  },
  {
    name: 'the Secondary loses its disk and gets it back',
    begin: flushed,
    parts: [
      (pair) => pair.command('b', { kind: 'detach', force: false }),
      (pair) => pair.write('a', 2, 3, { fua: true }),
      (pair) => pair.command('b', { kind: 'attach' }),
      (pair) => pair.write('a', 2, 4, { fua: true }),
    ],
  },
  {
    name: 'the device grows while clients write',
    begin: flushed,
    parts: [
      (pair) => writeLast(pair, 'a', 2),
      (pair) => {
        pair.command('a', grow);
        pair.write('a', 1, 3);
      },
      (pair) => writeLast(pair, 'a', 4),
      (pair) => pair.cutLink(),
      (pair) => writeLast(pair, 'a', 5),
      (pair) => pair.healLink(),
      (pair) => writeLast(pair, 'a', 6),
    ],
  },
  {
    name: 'the link is lost while the device grows, and the Primary goes on',
    begin: flushed,
    parts: [
      (pair) => {
        pair.command('a', grow);
        pair.steps(6);
        pair.cutLink();
      },
      (pair) => writeLast(pair, 'a', 2),
      (pair) => pair.healLink(),
      (pair) => writeLast(pair, 'a', 3),
    ],
  },
];

for (const history of histories) {
  test(`whichever commit is the last: ${history.name}`, (t) => {
    const whole = play(history, null);
    t.deepEqual(whole.differences(), []);
    for (const victim of names) {
      const begun = history.begin().metadata(victim).commits;
      const total = whole.metadata(victim).commits;
      for (let last = begun; last <= total; last++) {
        for (const how of ['kill', 'power'] as const) {
          for (const told of [false, true]) {
            const what = `${victim}, ${how} after ${last - begun} of ${total - begun} commits${told ? '' : ', the last untold'}`;
            const pair = play(history, { victim, last, told });
            pair.crash(victim, how);
            pair.settle();
            pair.restart(victim);
            pair.settle();
            pair.healLink();
            pair.settle();
            pair.tick(12_000, 500);
            recover(pair);
            t.deepEqual(pair.differences(), [], what);
            t.deepEqual(pair.lostBlocks('a'), [], what);
            t.is(sizeOf(pair, 'a'), sizeOf(pair, 'b'), what);
            t.regex(summary(pair, 'a'), /\/UpToDate Connected Established \w+\/UpToDate$/, what);
          }
        }
      }
    }
  });
}

/** Every so many steps; the numbers have no factor in common with the length of a round trip. */
const stride = 7;

for (const history of histories) {
  test(`whichever step it comes after, a crash or a lost link leaves equal disks: ${history.name}`, (t) => {
    for (const fault of ['kill', 'power', 'cut'] as const) {
      for (const victim of fault === 'cut' ? (['a'] as const) : names) {
        let isOver = false;
        for (let after = 0; !isOver; after += stride) {
          const pair = history.begin();
          let left = after - pair.steps(after);
          for (const part of history.parts) {
            if (left === 0) break;
            part(pair);
            left -= pair.steps(left);
          }
          isOver = left > 0;
          if (fault === 'cut') {
            pair.cutLink();
          } else {
            pair.crash(victim, fault);
            pair.restart(victim);
          }
          pair.settle();
          pair.healLink();
          pair.settle();
          recover(pair);
          const what = `${fault} of ${victim} after ${after} steps`;
          t.deepEqual(pair.differences(), [], what);
          t.deepEqual(pair.lostBlocks('a'), [], what);
          t.is(sizeOf(pair, 'a'), sizeOf(pair, 'b'), what);
          t.regex(summary(pair, 'a'), /\/UpToDate Connected Established \w+\/UpToDate$/, what);
        }
      }
    }
  });
}

/** Plays the parts; after commit number `last` of the victim no other one becomes durable, or is told of. */
function play(
  { begin, parts }: History,
  cut: { readonly victim: Name; readonly last: number; readonly told: boolean } | null,
): TwoCores {
  const pair = begin();
  const releases =
    cut === null
      ? []
      : [
          pair.hold('commit', cut.victim, () => pair.metadata(cut.victim).commits >= cut.last),
          ...(cut.told
            ? []
            : [pair.hold('committed', cut.victim, () => pair.metadata(cut.victim).commits >= cut.last)]),
        ];
  pair.settle();
  for (const part of parts) {
    part(pair);
    pair.settle();
  }
  for (const release of releases) release();
  return pair;
}

/** What an operator does who finds a node without its disk. */
function recover(pair: TwoCores): void {
  for (const name of names) {
    if (pair.status(name).diskState === 'Diskless') run(pair, name, { kind: 'attach' });
  }
}

test('a clean stop of both leaves nothing to copy', (t) => {
  const pair = mirroring();
  t.is(inShort(run(pair, 'a', stop)), 'ok');
  t.is(inShort(run(pair, 'b', stop)), 'ok');
  t.false(pair.isUp('a') || pair.isUp('b'));
  for (const name of names) {
    t.deepEqual(pair.metadata(name).activeExtents, []);
    t.false(pair.metadata(name).superblock.primary);
  }
  pair.restart('a');
  pair.restart('b');
  pair.settle();
  t.is(summary(pair, 'a'), 'Secondary/UpToDate Connected Established Secondary/UpToDate');
  t.false([...pair.sent('a'), ...pair.sent('b')].some(({ kind }) => kind === 'resyncRequest'));
  t.deepEqual(pair.differences(), []);
});
