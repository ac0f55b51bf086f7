/** The status of a resource as the API shows it; also what a data plane reports to the main thread. */
import { Type, type Static } from 'typebox';
import { connectionStates, diskStates, replicationStates, roles } from '../../replicator/core/vocabulary.ts';
import { limitReasons } from '../../replicator/core/resync-rate.ts';
import { Bytes, closed, Count, GenerationText, Name } from './common.ts';

export const suspendReasons = [
  'negotiating',
  'peer-lost',
  'generation',
  'no-data',
  'policy',
  'demoting',
] as const;

export const SyncProgress = Type.Object(
  {
    doneBytes: Bytes,
    totalBytes: Bytes,
    bytesPerSecond: Type.Number({ minimum: 0 }),
    etaSeconds: Type.Union([Type.Number({ minimum: 0 }), Type.Null()]),
    rate: Type.Object(
      {
        bytesPerSecond: Type.Union([Type.Number({ minimum: 0 }), Type.Null()], {
          description: 'the rate the resync is held to; null: what link and disks give within the window',
        }),
        reason: Type.Enum([...limitReasons, 'paused'], {
          description:
            'what holds the resync back: nothing (idle), clients, the minimum beside clients, resyncRateMax ' +
            '(limit), a moment of measuring clients without it, a pause',
        }),
      },
      closed,
    ),
    pausedBy: Type.Array(Type.Enum(['this-node', 'peer']), {
      description: 'whose operator has paused it; each resumes its own pause',
    }),
    stalled: Type.Union([Type.String(), Type.Null()], {
      description: 'why the resync does not get on (unreadable blocks by name); null when it does',
    }),
  },
  closed,
);

export const VerifyReport = Type.Object(
  {
    state: Type.Enum(['running', 'finished', 'stopped', 'ended'], {
      description: '"ended": cut short by a lost connection or disk',
    }),
    checkedBytes: Bytes,
    differingBytes: Bytes,
    unreadableBytes: Bytes,
  },
  closed,
);

export const PeerStatus = Type.Object(
  {
    name: Name,
    address: Type.String({ description: 'HOST:PORT of the peer' }),
    connection: Type.Enum([...connectionStates]),
    replication: Type.Enum([...replicationStates]),
    role: Type.Enum([...roles]),
    diskState: Type.Enum([...diskStates]),
    outOfSyncBytes: Bytes,
    sync: Type.Union([SyncProgress, Type.Null()], { description: 'of a resync or an online verify' }),
    verify: Type.Union([VerifyReport, Type.Null()], {
      description: 'the online verify that this node runs, or last ran since it was started',
    }),
    lastError: Type.Union([Type.String(), Type.Null()], {
      description: 'why the connection is not Connected; null when there is nothing to say',
    }),
  },
  closed,
);

/** Why a resource is not started on this node. `attach` tries again. */
export const ResourceFault = Type.Object(
  { code: Type.String(), reason: Type.String(), nextStep: Type.String() },
  closed,
);
export type ResourceFault = Static<typeof ResourceFault>;

export const ResourceStatus = Type.Object(
  {
    name: Name,
    size: Type.Integer({ minimum: 0, description: 'bytes' }),
    role: Type.Enum([...roles]),
    diskState: Type.Enum([...diskStates]),
    suspended: Type.Boolean({ description: 'whether client I/O is held just now' }),
    suspendReasons: Type.Array(Type.Enum([...suspendReasons])),
    nbd: Type.Object(
      {
        uri: Type.String({ description: 'what to hand to QEMU, libnbd or fio' }),
        listen: Type.Union([Type.String(), Type.Null()]),
        unix: Type.Union([Type.String(), Type.Null()]),
        clients: Count,
      },
      closed,
    ),
    peers: Type.Array(PeerStatus),
    generation: Type.Object(
      { current: GenerationText, bitmap: GenerationText, history: Type.Array(GenerationText) },
      closed,
    ),
    splitBrain: Type.Boolean(),
    io: Type.Object(
      {
        ...{ reads: Count, writes: Count, readBytes: Count, writtenBytes: Count, flushes: Count },
        repairedReads: Type.Integer({
          minimum: 0,
          description: 'unreadable pieces of the own disk that were rewritten from the peer',
        }),
      },
      closed,
    ),
    backing: Type.Object({ path: Type.String() }, closed),
    error: Type.Union([ResourceFault, Type.Null()], {
      description: 'why the resource is not started on this node; null when it is',
    }),
  },
  closed,
);
export type ResourceStatus = Static<typeof ResourceStatus>;

export const DecisionRecord = Type.Object(
  {
    kind: Type.Enum(['handshake', 'promotion', 'resync', 'verify', 'peer-loss', 'disk']),
    atMs: Type.Number({ description: 'milliseconds of the node clock' }),
    rule: Type.String({ description: 'the rule that answered' }),
    result: Type.String(),
    inputs: Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean()])),
  },
  closed,
);
export type DecisionRecord = Static<typeof DecisionRecord>;
