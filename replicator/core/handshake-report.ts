/** The handshake and its outcome in words: for the log, the status and the record of decisions. */
import type { StandAloneReason } from './connection.ts';
import type { HandshakeRule, Verdict } from './handshake-rules.ts';
import type { PeerState } from './packet.ts';
import { formatGeneration } from './vocabulary.ts';

const stateKeys = [
  'sizeBytes',
  'protocol',
  'role',
  'disk',
  'origin',
  'current',
  'bitmap',
  'history',
  'exposed',
  'writer',
  'crashedPrimary',
  'linked',
  'peerExcluded',
  'dirtyBlocks',
  'discardMyData',
  'partedAsPrimary',
  'after-sb-0pri',
  'after-sb-1pri',
  'after-sb-2pri',
] as const satisfies readonly (keyof PeerState)[];

/** Both sides' states as flat facts. */
export function handshakeInputs(self: PeerState, peer: PeerState): Record<string, string | number | boolean> {
  return { ...prefixed('self', self), ...prefixed('peer', peer) };
}

/** A split brain settled by policy: what is thrown away, and by which word of whom. Null for every other rule. */
export function describeDiscard(
  rule: HandshakeRule,
  self: PeerState,
  peer: PeerState,
  names: { readonly nodeName: string; readonly peerName: string | null },
): string | null {
  const [, primaries, side] = /^after-sb-([012])pri-discard-(self|peer)$/.exec(rule) ?? [];
  if (primaries === undefined) return null;
  const loser = side === 'self' ? self : peer;
  const name = side === 'self' ? names.nodeName : names.peerName;
  const policies = (['after-sb-0pri', 'after-sb-1pri', 'after-sb-2pri'] as const)
    .slice(0, Number(primaries) + 1)
    .map((setting) => `${setting} ${inWords(self[setting], names)}`);
  const stepsDown = loser.role === 'Primary' ? ', which steps down first,' : '';
  return (
    `split brain settled by policy (${policies.join(', ')}): ` +
    `what only ${name}${stepsDown} has written is thrown away (${loser.dirtyBlocks} blocks of 4 KiB are marked there)`
  );
}

function inWords(
  policy: string,
  names: { readonly nodeName: string; readonly peerName: string | null },
): string {
  const [first, last] = [names.nodeName, names.peerName ?? ''].sort();
  if (policy === 'discard-sorts-first') return `discard-node-${first}`;
  return policy === 'discard-sorts-last' ? `discard-node-${last}` : policy;
}

export function standApartReason(rule: string, because: StandAloneReason): string {
  switch (because) {
    case 'split-brain':
      return `split brain (rule ${rule}): both nodes have written without each other${whyNotSettled(rule)}; on the one whose writes are to go: connect with discardMyData, on the other: connect`;
    case 'unrelated-data':
      return `unrelated data (rule ${rule}): the two disks share no history; on the one to be overwritten: connect with discardMyData, on the other: connect`;
    default:
      return `the nodes do not fit together (rule ${rule}): compare size and protocol of the resource on both`;
  }
}

function whyNotSettled(rule: string): string {
  if (rule === 'after-sb-mismatch') return ', and no after-sb policy is followed, since theirs differ';
  if (rule === 'after-sb-undecided') return ', and their after-sb policies do not tell which copy is to go';
  return '';
}

export function describeVerdict(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'sync':
      return `${verdict.fenceTarget ? 'superseded Primary steps down, then ' : ''}${verdict.full ? 'full' : 'quick'} resync, source ${verdict.source}`;
    case 'in-sync':
      return 'no resync';
    case 'diskless':
      return verdict.newest ? 'one disk, with the newest data' : 'no disk with the newest data';
    case 'fence':
      return `superseded Primary (${verdict.side}) steps down`;
    case 'grow':
      return `${verdict.side} grows to ${verdict.sizeBytes} bytes, then the handshake goes on`;
    case 'no-data':
    case 'split-brain':
    case 'unrelated-data':
    case 'mismatch':
      return verdict.kind;
    default:
      return verdict satisfies never;
  }
}

function prefixed(prefix: string, state: PeerState): Record<string, string | number | boolean> {
  const facts: Record<string, string | number | boolean> = {};
  for (const key of stateKeys) facts[`${prefix}.${key}`] = printable(state[key]);
  return facts;
}

function printable(value: PeerState[keyof PeerState]): string | number | boolean {
  if (typeof value === 'bigint') return formatGeneration(value);
  return typeof value === 'object' ? value.map(formatGeneration).join(' ') : value;
}
