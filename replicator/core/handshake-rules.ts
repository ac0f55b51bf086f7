/**
 * The handshake decision: what two replicas that have just met do, as one ordered table of named rules. Pure and
 * symmetric: the peer, which sees the same two states from its side, always reaches the mirrored result.
 * After "Data generation identifiers" of the DRBD guide (drbd-internals), with two differences: a rule chooses a
 * direction and never absolves a marked block, and a just created disk is told apart from one whose history is lost.
 */
import { settleSplitBrain } from './after-split-brain.ts';
import type { PeerState } from './packet.ts';
import { isDeviceSize } from './vocabulary.ts';

export type Side = 'self' | 'peer';

export type Verdict =
  /** Both hold the same data; nothing is marked. */
  | { readonly kind: 'in-sync'; readonly adoptCurrent: bigint }
  /** `full`: every block counts as marked. Otherwise the union of both bitmaps is copied. */
  | { readonly kind: 'sync'; readonly source: Side; readonly full: boolean; readonly fenceTarget: boolean }
  /** Connected, but one side (or both) has no disk. `newest`: the disk that is there holds the newest data. */
  | { readonly kind: 'diskless'; readonly newest: boolean }
  /** Connected, and no side has data that may be copied to the other without being forced. */
  | { readonly kind: 'no-data' }
  /** A Primary without a disk whose clients have seen data that this peer does not have. */
  | { readonly kind: 'fence'; readonly side: Side }
  /** One side is smaller: it grows first, and then the handshake goes on. */
  | { readonly kind: 'grow'; readonly side: Side; readonly sizeBytes: number }
  | { readonly kind: 'split-brain' }
  | { readonly kind: 'unrelated-data' }
  | { readonly kind: 'mismatch' };

export const handshakeRules = [
  'size-mismatch',
  'grow-self',
  'grow-peer',
  'protocol-mismatch',
  'diskless-both',
  'diskless-self',
  'diskless-peer',
  'exposed-mismatch-self',
  'exposed-mismatch-peer',
  'fresh-pair',
  'fresh-data-self',
  'fresh-data-peer',
  'fresh-both-data',
  'just-created-self',
  'just-created-peer',
  'just-created-with-data',
  'equal',
  'inconsistent-both',
  'inconsistent-self',
  'inconsistent-peer',
  'outdated-self',
  'outdated-peer',
  'two-primaries',
  'primary-self',
  'primary-peer',
  'survivor-self',
  'survivor-peer',
  'crashed-primary-self',
  'crashed-primary-peer',
  'missed-finish-self',
  'missed-finish-peer',
  'writer-self',
  'writer-peer',
  'tie-break-self',
  'tie-break-peer',
  'bitmap-self',
  'bitmap-peer',
  'history-self',
  'history-peer',
  'bitmap-both',
  'history-both',
  'unrelated',
  'discard-self',
  'discard-peer',
  'after-sb-0pri-discard-self',
  'after-sb-0pri-discard-peer',
  'after-sb-1pri-discard-self',
  'after-sb-1pri-discard-peer',
  'after-sb-2pri-discard-self',
  'after-sb-2pri-discard-peer',
  'after-sb-mismatch',
  'after-sb-undecided',
  'no-usable-source',
] as const;
export type HandshakeRule = (typeof handshakeRules)[number];

export interface HandshakeDecision {
  readonly rule: HandshakeRule;
  readonly verdict: Verdict;
}

/** `selfSortsFirst` breaks ties: exactly one of the two nodes passes true. */
export function decideHandshake(
  self: PeerState,
  peer: PeerState,
  selfSortsFirst: boolean,
): HandshakeDecision {
  if (self.sizeBytes !== peer.sizeBytes) return decideSizes(self, peer, selfSortsFirst);
  if (self.protocol !== peer.protocol) return { rule: 'protocol-mismatch', verdict: { kind: 'mismatch' } };
  return decideData(self, peer, selfSortsFirst);
}

/**
 * A growth was cut short after one side had recorded it (resize.ts): the other side follows. Between replicas of one
 * lineage only: two devices that were defined with different sizes are a mistake that no growth may hide.
 */
function decideSizes(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  const mismatch: HandshakeDecision = { rule: 'size-mismatch', verdict: { kind: 'mismatch' } };
  const side: Side = self.sizeBytes < peer.sizeBytes ? 'self' : 'peer';
  const [smaller, larger] = side === 'self' ? [self, peer] : [peer, self];
  if (self.protocol !== peer.protocol || isDiskless(smaller) || !isDeviceSize(larger.sizeBytes))
    return mismatch;
  if (self.origin !== 'settled' || peer.origin !== 'settled' || !shareLineage(self, peer)) return mismatch;
  const decision = decideData(self, peer, selfSortsFirst);
  switch (decision.verdict.kind) {
    case 'sync':
      if (decision.verdict.fenceTarget) return decision;
      break;
    case 'in-sync':
    case 'diskless':
    case 'no-data':
      break;
    default:
      return decision;
  }
  const verdict = { kind: 'grow', side, sizeBytes: larger.sizeBytes } as const;
  return { rule: side === 'self' ? 'grow-self' : 'grow-peer', verdict };
}

function decideData(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  if (isDiskless(self) || isDiskless(peer)) return decideDiskless(self, peer, selfSortsFirst);
  return decideWithDisks(self, peer, selfSortsFirst);
}

function decideWithDisks(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  const compared = checkDiscard(self, peer, compareGenerations(self, peer, selfSortsFirst));
  return checkSource(self, peer, checkPolicies(self, peer, selfSortsFirst, compared));
}

function compareGenerations(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  if (self.origin !== 'settled' || peer.origin !== 'settled') return compareFresh(self, peer, selfSortsFirst);
  if (self.current === peer.current) return compareEqual(self, peer, selfSortsFirst);
  return compareDifferent(self, peer);
}

/** At least one disk has never been part of a pair. Empty disks give way; data is never overwritten unasked. */
function compareFresh(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  if (self.origin !== 'settled' && peer.origin !== 'settled') {
    const selfHasData = self.origin === 'created-with-data';
    const peerHasData = peer.origin === 'created-with-data';
    if (selfHasData && peerHasData) return { rule: 'fresh-both-data', verdict: { kind: 'unrelated-data' } };
    if (selfHasData) return sync('fresh-data-self', 'self', true);
    if (peerHasData) return sync('fresh-data-peer', 'peer', true);
    if (self.dirtyBlocks + peer.dirtyBlocks > 0) {
      return selfSortsFirst ? sync('tie-break-self', 'self', false) : sync('tie-break-peer', 'peer', false);
    }
    const adoptCurrent = self.current > peer.current ? self.current : peer.current;
    return { rule: 'fresh-pair', verdict: { kind: 'in-sync', adoptCurrent } };
  }
  const fresh = self.origin !== 'settled' ? self : peer;
  if (fresh.origin === 'created-with-data') {
    return { rule: 'just-created-with-data', verdict: { kind: 'unrelated-data' } };
  }
  return fresh === self ? sync('just-created-self', 'peer', true) : sync('just-created-peer', 'self', true);
}

/** Same generation: who holds what the other may lack of it? */
function compareEqual(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  if (self.disk === 'Inconsistent' && peer.disk === 'Inconsistent') {
    return { rule: 'inconsistent-both', verdict: { kind: 'no-data' } };
  }
  if (self.disk === 'Inconsistent') return sync('inconsistent-self', 'peer', false);
  if (peer.disk === 'Inconsistent') return sync('inconsistent-peer', 'self', false);
  if (self.role === 'Primary' && peer.role === 'Primary') {
    return { rule: 'two-primaries', verdict: { kind: 'split-brain' } };
  }
  if (self.dirtyBlocks === 0 && peer.dirtyBlocks === 0) {
    return { rule: 'equal', verdict: { kind: 'in-sync', adoptCurrent: self.current } };
  }
  // Outdated was recorded when the other copy was whole and went on, or was about to.
  if ((self.disk === 'Outdated') !== (peer.disk === 'Outdated')) {
    return self.disk === 'Outdated'
      ? sync('outdated-self', 'peer', false)
      : sync('outdated-peer', 'self', false);
  }
  if (self.role === 'Primary') return sync('primary-self', 'self', false);
  if (peer.role === 'Primary') return sync('primary-peer', 'peer', false);
  // A crashed Primary may have lost its cache. A peer that noticed the loss flushed its disk and then recorded so
  // (`linked` false): it holds every acknowledged write. One that did not notice went down as well.
  if (self.crashedPrimary !== peer.crashedPrimary) {
    if (self.crashedPrimary) {
      return peer.linked ? sync('crashed-primary-self', 'self', false) : sync('survivor-peer', 'peer', false);
    }
    return self.linked ? sync('crashed-primary-peer', 'peer', false) : sync('survivor-self', 'self', false);
  }
  // The source of a resync keeps its bitmap generation until it hears of the end.
  if (self.bitmap.length > 0 !== peer.bitmap.length > 0) {
    return self.bitmap.length > 0
      ? sync('missed-finish-self', 'self', false)
      : sync('missed-finish-peer', 'peer', false);
  }
  if (self.writer !== peer.writer) {
    return self.writer ? sync('writer-self', 'self', false) : sync('writer-peer', 'peer', false);
  }
  return selfSortsFirst ? sync('tie-break-self', 'self', false) : sync('tie-break-peer', 'peer', false);
}

/** Different generations: is one an ancestor of the other, and how much is known of the way between? */
function compareDifferent(self: PeerState, peer: PeerState): HandshakeDecision {
  const selfCovers = self.bitmap.includes(peer.current);
  const peerCovers = peer.bitmap.includes(self.current);
  if (selfCovers && !peerCovers) return sync('bitmap-self', 'self', false);
  if (peerCovers && !selfCovers) return sync('bitmap-peer', 'peer', false);
  const selfDescends = self.history.includes(peer.current);
  const peerDescends = peer.history.includes(self.current);
  if (selfDescends && !peerDescends) return sync('history-self', 'self', true);
  if (peerDescends && !selfDescends) return sync('history-peer', 'peer', true);
  if (self.bitmap.some((generation) => peer.bitmap.includes(generation))) {
    return { rule: 'bitmap-both', verdict: { kind: 'split-brain' } };
  }
  if (shareLineage(self, peer)) return { rule: 'history-both', verdict: { kind: 'split-brain' } };
  return { rule: 'unrelated', verdict: { kind: 'unrelated-data' } };
}

function shareLineage(self: PeerState, peer: PeerState): boolean {
  const selfLine = new Set([self.current, ...self.bitmap, ...self.history]);
  return [peer.current, ...peer.bitmap, ...peer.history].some((generation) => selfLine.has(generation));
}

/** An operator's `discardMyData` resolves what the generations leave open, and nothing else. */
function checkDiscard(self: PeerState, peer: PeerState, decision: HandshakeDecision): HandshakeDecision {
  const open = decision.verdict.kind === 'split-brain' || decision.verdict.kind === 'unrelated-data';
  if (!open || self.discardMyData === peer.discardMyData) return decision;
  const [loser, winner] = self.discardMyData ? [self, peer] : [peer, self];
  if (loser.role === 'Primary') return decision;
  // A copy that is not whole, or was left behind, cannot be what remains: without a source nothing would ever be decided.
  const isWhole =
    winner.origin !== 'settled' || (winner.disk !== 'Inconsistent' && winner.disk !== 'Outdated');
  if (!isWhole) return decision;
  // Only where both bitmaps reach back to the same generation does their union hold every difference.
  const full = decision.rule !== 'bitmap-both';
  return self.discardMyData ? sync('discard-self', 'peer', full) : sync('discard-peer', 'self', full);
}

/** A split brain that no operator has spoken of: the policies of both nodes may settle it. */
function checkPolicies(
  self: PeerState,
  peer: PeerState,
  selfSortsFirst: boolean,
  decision: HandshakeDecision,
): HandshakeDecision {
  if (decision.rule !== 'bitmap-both' && decision.rule !== 'history-both') return decision;
  // An operator's word that cannot be followed is still not one to overrule.
  if (self.discardMyData || peer.discardMyData) return decision;
  const commonMarks = decision.rule === 'bitmap-both';
  const outcome = settleSplitBrain(self, peer, selfSortsFirst, commonMarks);
  switch (outcome.kind) {
    case 'disconnect':
      return decision;
    case 'mismatch':
      return { rule: 'after-sb-mismatch', verdict: { kind: 'split-brain' } };
    case 'undecided':
      return { rule: 'after-sb-undecided', verdict: { kind: 'split-brain' } };
    case 'discard': {
      const { setting, loser } = outcome;
      return sync(`${setting}-discard-${loser}`, loser === 'self' ? 'peer' : 'self', !commonMarks);
    }
    default:
      return outcome satisfies never;
  }
}

/** A source must have whole data; a Primary that is to be overwritten has been superseded, or followed the source. */
function checkSource(self: PeerState, peer: PeerState, decision: HandshakeDecision): HandshakeDecision {
  if (decision.verdict.kind !== 'sync') return decision;
  const source = decision.verdict.source === 'self' ? self : peer;
  const target = decision.verdict.source === 'self' ? peer : self;
  const fresh = source.origin !== 'settled';
  if (!fresh && (source.disk === 'Inconsistent' || source.disk === 'Outdated')) {
    return { rule: 'no-usable-source', verdict: { kind: 'no-data' } };
  }
  if (target.role === 'Primary' && target.exposed !== source.current) {
    return { rule: decision.rule, verdict: { ...decision.verdict, fenceTarget: true } };
  }
  return decision;
}

function decideDiskless(self: PeerState, peer: PeerState, selfSortsFirst: boolean): HandshakeDecision {
  if (isDiskless(self) && isDiskless(peer)) {
    return { rule: 'diskless-both', verdict: { kind: 'diskless', newest: false } };
  }
  const [without, within] = isDiskless(self) ? [self, peer] : [peer, self];
  const side: Side = without === self ? 'self' : 'peer';
  // Told to go on as the only copy, the disk's node began a generation that it did not write itself; the answer was lost.
  const wasHandedOff =
    within.role === 'Secondary' && !within.writer && within.bitmap.includes(without.exposed);
  if (without.role === 'Primary' && without.exposed !== within.current && !wasHandedOff) {
    const rule = side === 'self' ? 'exposed-mismatch-self' : 'exposed-mismatch-peer';
    // A newer generation on the disk: the diskless Primary was superseded. An older one: that disk is behind.
    if (
      within.role === 'Primary' ||
      within.history.includes(without.exposed) ||
      within.bitmap.includes(without.exposed)
    ) {
      return { rule, verdict: { kind: 'fence', side } };
    }
    return { rule, verdict: { kind: 'diskless', newest: false } };
  }
  const rule = side === 'self' ? 'diskless-self' : 'diskless-peer';
  const withinSortsFirst = within === self ? selfSortsFirst : !selfSortsFirst;
  return { rule, verdict: { kind: 'diskless', newest: isNewest(within, without, withinSortsFirst) } };
}

/** Whether the data on the only disk is known to be no older than what the diskless side last recorded. */
function isNewest(within: PeerState, without: PeerState, withinSortsFirst: boolean): boolean {
  // Outdated was recorded when the other copy was to go on: this one may lack what that has, or had.
  if (within.disk === 'Inconsistent' || within.disk === 'Outdated' || within.origin !== 'settled')
    return false;
  // What the diskless side has recorded descends from this disk's data, and has gone on without it.
  const isAncestor = without.bitmap.includes(within.current) || without.history.includes(within.current);
  if (isAncestor && without.current !== within.current) return false;
  if (without.role === 'Primary') return true;
  // A Primary whose own disk was away has shown its clients newer data than that disk holds.
  if (within.role === 'Primary') return within.exposed === within.current;
  if (without.origin !== 'settled') return within.disk === 'UpToDate';
  const { verdict } = compareGenerations(within, { ...without, disk: 'Consistent' }, withinSortsFirst);
  return verdict.kind === 'in-sync' || (verdict.kind === 'sync' && verdict.source === 'self');
}

function sync(rule: HandshakeRule, source: Side, full: boolean): HandshakeDecision {
  return { rule, verdict: { kind: 'sync', source, full, fenceTarget: false } };
}

function isDiskless(state: PeerState): boolean {
  return state.disk === 'Diskless' || state.disk === 'Failed';
}
