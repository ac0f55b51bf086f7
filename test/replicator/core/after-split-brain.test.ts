/** Which copy gives way by policy: every policy, every pair of roles, from both sides. */
import test from 'ava';
import fc from 'fast-check';
import type {
  AfterSb0pri,
  AfterSb1pri,
  AfterSb2pri,
  Agreed0pri,
} from '../../../replicator/core/after-split-brain.ts';
import {
  afterSb0priWords,
  afterSb1priWords,
  afterSb2priWords,
  agreed0pri,
  alwaysDisconnect,
  settleSplitBrain,
} from '../../../replicator/core/after-split-brain.ts';
import { decideHandshake } from '../../../replicator/core/handshake-rules.ts';
import type { PeerState } from '../../../replicator/core/packet.ts';

const apart: PeerState = {
  sizeBytes: 1024 * 1024,
  protocol: 'C',
  role: 'Secondary',
  disk: 'UpToDate',
  origin: 'settled',
  current: 2n,
  bitmap: [1n],
  history: [1n],
  exposed: 0n,
  writer: true,
  crashedPrimary: false,
  linked: false,
  peerExcluded: true,
  dirtyBlocks: 3,
  discardMyData: false,
  partedAsPrimary: false,
  ...alwaysDisconnect,
};

type Loser = 'self' | 'peer' | 'undecided' | 'disconnect' | 'mismatch';
type Facts = Partial<PeerState>;

/** Self sorts first. */
function loserOf(
  self: Facts,
  peer: Facts,
  policies: Facts,
  commonMarks = true,
  selfSortsFirst = true,
): Loser {
  const a = { ...apart, ...policies, ...self };
  const b = { ...apart, ...policies, ...peer };
  const outcome = settleSplitBrain(a, b, selfSortsFirst, commonMarks);
  return outcome.kind === 'discard' ? outcome.loser : outcome.kind;
}

const opposite: Readonly<Record<Loser, Loser>> = {
  ...{ self: 'peer', peer: 'self' },
  ...{ undecided: 'undecided', disconnect: 'disconnect', mismatch: 'mismatch' },
};

const older = { partedAsPrimary: true } as const;
const more = { dirtyBlocks: 5 } as const;
const none = { dirtyBlocks: 0 } as const;

const rows: readonly (readonly [Agreed0pri, what: string, self: Facts, peer: Facts, loser: Loser])[] = [
  ['disconnect', 'whatever they have', older, more, 'disconnect'],
  ['discard-younger-primary', 'self was Primary when they parted', older, more, 'peer'],
  ['discard-younger-primary', 'neither was: fewer marks', {}, more, 'self'],
  ['discard-younger-primary', 'both were: fewer marks', { ...older, ...more }, older, 'peer'],
  ['discard-older-primary', 'self was Primary when they parted', { ...older, ...more }, {}, 'self'],
  ['discard-older-primary', 'neither was: fewer marks', {}, more, 'self'],
  ['discard-zero-changes', 'self has none', none, {}, 'self'],
  ['discard-zero-changes', 'neither has any: the one that sorts last', none, none, 'peer'],
  ['discard-zero-changes', 'both have some', {}, more, 'undecided'],
  ['discard-least-changes', 'self has fewer', {}, more, 'self'],
  ['discard-least-changes', 'self has none', none, {}, 'self'],
  ['discard-least-changes', 'as many: the one that sorts last', {}, {}, 'peer'],
  ['discard-sorts-first', 'self, though it has more', more, none, 'self'],
  ['discard-sorts-last', 'the peer, though it has more', none, more, 'peer'],
];

for (const [policy, what, self, peer, loser] of rows) {
  test(`after-sb-0pri ${policy}: ${what}: ${loser}`, (t) => {
    const policies = { 'after-sb-0pri': policy };
    t.is(loserOf(self, peer, policies), loser);
    t.is(loserOf(peer, self, policies, true, false), opposite[loser]);
  });
}

test('every word of after-sb-0pri has a row', (t) => {
  const words = new Set<string>(rows.map(([policy]) => policy));
  t.deepEqual(
    afterSb0priWords.filter((word) => !words.has(word)),
    [],
  );
});

const primary = { role: 'Primary', exposed: 2n } as const;

/** What after-sb-0pri says is given by the names: it discards the one that sorts first, self, or the other. */
const roleRows: Readonly<
  Record<AfterSb1pri, { readonly loserSecondary: 'follows' | 'undecided'; readonly loserPrimary: string }>
> = {
  disconnect: { loserSecondary: 'undecided', loserPrimary: 'undecided' },
  consensus: { loserSecondary: 'follows', loserPrimary: 'undecided' },
  'discard-secondary': { loserSecondary: 'follows', loserPrimary: 'the Secondary' },
  'call-pri-lost-after-sb': { loserSecondary: 'follows', loserPrimary: 'follows' },
  'violently-as0p': { loserSecondary: 'follows', loserPrimary: 'follows' },
};

for (const policy of afterSb1priWords) {
  test(`after-sb-1pri ${policy}, whichever is Primary and whichever after-sb-0pri would discard`, (t) => {
    const { loserSecondary, loserPrimary } = roleRows[policy];
    for (const isSelfPrimary of [true, false]) {
      for (const says of ['self', 'peer'] as const) {
        const isLoserPrimary = (says === 'self') === isSelfPrimary;
        const what = isLoserPrimary ? loserPrimary : loserSecondary;
        const expected: Loser =
          policy === 'disconnect'
            ? 'disconnect'
            : what === 'follows'
              ? says
              : what === 'the Secondary'
                ? opposite[says]
                : 'undecided';
        const policies: Facts = {
          'after-sb-0pri': says === 'self' ? 'discard-sorts-first' : 'discard-sorts-last',
          'after-sb-1pri': policy,
        };
        const [self, peer]: [Facts, Facts] = isSelfPrimary ? [primary, {}] : [{}, primary];
        t.is(loserOf(self, peer, policies), expected);
        t.is(loserOf(peer, self, policies, true, false), opposite[expected]);
      }
    }
  });
}

for (const policy of afterSb2priWords) {
  test(`after-sb-2pri ${policy}`, (t) => {
    const follows = policy !== 'disconnect';
    for (const [zero, says] of [
      ['discard-least-changes', 'self'],
      ['discard-sorts-last', 'peer'],
      ['disconnect', 'undecided'],
    ] as const) {
      const policies = { 'after-sb-0pri': zero, 'after-sb-2pri': policy };
      t.is(loserOf(primary, { ...primary, ...more }, policies), follows ? says : 'disconnect');
    }
  });
}

test('each number of Primaries has its own policy, and the others do not count', (t) => {
  const only = (setting: string): Facts => ({
    'after-sb-0pri': 'discard-sorts-first',
    ...(setting === '1' ? { 'after-sb-1pri': 'violently-as0p' } : {}),
    ...(setting === '2' ? { 'after-sb-2pri': 'violently-as0p' } : {}),
  });
  const pairs: readonly (readonly [Facts, Facts])[] = [
    [{}, {}],
    [primary, {}],
    [primary, primary],
  ];
  const losers = (setting: string): readonly Loser[] =>
    pairs.map(([self, peer]) => loserOf(self, peer, only(setting)));
  t.deepEqual(losers('0'), ['self', 'disconnect', 'disconnect']);
  t.deepEqual(losers('1'), ['self', 'self', 'disconnect']);
  t.deepEqual(losers('2'), ['self', 'disconnect', 'self']);
});

test('by default nothing is ever thrown away', (t) => {
  for (const self of [{}, primary]) {
    for (const peer of [{}, primary]) {
      for (const [a, b] of [[none, more] as const, [more, none] as const, [older, {}] as const])
        for (const common of [true, false])
          t.is(loserOf({ ...self, ...a }, { ...peer, ...b }, {}, common), 'disconnect');
    }
  }
});

test('policies that differ in any of the three settle nothing', (t) => {
  const all: Facts = { 'after-sb-0pri': 'discard-least-changes', 'after-sb-1pri': 'discard-secondary' };
  const others: readonly Facts[] = [
    { 'after-sb-0pri': 'discard-zero-changes' },
    { 'after-sb-1pri': 'consensus' },
    { 'after-sb-2pri': 'violently-as0p' },
  ];
  for (const other of others) t.is(loserOf({}, { ...more, ...other }, all), 'mismatch');
  t.is(loserOf({}, more, all), 'self');
});

test('without common marks only a role or a name tells which copy is to go', (t) => {
  for (const policy of afterSb0priWords) {
    const expected = policy === 'disconnect' ? 'disconnect' : 'undecided';
    t.is(loserOf(none, { ...more, ...older }, { 'after-sb-0pri': policy }, false), expected);
  }
  t.is(loserOf({}, {}, { 'after-sb-0pri': 'discard-sorts-first' }, false), 'self');
  t.is(loserOf(primary, {}, { 'after-sb-1pri': 'discard-secondary' }, false), 'peer');
});

test('a copy that is not whole, or known to be behind, is never the one that stays', (t) => {
  for (const disk of ['Inconsistent', 'Outdated'] as const) {
    t.is(loserOf({}, { ...more, disk }, { 'after-sb-0pri': 'discard-least-changes' }), 'undecided');
    t.is(loserOf({ ...primary, disk }, {}, { 'after-sb-1pri': 'discard-secondary' }), 'undecided');
    t.is(loserOf({ disk }, more, { 'after-sb-0pri': 'discard-least-changes' }), 'self');
  }
});

test('a node is named alike from both sides, and a stranger is nobody', (t) => {
  const both = (policy: AfterSb0pri): readonly Agreed0pri[] => [
    agreed0pri(policy, 'alpha', 'beta'),
    agreed0pri(policy, 'beta', 'alpha'),
  ];
  t.deepEqual(both('discard-node-alpha'), ['discard-sorts-first', 'discard-sorts-first']);
  t.deepEqual(both('discard-node-beta'), ['discard-sorts-last', 'discard-sorts-last']);
  t.deepEqual(both('discard-node-gamma'), ['disconnect', 'disconnect']);
  t.deepEqual(both('discard-least-changes'), ['discard-least-changes', 'discard-least-changes']);
});

const words = fc.constantFrom<Agreed0pri>(...afterSb0priWords, 'discard-sorts-first', 'discard-sorts-last');
const side = fc.record({
  role: fc.constantFrom('Primary', 'Secondary'),
  disk: fc.constantFrom('UpToDate', 'UpToDate', 'Consistent', 'Outdated', 'Inconsistent'),
  dirtyBlocks: fc.nat({ max: 2 }),
  partedAsPrimary: fc.boolean(),
});
const policies = fc.record({
  'after-sb-0pri': words,
  'after-sb-1pri': fc.constantFrom<AfterSb1pri>(...afterSb1priWords),
  'after-sb-2pri': fc.constantFrom<AfterSb2pri>(...afterSb2priWords),
});

test('whatever two nodes say: the two verdicts are mirror images', (t) => {
  fc.assert(
    fc.property(
      side,
      side,
      policies,
      policies,
      fc.boolean(),
      fc.boolean(),
      (a, b, one, other, differ, first) => {
        const [self, peer] = [
          { ...a, ...one },
          { ...b, ...(differ ? other : one) },
        ] as const;
        for (const common of [true, false])
          t.is(loserOf(peer, self, {}, common, !first), opposite[loserOf(self, peer, {}, common, first)]);
      },
    ),
    { numRuns: 3_000 },
  );
});

for (const disk of ['Outdated', 'Inconsistent'] as const) {
  test(`an operator's word does not make a copy give way to one that is ${disk}`, (t) => {
    const loser = { ...apart, discardMyData: true };
    const other = { ...apart, current: 3n, disk };
    t.is(decideHandshake(loser, other, true).rule, 'bitmap-both');
    t.is(decideHandshake(other, loser, false).rule, 'bitmap-both');
    t.is(decideHandshake(loser, { ...other, disk: 'UpToDate' }, true).rule, 'discard-self');
  });
}
