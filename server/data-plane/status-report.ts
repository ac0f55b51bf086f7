/** Puts together the status the API shows: what the core says, and what only the server knows (names, addresses). */
import type { Refusal } from '../../replicator/core/refusal.ts';
import type { CoreStatus, PeerStatus } from '../../replicator/core/status.ts';
import { formatGeneration, type DiskState } from '../../replicator/core/vocabulary.ts';
import { resourcePaths } from '../resource-paths.ts';
import { formatEndpoint, parseEndpoint } from '../endpoint.ts';
import type { ResourceDefinition } from '../schemas/resource-definition.ts';
import type { ResourceStatus } from '../schemas/status.ts';

/** Where clients attach, and how many have. */
export interface FrontStatus {
  /** HOST:PORT with the port in use. */
  readonly listen: string | null;
  readonly unix: string | null;
  readonly clients: number;
}

export function runningStatus(
  definition: ResourceDefinition,
  dataDirectory: string,
  core: CoreStatus,
  front: FrontStatus,
): ResourceStatus {
  return {
    ...offlineStatus(definition, dataDirectory, core.diskState, null),
    size: core.sizeBytes,
    role: core.role,
    suspended: core.suspended.length > 0,
    suspendReasons: [...core.suspended],
    nbd: { uri: nbdUri(definition, front), ...front },
    peers: core.peer ? peersOf(definition, core.peer) : [],
    generation: {
      current: formatGeneration(core.generation.current),
      bitmap: formatGeneration(core.generation.bitmap),
      history: core.generation.history.map(formatGeneration),
    },
    splitBrain: core.splitBrain,
    io: { ...core.io },
  };
}

/** Of a resource that is being started (`Attaching`), or could not be. */
export function offlineStatus(
  definition: ResourceDefinition,
  dataDirectory: string,
  diskState: DiskState,
  fault: Refusal | null,
): ResourceStatus {
  const paths = resourcePaths(dataDirectory, definition.name);
  const front = configuredFront(definition, dataDirectory);
  return {
    name: definition.name,
    size: definition.sizeBytes,
    role: 'Secondary',
    diskState,
    suspended: false,
    suspendReasons: [],
    nbd: { uri: nbdUri(definition, front), ...front },
    peers: peersOf(definition, unknownPeer),
    generation: { current: formatGeneration(0n), bitmap: formatGeneration(0n), history: [] },
    splitBrain: false,
    io: { reads: 0, writes: 0, readBytes: 0, writtenBytes: 0, flushes: 0, repairedReads: 0 },
    backing: { path: definition.backingPath ?? paths.backing },
    error: fault === null ? null : { code: fault.code, reason: fault.reason, nextStep: fault.nextStep },
  };
}

/** Where a resource listens as defined; on a socket in the data directory when nothing is said. */
export function configuredFront(definition: ResourceDefinition, dataDirectory: string): FrontStatus {
  const { listen, unix } = definition.nbd;
  if (listen !== null || unix !== null) return { listen, unix, clients: 0 };
  return { listen: null, unix: resourcePaths(dataDirectory, definition.name).nbdSocket, clients: 0 };
}

/** nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH (NBD project, doc/uri.md). */
function nbdUri(definition: ResourceDefinition, front: FrontStatus): string {
  const scheme = definition.nbd.tls?.required === false || definition.nbd.tls === null ? 'nbd' : 'nbds';
  const name = encodeURIComponent(definition.name);
  const endpoint = front.listen === null ? null : parseEndpoint(front.listen);
  if (endpoint) {
    const wildcard = endpoint.host === '0.0.0.0' || endpoint.host === '::';
    return `${scheme}://${formatEndpoint(wildcard ? { ...endpoint, host: '127.0.0.1' } : endpoint)}/${name}`;
  }
  const path = (front.unix ?? '').split('/').map(encodeURIComponent).join('/');
  return `${scheme}+unix:///${name}?socket=${path}`;
}

function peersOf(definition: ResourceDefinition, peer: PeerStatus): ResourceStatus['peers'] {
  const { mirror } = definition;
  if (mirror === null) return [];
  return [
    {
      name: mirror.peerName,
      address: mirror.peerAddress,
      ...peer,
      sync:
        peer.sync === null
          ? null
          : { ...peer.sync, rate: { ...peer.sync.rate }, pausedBy: [...peer.sync.pausedBy] },
      verify: peer.verify === null ? null : { ...peer.verify },
    },
  ];
}

const unknownPeer: PeerStatus = {
  connection: 'StandAlone',
  replication: 'Off',
  role: 'Unknown',
  diskState: 'DUnknown',
  outOfSyncBytes: 0,
  sync: null,
  verify: null,
  lastError: null,
};
