/**
 * Split brains settled by policy, after the options `after-sb-0pri`, `after-sb-1pri` and `after-sb-2pri` of the reference
 * system (drbdsetup, net options). Pure and symmetric, as all of the handshake: both sides settle it alike or not at all.
 */
import type { Side } from './handshake-rules.ts';
import type { PeerState } from './packet.ts';

/** With no Primary left; besides these, `discard-node-NAME`: the data of that node gives way. */
export const afterSb0priWords = [
  'disconnect',
  /** The one that was Primary when they parted wins. */
  'discard-younger-primary',
  /** The one that became Primary afterwards wins. */
  'discard-older-primary',
  /** Only a copy in which nothing is marked gives way. */
  'discard-zero-changes',
  /** The copy with fewer marked blocks gives way. */
  'discard-least-changes',
] as const;
type WithoutNode = (typeof afterSb0priWords)[number];
export type AfterSb0pri = WithoutNode | `discard-node-${string}`;

/** With one Primary left. */
export const afterSb1priWords = [
  'disconnect',
  /** The Secondary gives way, if after-sb-0pri says so too. */
  'consensus',
  'discard-secondary',
  /** What after-sb-0pri says; a Primary that is to give way steps down first, here and with the next one. */
  'call-pri-lost-after-sb',
  'violently-as0p',
] as const;
export type AfterSb1pri = (typeof afterSb1priWords)[number];

/** With two Primaries left. */
export const afterSb2priWords = ['disconnect', 'call-pri-lost-after-sb', 'violently-as0p'] as const;
export type AfterSb2pri = (typeof afterSb2priWords)[number];

/** The default: nothing is thrown away (design.md, W7). */
export const alwaysDisconnect = {
  'after-sb-0pri': 'disconnect',
  'after-sb-1pri': 'disconnect',
  'after-sb-2pri': 'disconnect',
} as const;

/** A policy as both nodes say it alike: a node is named by its place in the order of the two names. */
export type Agreed0pri = WithoutNode | 'discard-sorts-first' | 'discard-sorts-last';

export type AfterSbSetting = 'after-sb-0pri' | 'after-sb-1pri' | 'after-sb-2pri';

export type AfterSbOutcome =
  /** The policy that applies is `disconnect`. */
  | { readonly kind: 'disconnect' }
  /** The two nodes do not have the same policies. */
  | { readonly kind: 'mismatch' }
  /** There is a policy, and it does not tell these two apart. */
  | { readonly kind: 'undecided' }
  | { readonly kind: 'discard'; readonly loser: Side; readonly setting: AfterSbSetting };

/** A name that is neither node's (which configuration refuses) discards nothing. */
export function agreed0pri(policy: AfterSb0pri, nodeName: string, peerName: string): Agreed0pri {
  const plain = afterSb0priWords.find((word) => word === policy);
  if (plain !== undefined) return plain;
  const name = policy.slice('discard-node-'.length);
  if (name !== nodeName && name !== peerName) return 'disconnect';
  const other = name === nodeName ? peerName : nodeName;
  return name < other ? 'discard-sorts-first' : 'discard-sorts-last';
}

/**
 * Which copy gives way. `commonMarks`: the marks of both count from the same generation on; without that, neither their
 * number nor who was Primary then tells anything.
 */
export function settleSplitBrain(
  self: PeerState,
  peer: PeerState,
  selfSortsFirst: boolean,
  commonMarks: boolean,
): AfterSbOutcome {
  const settings = ['after-sb-0pri', 'after-sb-1pri', 'after-sb-2pri'] as const;
  if (settings.some((setting) => self[setting] !== peer[setting])) return { kind: 'mismatch' };
  const primaries = [self, peer].filter(({ role }) => role === 'Primary').length;
  const setting = primaries === 0 ? settings[0] : primaries === 1 ? settings[1] : settings[2];
  if (self[setting] === 'disconnect') return { kind: 'disconnect' };
  const loser = pickLoser(self, setting, () => asWithoutPrimary(self, peer, selfSortsFirst, commonMarks));
  if (loser === null) return { kind: 'undecided' };
  const winner = loser === 'self' ? peer : self;
  // What is left has to be a whole copy, and not one that is known to be behind.
  if (winner.disk === 'Inconsistent' || winner.disk === 'Outdated') return { kind: 'undecided' };
  return { kind: 'discard', loser, setting };
}

function pickLoser(self: PeerState, setting: AfterSbSetting, asWithout: () => Side | null): Side | null {
  if (setting !== 'after-sb-1pri') return asWithout();
  const secondary: Side = self.role === 'Primary' ? 'peer' : 'self';
  const policy = self[setting];
  switch (policy) {
    case 'disconnect':
      return null;
    case 'consensus':
      return asWithout() === secondary ? secondary : null;
    case 'discard-secondary':
      return secondary;
    case 'call-pri-lost-after-sb':
    case 'violently-as0p':
      return asWithout();
    default:
      return policy satisfies never;
  }
}

/** What after-sb-0pri says, whoever is Primary. */
function asWithoutPrimary(
  self: PeerState,
  peer: PeerState,
  selfSortsFirst: boolean,
  commonMarks: boolean,
): Side | null {
  const policy = self['after-sb-0pri'];
  switch (policy) {
    case 'disconnect':
      return null;
    case 'discard-sorts-first':
      return selfSortsFirst ? 'self' : 'peer';
    case 'discard-sorts-last':
      return selfSortsFirst ? 'peer' : 'self';
    case 'discard-younger-primary':
    case 'discard-older-primary':
    case 'discard-zero-changes':
    case 'discard-least-changes':
      return commonMarks ? byPast(self, peer, policy, selfSortsFirst ? 'peer' : 'self') : null;
    default:
      return policy satisfies never;
  }
}

function byPast(
  self: PeerState,
  peer: PeerState,
  policy: Exclude<WithoutNode, 'disconnect'>,
  sortsLast: Side,
): Side | null {
  const isByPrimary = policy === 'discard-younger-primary' || policy === 'discard-older-primary';
  if (isByPrimary && self.partedAsPrimary !== peer.partedAsPrimary) {
    const [older, younger]: readonly [Side, Side] = self.partedAsPrimary
      ? ['self', 'peer']
      : ['peer', 'self'];
    return policy === 'discard-older-primary' ? older : younger;
  }
  if (policy === 'discard-zero-changes') {
    if (self.dirtyBlocks === 0) return peer.dirtyBlocks === 0 ? sortsLast : 'self';
    return peer.dirtyBlocks === 0 ? 'peer' : null;
  }
  // Also where neither, or both, were Primary when they parted.
  if (self.dirtyBlocks === peer.dirtyBlocks) return sortsLast;
  return self.dirtyBlocks < peer.dirtyBlocks ? 'self' : 'peer';
}
