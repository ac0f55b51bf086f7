/**
 * Whether a resync compares hashes before it copies. That pays where most marked blocks are equal: after a crash, whose
 * active extents are marked as a whole. Blocks that were written on one side alone differ, and hashing them is for nothing.
 */
import type { HandshakeRule } from './handshake-rules.ts';
import type { ChecksumResync } from './options.ts';
import type { PeerState } from './packet.ts';

/** Between equal generations no side has written alone: the marks are suspects. */
const suspectRules: ReadonlySet<HandshakeRule> = new Set([
  'outdated-self',
  'outdated-peer',
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
]);

/** `self` is the target, whose choice it is. `full`: every block counts as marked. */
export function comparesHashes(
  policy: ChecksumResync,
  rule: HandshakeRule,
  full: boolean,
  self: PeerState,
  peer: PeerState,
): boolean {
  switch (policy) {
    case 'always':
      return true;
    case 'never':
      return false;
    case 'after-crash':
      return !full && (suspectRules.has(rule) || self.crashedPrimary || peer.crashedPrimary);
    default:
      return policy satisfies never;
  }
}
