/**
 * Definitions of resources: from the body of a request to one canonical, fully checked form. What a schema
 * cannot say (a size is a multiple of 4096, a mirror needs both ends) is said here.
 */
import { isDeepStrictEqual } from 'node:util';
import { parseEndpoint } from './endpoint.ts';
import type { Policies, ResourceBody, ResourceDefinition } from './schemas/resource-definition.ts';
import { parseSize } from './size.ts';
import type { Checked, Mistake } from './validation.ts';

/** The limits of the core that policies may narrow against each other; both in milliseconds. */
const defaultPingIntervalMs = 1_000;
const defaultPeerTimeoutMs = 4_000;

/** `nodeName` is this node's own name, which no peer may have. */
export function defineResource(
  name: string,
  body: ResourceBody,
  nodeName: string,
): Checked<ResourceDefinition> {
  const mistakes: Mistake[] = [];
  const mistake = (path: string, message: string) => mistakes.push({ path, message });

  const size = parseSize(body.size);
  if (!size.ok) mistake('size', `"size": ${size.problem}`);
  checkPort(body.nbd?.listen, 'nbd/listen', 0, mistake);
  checkPort(body.replication?.listen, 'replication/listen', 0, mistake);
  if (Buffer.byteLength(body.nbd?.unix ?? '') > 107)
    mistake('nbd/unix', '"nbd/unix" is longer than 107 bytes');
  if (Buffer.byteLength(body.replication?.secret ?? '') > 1024) {
    mistake('replication/secret', '"replication/secret" is longer than 1024 bytes of UTF-8');
  }

  const peer = body.peers?.[0];
  checkPort(peer?.address, 'peers/0/address', 1, mistake);
  if (peer && !body.replication)
    mistake('replication', '"replication" is missing: a resource with a peer needs it');
  if (!peer && body.replication)
    mistake('peers', '"peers" is missing: "replication" needs a peer to mirror to');
  if (peer?.name === nodeName)
    mistake('peers/0/name', `"peers/0/name" is this node's own name, "${nodeName}"`);
  mistakes.push(...policyMistakes(body.policies ?? {}, nodeName, peer?.name ?? null));

  if (mistakes.length > 0 || !size.ok) return { ok: false, mistakes };
  return {
    ok: true,
    value: {
      name,
      sizeBytes: size.sizeBytes,
      backingPath: body.backing?.path ?? null,
      nbd: { listen: body.nbd?.listen ?? null, unix: body.nbd?.unix ?? null, tls: body.nbd?.tls ?? null },
      mirror:
        peer && body.replication
          ? {
              listen: body.replication.listen,
              secret: body.replication.secret,
              protocol: body.replication.protocol ?? 'C',
              peerName: peer.name,
              peerAddress: peer.address,
            }
          : null,
      policies: body.policies ?? {},
    },
  };
}

/** Policies that contradict each other, or speak of a node that has no part in the resource. */
export function policyMistakes(
  policies: Policies,
  nodeName: string,
  peerName: string | null,
): readonly Mistake[] {
  const ping = policies.pingIntervalMs ?? defaultPingIntervalMs;
  const timeout = policies.peerTimeoutMs ?? defaultPeerTimeoutMs;
  const mistakes: Mistake[] = [];
  const loser = /^discard-node-(.*)$/s.exec(policies['after-sb-0pri'] ?? '')?.[1];
  if (loser !== undefined && (peerName === null || (loser !== nodeName && loser !== peerName))) {
    const names = peerName === null ? 'it has no peer' : `they are "${nodeName}" and "${peerName}"`;
    mistakes.push({
      path: 'policies/after-sb-0pri',
      message: `"policies/after-sb-0pri" names "${loser}", which is not one of the two nodes of this resource: ${names}`,
    });
  }
  if (timeout < 2 * ping) {
    mistakes.push({
      path: 'policies/peerTimeoutMs',
      message: `"policies/peerTimeoutMs" (${timeout}) must be at least twice "policies/pingIntervalMs" (${ping}), or a quiet peer counts as lost`,
    });
  }
  const { resyncRateMin: min = 0, resyncRateMax: max = 0 } = policies;
  if (max > 0 && max < 4096) {
    mistakes.push({
      path: 'policies/resyncRateMax',
      message: `"policies/resyncRateMax" (${max}) must be 0 (no limit) or at least 4096 bytes per second`,
    });
  } else if (max > 0 && min > max) {
    mistakes.push({
      path: 'policies/resyncRateMin',
      message: `"policies/resyncRateMin" (${min}) is more than "policies/resyncRateMax" (${max})`,
    });
  }
  return mistakes;
}

/** The keys, as the request body calls them, in which two definitions differ. Values (the secret!) are left out. */
export function differingKeys(a: ResourceDefinition, b: ResourceDefinition): readonly string[] {
  const rows: readonly (readonly [string, (definition: ResourceDefinition) => unknown])[] = [
    ['size', (d) => d.sizeBytes],
    ['backing.path', (d) => d.backingPath],
    ['nbd.listen', (d) => d.nbd.listen],
    ['nbd.unix', (d) => d.nbd.unix],
    ['nbd.tls', (d) => d.nbd.tls],
    ['replication.listen', (d) => d.mirror?.listen],
    ['replication.secret', (d) => d.mirror?.secret],
    ['replication.protocol', (d) => d.mirror?.protocol],
    ['peers[0].name', (d) => d.mirror?.peerName],
    ['peers[0].address', (d) => d.mirror?.peerAddress],
    ['policies', (d) => d.policies],
  ];
  return rows.filter(([, get]) => !isDeepStrictEqual(get(a), get(b))).map(([key]) => key);
}

function checkPort(
  text: string | undefined,
  path: string,
  minimum: number,
  mistake: (path: string, message: string) => void,
): void {
  if (text === undefined) return;
  const endpoint = parseEndpoint(text);
  if (!endpoint || endpoint.port < minimum) {
    mistake(path, `"${path}": the port must be ${minimum} to 65535, as in 127.0.0.1:10809`);
  }
}
