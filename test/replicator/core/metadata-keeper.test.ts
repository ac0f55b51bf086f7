/** Lines of descent of generations, and what may run once a transaction is durable. */
import test from 'ava';
import type { Superblock } from '../../../replicator/core/metadata.ts';
import { maxBitmapGenerations, maxHistory } from '../../../replicator/core/metadata.ts';
import {
  appendGeneration,
  descend,
  MetadataKeeper,
  prependHistory,
  settleLineage,
} from '../../../replicator/core/metadata-keeper.ts';
import { Out } from '../../../replicator/core/out.ts';

const superblock: Superblock = {
  sizeBytes: 4096,
  origin: 'settled',
  current: 5n,
  bitmap: [3n, 4n],
  partedAsPrimary: true,
  history: [4n, 3n, 2n, 1n],
  disk: 'UpToDate',
  primary: false,
  writer: false,
  linked: false,
  peerExcluded: false,
  detached: false,
};

const range = (from: number, count: number): bigint[] =>
  Array.from({ length: count }, (_, i) => BigInt(from + i));

test('a new generation: the old one is an ancestor, and differences count from it as well', (t) => {
  t.deepEqual(descend(superblock, 6n, false), {
    current: 6n,
    bitmap: [3n, 4n, 5n],
    partedAsPrimary: true,
    history: [5n, 4n, 3n, 2n, 1n],
  });
});

test('the copies part with the first generation that needs covering: the role counts then, and not later', (t) => {
  for (const asPrimary of [true, false]) {
    const parted = descend({ ...superblock, bitmap: [], partedAsPrimary: !asPrimary }, 6n, asPrimary);
    t.is(parted.partedAsPrimary, asPrimary);
    t.is(descend({ ...superblock, ...parted }, 7n, !asPrimary).partedAsPrimary, asPrimary);
  }
});

test('settled: no older generation needs covering, and none is forgotten', (t) => {
  t.deepEqual(settleLineage({ ...superblock, history: [2n, 1n] }), { bitmap: [], history: [4n, 3n, 2n, 1n] });
  t.deepEqual(settleLineage(superblock).history, [4n, 3n, 2n, 1n]);
});

test('of too many covered generations the oldest and the newest stay', (t) => {
  const full = range(10, maxBitmapGenerations);
  const grown = appendGeneration(full, 99n);
  t.is(grown.length, maxBitmapGenerations);
  t.is(grown[0], 10n);
  t.deepEqual(grown.slice(1), [...full.slice(2), 99n]);
  t.deepEqual(appendGeneration(full, 12n), full, 'once is enough');
});

test('history is bounded, newest first, without repetition or zero', (t) => {
  const history = prependHistory(range(1, maxHistory), [100n, 0n, 5n]);
  t.is(history.length, maxHistory);
  t.deepEqual(history.slice(0, 4), [100n, 5n, 1n, 2n]);
  t.is(new Set(history).size, maxHistory);
});

test('what waits for a commit runs when that commit is durable, once', (t) => {
  const out = new Out();
  const keeper = new MetadataKeeper(out);
  t.throws(() => keeper.superblock, { message: /before it was loaded/ });
  keeper.load(superblock);
  const ran: string[] = [];
  keeper.update({ writer: true }, { clearChunks: true }, () => ran.push('one'));
  keeper.commit({ activate: [{ first: 1, count: 1 }] }, () => ran.push('two'));
  t.true(keeper.superblock.writer);
  const commits = out.take().flatMap((effect) => (effect.kind === 'commit' ? [effect] : []));
  t.deepEqual(commits[0]?.transaction, { clearChunks: true, superblock: { ...superblock, writer: true } });
  t.deepEqual(ran, []);
  t.false(keeper.isIdle);
  for (const { id } of commits) keeper.onCommitted(id);
  t.deepEqual(ran, ['one', 'two']);
  t.true(keeper.isIdle);
  t.throws(() => keeper.onCommitted(commits[0]?.id ?? 0), { message: /answered twice/ });
});

test('a replica without a generation is a broken invariant', (t) => {
  const keeper = new MetadataKeeper(new Out());
  keeper.load(superblock);
  t.throws(() => keeper.update({ current: 0n }), { message: /without a generation/ });
});
