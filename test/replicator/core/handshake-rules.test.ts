/** Every rule of the handshake decision from both sides, and what must hold whatever two nodes say. */
import test from 'ava';
import fc from 'fast-check';
import type { HandshakeDecision, HandshakeRule } from '../../../replicator/core/handshake-rules.ts';
import { decideHandshake, handshakeRules } from '../../../replicator/core/handshake-rules.ts';
import type { AfterSb1pri, AfterSb2pri, Agreed0pri } from '../../../replicator/core/after-split-brain.ts';
import { alwaysDisconnect } from '../../../replicator/core/after-split-brain.ts';
import type { PeerState } from '../../../replicator/core/packet.ts';
import { diskStates } from '../../../replicator/core/vocabulary.ts';

const plain: PeerState = {
  sizeBytes: 1024 * 1024,
  protocol: 'C',
  role: 'Secondary',
  disk: 'Consistent',
  origin: 'settled',
  current: 1n,
  bitmap: [],
  history: [],
  exposed: 0n,
  writer: false,
  crashedPrimary: false,
  linked: true,
  peerExcluded: false,
  dirtyBlocks: 0,
  discardMyData: false,
  partedAsPrimary: false,
  ...alwaysDisconnect,
};

const marked = { dirtyBlocks: 3 } as const;
const diskless = { disk: 'Diskless' } as const;
const outdated = { disk: 'Outdated' } as const;
const fresh = { origin: 'created-empty', disk: 'Inconsistent' } as const;
const withData = { origin: 'created-with-data', disk: 'Inconsistent' } as const;
const ahead = { current: 2n, bitmap: [1n], history: [1n] } as const;
const elsewhere = { current: 3n, bitmap: [1n], history: [1n] } as const;

const byPolicy = {
  'after-sb-0pri': 'discard-least-changes',
  'after-sb-1pri': 'discard-secondary',
  'after-sb-2pri': 'call-pri-lost-after-sb',
} as const;

type Row = readonly [
  name: string,
  self: Partial<PeerState>,
  peer: Partial<PeerState>,
  rule: HandshakeRule,
  verdict: string,
];

/** Self sorts first. The verdict in short: kind, then what it says. */
const rows: readonly Row[] = [
  ['a new device of another size', { ...fresh, sizeBytes: 4096 }, {}, 'size-mismatch', 'mismatch'],
  [
    'different sizes, and nothing in common',
    { sizeBytes: 4096 },
    { current: 7n },
    'size-mismatch',
    'mismatch',
  ],
  ['different sizes and protocols', { sizeBytes: 4096, protocol: 'A' }, {}, 'size-mismatch', 'mismatch'],
  ['the smaller one has no disk', { sizeBytes: 4096, ...diskless }, {}, 'size-mismatch', 'mismatch'],
  ['a size that no device has', {}, { sizeBytes: 2 ** 50 }, 'size-mismatch', 'mismatch'],
  ['a size of broken blocks', {}, { sizeBytes: 2 ** 30 + 512 }, 'size-mismatch', 'mismatch'],
  ['this one missed the growth', { sizeBytes: 4096 }, {}, 'grow-self', 'grow self 1048576'],
  ['the peer missed the growth', {}, { sizeBytes: 4096 }, 'grow-peer', 'grow peer 1048576'],
  [
    'this one missed the growth, and went on alone',
    { sizeBytes: 4096, ...ahead, role: 'Primary', exposed: 2n },
    {},
    'grow-self',
    'grow self 1048576',
  ],
  [
    'this one missed the growth, and is long behind',
    { sizeBytes: 4096 },
    { current: 5n, history: [1n] },
    'grow-self',
    'grow self 1048576',
  ],
  ['the one that has grown lost its disk', { sizeBytes: 4096 }, diskless, 'grow-self', 'grow self 1048576'],
  [
    'this one missed the growth, and is not whole',
    { sizeBytes: 4096, disk: 'Inconsistent' },
    { disk: 'Inconsistent' },
    'grow-self',
    'grow self 1048576',
  ],
  ['grown, and both have written', { sizeBytes: 4096, ...ahead }, elsewhere, 'bitmap-both', 'split-brain'],
  [
    'grown, both have written, and the larger gives way',
    { sizeBytes: 4096, ...ahead },
    { ...elsewhere, discardMyData: true },
    'grow-self',
    'grow self 1048576',
  ],
  [
    'this one missed the growth, and was superseded',
    { sizeBytes: 4096, role: 'Primary', exposed: 1n },
    { ...ahead, role: 'Primary', exposed: 2n },
    'bitmap-peer',
    'sync peer fence',
  ],
  ['different protocols', { protocol: 'A' }, {}, 'protocol-mismatch', 'mismatch'],

  ['neither has a disk', diskless, { disk: 'Failed' }, 'diskless-both', 'diskless'],
  ['this disk is gone, same generation', diskless, {}, 'diskless-self', 'diskless newest'],
  ['the peer has no disk, same generation', {}, diskless, 'diskless-peer', 'diskless newest'],
  [
    'the disk is behind the diskless node',
    { ...diskless, ...ahead },
    { current: 1n },
    'diskless-self',
    'diskless',
  ],
  ['the only disk is Inconsistent', diskless, { disk: 'Inconsistent' }, 'diskless-self', 'diskless'],
  [
    'a tie with the disk of the node that sorts last',
    { ...diskless, ...marked },
    {},
    'diskless-self',
    'diskless',
  ],
  ['the only disk is Outdated', diskless, outdated, 'diskless-self', 'diskless'],
  ['the only disk is fresh', diskless, fresh, 'diskless-self', 'diskless'],
  [
    'a diskless Primary meets the disk it wrote to',
    { ...diskless, role: 'Primary', exposed: 1n },
    {},
    'diskless-self',
    'diskless newest',
  ],
  [
    'a diskless Primary meets a disk that has moved on',
    { ...diskless, role: 'Primary', exposed: 1n },
    { ...ahead, writer: true },
    'exposed-mismatch-self',
    'fence self',
  ],
  [
    'a diskless Primary meets the disk that it handed off to, though the answer was lost',
    { ...diskless, role: 'Primary', exposed: 1n },
    { ...ahead, writer: false },
    'diskless-self',
    'diskless newest',
  ],
  [
    'a diskless Primary meets another Primary',
    { ...diskless, role: 'Primary', exposed: 5n },
    { role: 'Primary', exposed: 1n },
    'exposed-mismatch-self',
    'fence self',
  ],
  [
    'a disk that is behind meets a diskless Primary',
    {},
    { ...diskless, role: 'Primary', exposed: 5n },
    'exposed-mismatch-peer',
    'diskless',
  ],

  ['two empty disks', { ...fresh, current: 1n }, { ...fresh, current: 2n }, 'fresh-pair', 'in-sync 2'],
  ['two empty disks with a mark', { ...fresh, ...marked }, fresh, 'tie-break-self', 'sync self'],
  ['data meets an empty disk', withData, fresh, 'fresh-data-self', 'sync self full'],
  ['an empty disk meets data', fresh, withData, 'fresh-data-peer', 'sync peer full'],
  ['data meets other data', withData, withData, 'fresh-both-data', 'unrelated-data'],
  ['a new disk meets a replica', fresh, {}, 'just-created-self', 'sync peer full'],
  ['a replica meets a new disk', {}, fresh, 'just-created-peer', 'sync self full'],
  ['a replica meets foreign data', {}, withData, 'just-created-with-data', 'unrelated-data'],
  ['a new disk meets one that is not whole', fresh, { disk: 'Inconsistent' }, 'no-usable-source', 'no-data'],

  ['nothing happened', {}, {}, 'equal', 'in-sync 1'],
  [
    'an Outdated disk, after all without a difference',
    { role: 'Primary', exposed: 1n },
    { disk: 'Outdated' },
    'equal',
    'in-sync 1',
  ],
  [
    'neither is whole',
    { disk: 'Inconsistent', ...marked },
    { disk: 'Inconsistent' },
    'inconsistent-both',
    'no-data',
  ],
  ['this copy is not whole', { disk: 'Inconsistent' }, {}, 'inconsistent-self', 'sync peer'],
  ['the peer is not whole', {}, { disk: 'Inconsistent' }, 'inconsistent-peer', 'sync self'],
  [
    'a whole one is Outdated, the other not whole',
    { disk: 'Outdated' },
    { disk: 'Inconsistent' },
    'no-usable-source',
    'no-data',
  ],
  [
    'a Primary whose disk was away',
    { disk: 'Outdated', ...marked, role: 'Primary', exposed: 1n },
    {},
    'outdated-self',
    'sync peer',
  ],
  [
    'a survivor whose disk was away meets the crashed Primary',
    { crashedPrimary: true, ...marked },
    { disk: 'Outdated', linked: false },
    'outdated-peer',
    'sync self',
  ],
  [
    'both Outdated, with a mark',
    { disk: 'Outdated', ...marked },
    { disk: 'Outdated' },
    'no-usable-source',
    'no-data',
  ],
  [
    'two Primaries of one generation',
    { role: 'Primary', exposed: 1n },
    { role: 'Primary', exposed: 1n },
    'two-primaries',
    'split-brain',
  ],
  [
    'a Primary that lost its peer for a moment',
    { ...marked, role: 'Primary', exposed: 1n },
    {},
    'primary-self',
    'sync self',
  ],
  [
    'the peer is Primary, though the marks are here',
    marked,
    { role: 'Primary', exposed: 1n },
    'primary-peer',
    'sync peer',
  ],
  [
    'a survivor meets the crashed Primary',
    { linked: false },
    { ...marked, crashedPrimary: true },
    'survivor-self',
    'sync self',
  ],
  [
    'the crashed Primary meets the survivor',
    { ...marked, crashedPrimary: true },
    { linked: false },
    'survivor-peer',
    'sync peer',
  ],
  [
    'both went down, this one as Primary',
    { ...marked, crashedPrimary: true },
    { linked: true },
    'crashed-primary-self',
    'sync self',
  ],
  [
    'both went down, the peer as Primary',
    { linked: true },
    { ...marked, crashedPrimary: true },
    'crashed-primary-peer',
    'sync peer',
  ],
  [
    'this one did not hear that its resync ended',
    { ...marked, bitmap: [9n] },
    {},
    'missed-finish-self',
    'sync self',
  ],
  [
    'the peer did not hear that its resync ended',
    {},
    { ...marked, bitmap: [9n] },
    'missed-finish-peer',
    'sync peer',
  ],
  ['this one wrote the generation', { ...marked, writer: true }, {}, 'writer-self', 'sync self'],
  ['the peer wrote the generation', marked, { writer: true }, 'writer-peer', 'sync peer'],
  ['marks, and nobody wrote', marked, {}, 'tie-break-self', 'sync self'],

  ['this one went on alone', ahead, {}, 'bitmap-self', 'sync self'],
  ['the peer went on alone', marked, ahead, 'bitmap-peer', 'sync peer'],
  [
    'a Primary meets one that was promoted over it',
    { role: 'Primary', exposed: 1n },
    { ...ahead, role: 'Primary', exposed: 2n },
    'bitmap-peer',
    'sync peer fence',
  ],
  [
    'a Primary without writes of its own follows a peer it has seen the data of',
    { role: 'Primary', exposed: 2n },
    ahead,
    'bitmap-peer',
    'sync peer',
  ],
  ['the peer is long behind', { current: 5n, history: [4n, 1n] }, {}, 'history-self', 'sync self full'],
  ['this one is long behind', {}, { current: 5n, history: [4n, 1n] }, 'history-peer', 'sync peer full'],
  ['both wrote from one generation on', ahead, elsewhere, 'bitmap-both', 'split-brain'],
  [
    'both wrote, long after they parted',
    { current: 5n, history: [1n] },
    { current: 6n, history: [1n] },
    'history-both',
    'split-brain',
  ],
  [
    'both wrote from one generation on, and policy knows who',
    { ...ahead, ...byPolicy, dirtyBlocks: 5 },
    { ...elsewhere, ...byPolicy, dirtyBlocks: 4 },
    'after-sb-0pri-discard-peer',
    'sync self',
  ],
  [
    'one is Primary, the other gives way by policy',
    { ...ahead, ...byPolicy },
    { ...elsewhere, ...byPolicy, role: 'Primary', exposed: 3n },
    'after-sb-1pri-discard-self',
    'sync peer',
  ],
  [
    'both are Primary, and the one that gives way by policy steps down',
    { ...ahead, ...byPolicy, role: 'Primary', exposed: 2n },
    { ...elsewhere, ...byPolicy, role: 'Primary', exposed: 3n, ...marked },
    'after-sb-2pri-discard-self',
    'sync peer fence',
  ],
  [
    'by policy, without common marks: all is copied',
    { current: 5n, history: [1n], ...byPolicy, role: 'Primary', exposed: 5n },
    { current: 6n, history: [1n], ...byPolicy },
    'after-sb-1pri-discard-peer',
    'sync self full',
  ],
  [
    'without common marks their number tells nothing',
    { current: 5n, history: [1n], ...byPolicy, ...marked },
    { current: 6n, history: [1n], ...byPolicy },
    'after-sb-undecided',
    'split-brain',
  ],
  [
    'policies that differ settle nothing',
    { ...ahead, ...byPolicy, ...marked },
    { ...elsewhere, ...byPolicy, 'after-sb-2pri': 'disconnect' },
    'after-sb-mismatch',
    'split-brain',
  ],
  [
    'two Primaries of one generation, whatever the policy',
    { role: 'Primary', exposed: 1n, ...byPolicy, ...marked },
    { role: 'Primary', exposed: 1n, ...byPolicy },
    'two-primaries',
    'split-brain',
  ],
  [
    'nothing in common, whatever the policy',
    byPolicy,
    { current: 7n, ...byPolicy },
    'unrelated',
    'unrelated-data',
  ],
  ['nothing in common', {}, { current: 7n }, 'unrelated', 'unrelated-data'],

  [
    'split brain, this one gives way',
    { ...ahead, discardMyData: true },
    elsewhere,
    'discard-self',
    'sync peer',
  ],
  [
    'split brain, the peer gives way',
    ahead,
    { ...elsewhere, discardMyData: true },
    'discard-peer',
    'sync self',
  ],
  [
    'split brain, both would give way',
    { ...ahead, discardMyData: true },
    { ...elsewhere, discardMyData: true },
    'bitmap-both',
    'split-brain',
  ],
  [
    'split brain, a Primary does not give way',
    { ...ahead, discardMyData: true, role: 'Primary', exposed: 2n },
    elsewhere,
    'bitmap-both',
    'split-brain',
  ],
  [
    'split brain, the operator goes before the policy',
    { ...ahead, ...byPolicy, ...marked, discardMyData: true },
    { ...elsewhere, ...byPolicy },
    'discard-self',
    'sync peer',
  ],
  [
    'split brain, what the operator said cannot be followed, and the policy does not overrule it',
    { ...ahead, ...byPolicy, discardMyData: true },
    { ...elsewhere, ...byPolicy, discardMyData: true },
    'bitmap-both',
    'split-brain',
  ],
  [
    'without common marks all is copied',
    { current: 5n, history: [1n], discardMyData: true },
    { current: 6n, history: [1n] },
    'discard-self',
    'sync peer full',
  ],
  ['foreign data gives way', { ...withData, discardMyData: true }, {}, 'discard-self', 'sync peer full'],
  ['where nothing is open, giving way means nothing', { discardMyData: true }, {}, 'equal', 'in-sync 1'],
  ['the newer generation is Outdated', { ...ahead, disk: 'Outdated' }, {}, 'no-usable-source', 'no-data'],
];

const reached = new Set<HandshakeRule>();

for (const [name, self, peer, rule, verdict] of rows) {
  test(`${rule}: ${name}`, (t) => {
    const a = { ...plain, ...self };
    const b = { ...plain, ...peer };
    const decision = decideHandshake(a, b, true);
    t.is(decision.rule, rule);
    t.is(inShort(decision), verdict);
    t.deepEqual(decideHandshake(b, a, false), mirrored(decision));
    reached.add(decision.rule);
    reached.add(mirrored(decision).rule);
  });
}

test.serial.after('every rule of the list is reached by a row', (t) => {
  t.deepEqual(
    handshakeRules.filter((rule) => !reached.has(rule)),
    [],
  );
});

const generation = fc.bigInt({ min: 1n, max: 6n });
const lineage = fc.uniqueArray(generation, { maxLength: 3 });
const anyState: fc.Arbitrary<PeerState> = fc
  .record({
    sizeBytes: fc.constantFrom(1024 * 1024, 1024 * 1024, 1024 * 1024, 4096),
    protocol: fc.constantFrom('C', 'C', 'C', 'A'),
    role: fc.constantFrom('Primary', 'Secondary'),
    disk: fc.constantFrom(...diskStates),
    origin: fc.constantFrom('settled', 'settled', 'settled', 'created-empty', 'created-with-data'),
    current: generation,
    bitmap: lineage,
    history: lineage,
    exposed: generation,
    writer: fc.boolean(),
    crashedPrimary: fc.boolean(),
    linked: fc.boolean(),
    peerExcluded: fc.boolean(),
    dirtyBlocks: fc.constantFrom(0, 0, 5),
    discardMyData: fc.constantFrom(true, false, false),
    partedAsPrimary: fc.boolean(),
    'after-sb-0pri': fc.constantFrom<Agreed0pri>(
      'disconnect',
      'discard-least-changes',
      'discard-sorts-first',
    ),
    'after-sb-1pri': fc.constantFrom<AfterSb1pri>('disconnect', 'consensus', 'discard-secondary'),
    'after-sb-2pri': fc.constantFrom<AfterSb2pri>('disconnect', 'violently-as0p'),
  })
  .map((state) => ({ ...state, exposed: state.role === 'Primary' ? state.exposed : 0n }));

function property(
  name: string,
  check: (a: PeerState, b: PeerState, decision: HandshakeDecision) => boolean,
): void {
  test(`whatever two nodes say: ${name}`, (t) => {
    fc.assert(
      fc.property(anyState, anyState, fc.boolean(), (a, b, first) =>
        check(a, b, decideHandshake(a, b, first)),
      ),
      { numRuns: 5_000 },
    );
    t.pass();
  });
}

test('whatever two nodes say: both reach the mirrored decision', (t) => {
  fc.assert(
    fc.property(anyState, anyState, fc.boolean(), (a, b, first) => {
      t.deepEqual(decideHandshake(b, a, !first), mirrored(decideHandshake(a, b, first)));
    }),
    { numRuns: 5_000 },
  );
});

property(
  'a disk that is Inconsistent or Outdated is never a source, unless it is new',
  (a, b, { verdict }) => {
    if (verdict.kind !== 'sync') return true;
    const source = verdict.source === 'self' ? a : b;
    return source.origin !== 'settled' || (source.disk !== 'Inconsistent' && source.disk !== 'Outdated');
  },
);

property('an empty disk never overwrites anything', (a, b, { verdict, rule }) => {
  if (verdict.kind !== 'sync' || rule.startsWith('tie-break')) return true;
  return (verdict.source === 'self' ? a : b).origin !== 'created-empty';
});

property('data that was there before is never overwritten unasked', (a, b, { verdict }) => {
  if (verdict.kind !== 'sync') return true;
  const target = verdict.source === 'self' ? b : a;
  return target.origin !== 'created-with-data' || target.discardMyData;
});

property(
  'devices of different size never meet before one has grown, and none shrinks',
  (a, b, { verdict }) => {
    if (verdict.kind === 'grow') {
      const [smaller, larger] = verdict.side === 'self' ? [a, b] : [b, a];
      return verdict.sizeBytes === larger.sizeBytes && smaller.sizeBytes < larger.sizeBytes;
    }
    if (a.sizeBytes === b.sizeBytes) return true;
    return verdict.kind !== 'in-sync' && (verdict.kind !== 'sync' || verdict.fenceTarget);
  },
);

property(
  'data is thrown away only where both nodes say which, and never for want of a common past',
  (a, b, decision) => {
    if (!/^after-sb-.pri-discard/.test(decision.rule)) return true;
    const without = decideHandshake({ ...a, ...alwaysDisconnect }, { ...b, ...alwaysDisconnect }, true);
    const settings = ['after-sb-0pri', 'after-sb-1pri', 'after-sb-2pri'] as const;
    return (
      (without.rule === 'bitmap-both' || without.rule === 'history-both') &&
      settings.every((setting) => a[setting] === b[setting])
    );
  },
);

property('with a block marked on either side they are never in sync', (a, b, { verdict }) => {
  return verdict.kind !== 'in-sync' || a.dirtyBlocks + b.dirtyBlocks === 0;
});

property('different generations of settled disks are never in sync', (a, b, { verdict }) => {
  if (verdict.kind !== 'in-sync' || a.origin !== 'settled' || b.origin !== 'settled') return true;
  return a.current === b.current;
});

property(
  'a Primary is overwritten only after it has stepped down, or with the data its clients see',
  (a, b, { verdict }) => {
    if (verdict.kind !== 'sync' || verdict.fenceTarget) return true;
    const [source, target] = verdict.source === 'self' ? [a, b] : [b, a];
    return target.role !== 'Primary' || target.exposed === source.current;
  },
);

function inShort({ verdict }: HandshakeDecision): string {
  switch (verdict.kind) {
    case 'in-sync':
      return `in-sync ${verdict.adoptCurrent}`;
    case 'sync':
      return `sync ${verdict.source}${verdict.full ? ' full' : ''}${verdict.fenceTarget ? ' fence' : ''}`;
    case 'diskless':
      return verdict.newest ? 'diskless newest' : 'diskless';
    case 'fence':
      return `fence ${verdict.side}`;
    case 'grow':
      return `grow ${verdict.side} ${verdict.sizeBytes}`;
    case 'no-data':
    case 'split-brain':
    case 'unrelated-data':
    case 'mismatch':
      return verdict.kind;
    default:
      return verdict satisfies never;
  }
}

/** What the other side has to decide. */
function mirrored({ rule, verdict }: HandshakeDecision): HandshakeDecision {
  const name = rule.endsWith('-self') ? rule.replace(/self$/, 'peer') : rule.replace(/-peer$/, '-self');
  const other = handshakeRules.find((candidate) => candidate === name);
  if (other === undefined) throw new Error(`rule ${rule} has no mirror image`);
  if (verdict.kind === 'sync') {
    return { rule: other, verdict: { ...verdict, source: verdict.source === 'self' ? 'peer' : 'self' } };
  }
  if (verdict.kind === 'fence' || verdict.kind === 'grow') {
    return { rule: other, verdict: { ...verdict, side: verdict.side === 'self' ? 'peer' : 'self' } };
  }
  return { rule: other, verdict };
}
