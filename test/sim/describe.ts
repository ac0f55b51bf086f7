/** Events, effects and packets as one readable line of a trace. */
import type { Effect } from '../../replicator/core/effect.ts';
import type { Event } from '../../replicator/core/event.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import { formatGeneration } from '../../replicator/core/vocabulary.ts';
import { SimPayload } from './sim-disk.ts';

export function describe(thing: Event | Effect): string {
  const { kind, ...rest } = thing;
  const fields = Object.entries(rest).map(([name, value]) => `${name}=${show(value)}`);
  return [kind, ...fields].join(' ');
}

function show(value: unknown): string {
  if (value instanceof SimPayload) return `[${value.sectors.length}x${value.sectors[0] ?? 0}]`;
  if (value instanceof Uint8Array) return `<${value.length} bytes>`;
  if (typeof value === 'bigint') return value.toString(16).padStart(16, '0').slice(0, 6);
  if (Array.isArray(value)) {
    const shown = value.slice(0, 6).map(show).join(',');
    return `[${shown}${value.length > 6 ? `,...${value.length}` : ''}]`;
  }
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value)
      .map(([name, field]) => `${name}:${show(field)}`)
      .join(' ')}}`;
  }
  return String(value);
}

/** A node as one line; `status` null when it is down. */
export function describeNode(name: string, status: CoreStatus | null, isFrozen: boolean): string {
  if (status === null) return `${name} down`;
  const { peer, generation } = status;
  const link =
    peer === null ? '-' : `${peer.connection}/${peer.replication} peer ${peer.role}/${peer.diskState}`;
  const held = status.suspended.length > 0 ? ` held: ${status.suspended.join()}` : '';
  return `${name} ${status.role}/${status.diskState} ${link} ${formatGeneration(generation.current)} oos ${peer?.outOfSyncBytes ?? 0}${held}${status.splitBrain ? ' SPLIT BRAIN' : ''}${isFrozen ? ' (stands still)' : ''}`;
}
