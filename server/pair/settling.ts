/** Follows both nodes' events until the pair is healthy, or until it is clear that it will not become so by itself. */
import { Type } from 'typebox';
import { expectBody, type ApiClient } from '../cli/api-client.ts';
import { statusLine } from '../cli/status-tree.ts';
import { ResourceStatus } from '../schemas/status.ts';
import { checker } from '../validation.ts';
import { resourceName } from './layout.ts';

const checkChange = checker(Type.Object({ resource: Type.String(), status: Type.Optional(ResourceStatus) }));

export type Settled =
  | { readonly kind: 'healthy'; readonly statuses: readonly ResourceStatus[] }
  /** Needs a decision, or a repair. */
  | { readonly kind: 'stuck'; readonly statuses: readonly ResourceStatus[]; readonly why: string };

/** `say` gets a line per change. Throws ApiFailure when a node goes away. */
export async function waitUntilSettled(
  clients: readonly ApiClient[],
  say: (line: string) => void,
): Promise<Settled> {
  const latest = new Map<ApiClient, ResourceStatus>();
  const abort = new AbortController();
  try {
    return await new Promise<Settled>((resolve, reject) => {
      const changed = (client: ApiClient, status: ResourceStatus) => {
        const before = latest.get(client);
        latest.set(client, status);
        const line = statusLine(status);
        if (!before || statusLine(before) !== line) say(`${client.target.name ?? ''}: ${line}`);
        const statuses = clients.map((each) => latest.get(each)).filter((each) => each !== undefined);
        if (statuses.length === clients.length) {
          const settled = judge(statuses);
          if (settled) resolve(settled);
        }
      };
      for (const client of clients) {
        follow(client, abort.signal, (status) => changed(client, status)).catch(reject);
      }
    });
  } finally {
    abort.abort();
  }
}

/** Null while things may still change by themselves. */
export function judge(statuses: readonly ResourceStatus[]): Settled | null {
  const fault = statuses.find((status) => status.error !== null)?.error;
  if (fault) return { kind: 'stuck', statuses, why: `${fault.reason} ${fault.nextStep}` };
  if (statuses.some((status) => status.splitBrain)) {
    return { kind: 'stuck', statuses, why: 'split brain: both nodes have written apart' };
  }
  const standAlone = statuses
    .flatMap((status) => status.peers)
    .find((peer) => peer.connection === 'StandAlone');
  if (standAlone) {
    return {
      kind: 'stuck',
      statuses,
      why: standAlone.lastError ?? 'the nodes are StandAlone: they do not connect',
    };
  }
  const healthy = statuses.every(
    (status) =>
      status.diskState === 'UpToDate' &&
      status.peers.every((peer) => peer.connection === 'Connected' && peer.diskState === 'UpToDate'),
  );
  return healthy ? { kind: 'healthy', statuses } : null;
}

async function follow(
  client: ApiClient,
  signal: AbortSignal,
  changed: (status: ResourceStatus) => void,
): Promise<void> {
  try {
    for await (const { data } of client.events(signal)) {
      const { resource, status } = expectBody(checkChange(JSON.parse(data)));
      if (resource === resourceName && status) changed(status);
    }
  } catch (error) {
    // Ours: the wait is over.
    if (signal.aborted) return;
    throw error;
  }
  if (!signal.aborted) throw new Error(`${client.target.name ?? 'a node'} ended its event stream`);
}
