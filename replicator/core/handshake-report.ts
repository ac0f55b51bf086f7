/** The handshake and its outcome in words: for the log, the status and the record of decisions. */
import type { StandAloneReason } from './connection.ts';
import type { Verdict } from './handshake-rules.ts';
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
] as const satisfies readonly (keyof PeerState)[];

/** Both sides' states as flat facts. */
export function handshakeInputs(self: PeerState, peer: PeerState): Record<string, string | number | boolean> {
  return { ...prefixed('self', self), ...prefixed('peer', peer) };
}

export function standApartReason(rule: string, because: StandAloneReason): string {
  switch (because) {
    case 'split-brain':
      return `split brain (rule ${rule}): both nodes have written without each other; on the one whose writes are to go: connect with discardMyData, on the other: connect`;
    case 'unrelated-data':
      return `unrelated data (rule ${rule}): the two disks share no history; on the one to be overwritten: connect with discardMyData, on the other: connect`;
    default:
      return `the nodes do not fit together (rule ${rule}): compare size and protocol of the resource on both`;
  }
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
