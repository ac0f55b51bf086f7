/** Split brains of two cores that a policy settles: the copies end up equal, and one side's own writes are gone. */
import test from 'ava';
import type { CoreOptions } from '../../../replicator/core/options.ts';
import {
  connect,
  connectDiscarding,
  demote,
  flushed,
  outcome,
  promote,
  promoteByForce,
  run,
} from '../../support/pair.ts';
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { names, other } from '../../support/two-cores.ts';

type Policies = Partial<Pick<CoreOptions, 'after-sb-0pri' | 'after-sb-1pri' | 'after-sb-2pri'>>;

interface Past {
  readonly policies: Policies;
  /** Who is Primary when they meet again. */
  readonly primaries: readonly Name[];
  /** How many blocks each has written alone, a from block 100 on, b from block 200 on. */
  readonly written?: readonly [a: number, b: number];
}

/** a was Primary when they parted; b was promoted by force. The link is still cut. */
function parted({ policies, primaries, written = [3, 2] }: Past): TwoCores {
  const pair = flushed({ core: policies });
  pair.cutLink();
  pair.settle();
  run(pair, 'b', promoteByForce);
  for (let i = 0; i < written[0]; i++) pair.write('a', 100 + i, 21);
  for (let i = 0; i < written[1]; i++) pair.write('b', 200 + i, 31);
  pair.settle();
  for (const name of names) if (!primaries.includes(name)) run(pair, name, demote);
  return pair;
}

function meet(pair: TwoCores): void {
  pair.healLink();
  pair.settle();
}

function handshakes(pair: TwoCores, name: Name): readonly string[] {
  return pair
    .decisions(name)
    .filter(({ kind }) => kind === 'handshake')
    .map(({ rule }) => rule);
}

const settled: readonly (readonly [string, Past, loser: Name, rules: readonly string[]])[] = [
  [
    'after-sb-0pri discard-younger-primary: the one that was promoted after they parted',
    { policies: { 'after-sb-0pri': 'discard-younger-primary' }, primaries: [], written: [1, 2] },
    'b',
    ['after-sb-0pri-discard'],
  ],
  [
    'after-sb-0pri discard-older-primary: the one that was Primary all along',
    { policies: { 'after-sb-0pri': 'discard-older-primary' }, primaries: [] },
    'a',
    ['after-sb-0pri-discard'],
  ],
  [
    'after-sb-0pri discard-zero-changes: the one that was promoted and wrote nothing',
    { policies: { 'after-sb-0pri': 'discard-zero-changes' }, primaries: [], written: [3, 0] },
    'b',
    ['after-sb-0pri-discard'],
  ],
  [
    'after-sb-0pri discard-least-changes: the one that wrote less',
    { policies: { 'after-sb-0pri': 'discard-least-changes' }, primaries: [], written: [1, 2] },
    'a',
    ['after-sb-0pri-discard'],
  ],
  [
    'after-sb-0pri discard-node-a: a, whatever it wrote',
    { policies: { 'after-sb-0pri': 'discard-node-a' }, primaries: [] },
    'a',
    ['after-sb-0pri-discard'],
  ],
  [
    'after-sb-1pri consensus: the Secondary, which wrote less as well',
    {
      policies: { 'after-sb-0pri': 'discard-least-changes', 'after-sb-1pri': 'consensus' },
      primaries: ['a'],
    },
    'b',
    ['after-sb-1pri-discard'],
  ],
  [
    'after-sb-1pri discard-secondary: the Secondary, though it wrote more',
    { policies: { 'after-sb-1pri': 'discard-secondary' }, primaries: ['b'] },
    'a',
    ['after-sb-1pri-discard'],
  ],
  [
    'after-sb-1pri call-pri-lost-after-sb: the Primary, which wrote less, steps down',
    {
      policies: { 'after-sb-0pri': 'discard-least-changes', 'after-sb-1pri': 'call-pri-lost-after-sb' },
      primaries: ['b'],
    },
    'b',
    ['after-sb-1pri-discard', 'discard'],
  ],
  [
    'after-sb-1pri violently-as0p: the Primary, which wrote less, steps down',
    {
      policies: { 'after-sb-0pri': 'discard-younger-primary', 'after-sb-1pri': 'violently-as0p' },
      primaries: ['b'],
    },
    'b',
    ['after-sb-1pri-discard', 'discard'],
  ],
  [
    'after-sb-2pri call-pri-lost-after-sb: one of two Primaries steps down',
    {
      policies: { 'after-sb-0pri': 'discard-least-changes', 'after-sb-2pri': 'call-pri-lost-after-sb' },
      primaries: ['a', 'b'],
    },
    'b',
    ['after-sb-2pri-discard', 'discard'],
  ],
  [
    'after-sb-2pri violently-as0p: one of two Primaries steps down',
    {
      policies: { 'after-sb-0pri': 'discard-older-primary', 'after-sb-2pri': 'violently-as0p' },
      primaries: ['a', 'b'],
    },
    'a',
    ['after-sb-2pri-discard', 'discard'],
  ],
];

for (const [what, past, loser, rules] of settled) {
  test(what, (t) => {
    const pair = parted(past);
    const winner = other(loser);
    const before = handshakes(pair, loser).length;
    meet(pair);
    t.deepEqual(pair.differences(), []);
    const [own, others] = loser === 'a' ? [100, 200] : [200, 100];
    t.is(pair.disk(loser).visible[own], 0, 'what only the loser had is gone');
    const written = (past.written ?? [3, 2])[winner === 'a' ? 0 : 1];
    for (let i = 0; i < written; i++) t.is(pair.disk(loser).visible[others + i], winner === 'a' ? 21 : 31);
    t.deepEqual(
      handshakes(pair, loser).slice(before),
      rules.map((rule) => `${rule}-self`),
    );
    t.deepEqual(
      handshakes(pair, winner).slice(before),
      rules.map((rule) => `${rule}-peer`),
    );
    t.is(pair.status(loser).role, 'Secondary');
    t.false(pair.isServing(loser));
    t.is(pair.status(winner).role, past.primaries.includes(winner) ? 'Primary' : 'Secondary');
    for (const name of names) {
      t.false(pair.status(name).splitBrain);
      t.is(pair.status(name).peer?.replication, 'Established');
      const decision = pair.decisions(name).find(({ rule }) => rule.startsWith('after-sb-'));
      const blocks = (past.written ?? [3, 2])[loser === 'a' ? 0 : 1];
      t.regex(
        decision?.result ?? '',
        new RegExp(`only ${loser}\\b.* has written is thrown away \\(${blocks} blocks`),
      );
    }
    t.is(pair.metadata('a').superblock.current, pair.metadata('b').superblock.current);
  });
}

const open: readonly (readonly [string, Past, rule: string])[] = [
  ['by default', { policies: {}, primaries: [] }, 'bitmap-both'],
  [
    'the policy is for another number of Primaries',
    { policies: { 'after-sb-0pri': 'discard-least-changes' }, primaries: ['a'] },
    'bitmap-both',
  ],
  [
    'discard-zero-changes, and both have written',
    { policies: { 'after-sb-0pri': 'discard-zero-changes' }, primaries: [] },
    'after-sb-undecided',
  ],
  [
    'consensus, and the Primary wrote less',
    {
      policies: { 'after-sb-0pri': 'discard-least-changes', 'after-sb-1pri': 'consensus' },
      primaries: ['b'],
    },
    'after-sb-undecided',
  ],
];

for (const [what, past, rule] of open) {
  test(`nothing is thrown away: ${what}`, (t) => {
    const pair = parted(past);
    meet(pair);
    for (const name of names) {
      t.true(pair.status(name).splitBrain);
      t.is(handshakes(pair, name).at(-1), rule);
      t.regex(pair.status(name).peer?.lastError ?? '', new RegExp(`rule ${rule}`));
      t.is(pair.status(name).role, past.primaries.includes(name) ? 'Primary' : 'Secondary');
    }
    t.deepEqual([pair.disk('a').visible[100], pair.disk('b').visible[200]], [21, 31]);
  });
}

test('policies changed on one node only settle nothing; once they are alike, connecting again does', (t) => {
  const pair = parted({ policies: {}, primaries: ['a'] });
  pair.configure('a', { 'after-sb-1pri': 'discard-secondary' });
  meet(pair);
  for (const name of names) {
    t.is(handshakes(pair, name).at(-1), 'after-sb-mismatch');
    t.true(pair.status(name).splitBrain);
    t.regex(pair.status(name).peer?.lastError ?? '', /no after-sb policy is followed, since theirs differ/);
  }
  pair.configure('b', { 'after-sb-1pri': 'discard-secondary' });
  for (const name of names) run(pair, name, connect);
  t.false(pair.status('a').splitBrain);
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('b').visible[100], 21);
});

test('what the operator says goes before the policy', (t) => {
  const pair = parted({ policies: { 'after-sb-1pri': 'discard-secondary' }, primaries: ['a'] });
  run(pair, 'a', demote);
  run(pair, 'a', connectDiscarding);
  meet(pair);
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('a').visible[200], 31);
  t.is(handshakes(pair, 'a').at(-1), 'discard-self');
});

test('a request that the losing Primary holds fails, and its clients are let go', (t) => {
  const policies = { 'after-sb-0pri': 'discard-node-b', 'after-sb-2pri': 'call-pri-lost-after-sb' } as const;
  const pair = parted({ policies, primaries: ['a', 'b'] });
  const release = pair.hold('write', 'b');
  const write = pair.write('b', 300, 99);
  meet(pair);
  t.is(write.outcome, 'ESHUTDOWN');
  t.false(pair.isServing('b'));
  release();
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('b').visible[300], 0);
});

/** b has stepped down, and the two have not met again yet. */
function steppedDown(t: { is: (a: unknown, b: unknown) => unknown }): TwoCores {
  const policies = { 'after-sb-0pri': 'discard-node-b', 'after-sb-2pri': 'call-pri-lost-after-sb' } as const;
  const pair = parted({ policies, primaries: ['a', 'b'] });
  const seen = handshakes(pair, 'b').length;
  const release = pair.hold('linkUp', 'b', () => handshakes(pair, 'b').length > seen);
  meet(pair);
  t.is(pair.status('b').role, 'Secondary');
  t.is(pair.status('b').diskState, 'Outdated');
  pair.cutLink();
  release();
  pair.settle();
  return pair;
}

test('a loser that crashes after it has stepped down has thrown nothing away yet, and asks the policy again', (t) => {
  const pair = steppedDown(t);
  pair.crash('b');
  pair.restart('b');
  meet(pair);
  t.is(handshakes(pair, 'b').at(-1), 'bitmap-both', 'with one Primary left the policy is to disconnect');
  t.is(pair.disk('b').visible[200], 31);
});

test('a loser that is promoted by force after it has stepped down keeps its data', (t) => {
  const pair = steppedDown(t);
  t.is(outcome(pair, 'b', promote), 'not-up-to-date');
  t.is(outcome(pair, 'b', promoteByForce), 'ok');
  run(pair, 'b', demote);
  meet(pair);
  t.true(pair.status('b').splitBrain);
  t.is(pair.disk('b').visible[200], 31);
});
