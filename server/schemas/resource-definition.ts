/** What defines a resource on one node: the body of PUT, what PATCH may change, and what the node store keeps. */
import { Type, type Static } from 'typebox';
import {
  afterSb0priWords,
  afterSb1priWords,
  afterSb2priWords,
} from '../../replicator/core/after-split-brain.ts';
import { protocols } from '../../replicator/core/vocabulary.ts';
import { AbsolutePath, closed, EndpointText, Name, SizeInput } from './common.ts';

const timer = (what: string, minimum: number, maximum: number) =>
  Type.Optional(
    Type.Integer({ minimum, maximum, description: `${minimum} to ${maximum} milliseconds: ${what}` }),
  );

const window = (what: string) =>
  Type.Optional(
    Type.Integer({
      minimum: 4096,
      maximum: 256 * 1024 ** 2,
      description: `4096 to 268435456 bytes: ${what}`,
    }),
  );

const quoted = (words: readonly string[]): string => words.map((word) => `"${word}"`).join(', ');

/** All optional; the defaults are those of the replication core (core/options.ts). */
export const Policies = Type.Object(
  {
    onPeerLoss: Type.Optional(
      Type.Enum(['continue', 'suspend'], {
        description:
          '"continue" (alone, once that is recorded) or "suspend" (hold I/O until the peer is back or promote is forced)',
      }),
    ),
    'after-sb-0pri': Type.Optional(
      Type.Union([Type.Enum([...afterSb0priWords]), Type.TemplateLiteral('discard-node-${string}')], {
        description:
          `after a split brain, with no Primary left: ${quoted(afterSb0priWords)} or "discard-node-NAME" ` +
          '("discard-local" and "discard-remote" mean another node on each side: name the node instead)',
      }),
    ),
    'after-sb-1pri': Type.Optional(
      Type.Enum([...afterSb1priWords], {
        description: `after a split brain, with one Primary left: ${quoted(afterSb1priWords)}`,
      }),
    ),
    'after-sb-2pri': Type.Optional(
      Type.Enum([...afterSb2priWords], {
        description: `after a split brain, with two Primaries left: ${quoted(afterSb2priWords)}`,
      }),
    ),
    activityLogExtents: Type.Optional(
      Type.Integer({
        minimum: 7,
        maximum: 65534,
        description: '7 to 65534: active extents of 4 MiB, which is what a crashed Primary resyncs',
      }),
    ),
    noDataTimeoutMs: timer('how long I/O waits for an UpToDate copy before it fails', 0, 86_400_000),
    pingIntervalMs: timer('a silent peer is asked for a sign of life this often', 50, 600_000),
    peerTimeoutMs: timer('nothing heard for this long and the peer is lost', 100, 600_000),
    ackTimeoutMs: timer('a mirrored request unanswered for this long and the peer is lost', 100, 3_600_000),
    handshakeTimeoutMs: timer('a handshake longer than this is begun anew', 100, 600_000),
    connectIntervalMs: timer('pause between two attempts to reach the peer', 50, 600_000),
    probeTimeoutMs: timer('how long a lost peer is given to say whether it took over', 50, 60_000),
    resyncWindowBytes: window('resync in flight at most, and while no client is active'),
    resyncWindowBusyBytes: window('resync in flight beside clients until it is known what they stand'),
    resyncRateMin: Type.Optional(
      Type.Integer({
        minimum: 4096,
        maximum: 2 ** 40,
        description: '4096 bytes to 1 TiB per second: what a resync takes however slow clients get',
      }),
    ),
    resyncRateMax: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 2 ** 40,
        description:
          '0 (no limit, the default) or 4096 bytes to 1 TiB per second: what a resync never exceeds',
      }),
    ),
    resyncStallMs: timer('a resync that gets nowhere for this long is begun anew', 1_000, 3_600_000),
    checksumResync: Type.Optional(
      Type.Enum(['always', 'after-crash', 'never'], {
        description:
          '"always", "after-crash" (the default) or "never": when a resync to this node compares hashes and copies only what differs',
      }),
    ),
  },
  closed,
);
export type Policies = Static<typeof Policies>;

export const NbdTls = Type.Object(
  {
    certFile: AbsolutePath,
    keyFile: AbsolutePath,
    caFile: Type.Optional(AbsolutePath),
    required: Type.Optional(
      Type.Boolean({ description: 'true (refuse clients without TLS, the default) or false' }),
    ),
  },
  { ...closed, description: 'PEM files; with caFile clients must show a certificate that it signed' },
);
export type NbdTls = Static<typeof NbdTls>;

export const Nbd = Type.Object(
  {
    listen: Type.Optional(EndpointText),
    unix: Type.Optional(
      Type.String({
        pattern: '^/[^\\u0000]+$',
        maxLength: 107,
        description:
          'an absolute path of at most 107 bytes (the kernel takes no longer one for a Unix socket)',
      }),
    ),
    tls: Type.Optional(NbdTls),
  },
  { ...closed, description: 'where NBD clients attach; a Unix socket in the data directory when empty' },
);

export const Replication = Type.Object(
  {
    listen: EndpointText,
    secret: Type.String({
      minLength: 1,
      maxLength: 1024,
      description: 'a secret of 1 to 1024 bytes, the same on both nodes; stored, never shown again',
    }),
    protocol: Type.Optional(
      Type.Enum([...protocols], {
        description:
          '"C" (acknowledged by both disks, the default), "B" (received by the peer) or "A" (sent)',
      }),
    ),
  },
  closed,
);

export const Peer = Type.Object({ name: Name, address: EndpointText }, closed);

export const ResourceBody = Type.Object(
  {
    size: SizeInput,
    backing: Type.Optional(Type.Object({ path: AbsolutePath }, closed)),
    nbd: Type.Optional(Nbd),
    replication: Type.Optional(Replication),
    peers: Type.Optional(
      Type.Array(Peer, {
        maxItems: 1,
        description: 'an array of at most one peer: a resource is mirrored by a pair of nodes, not by more',
      }),
    ),
    policies: Type.Optional(Policies),
  },
  { ...closed, description: 'an object that defines the resource' },
);
export type ResourceBody = Static<typeof ResourceBody>;

/** What PATCH changes: the named policies, others stay as they are. */
export const ResourceChange = Type.Object({ policies: Policies }, { ...closed, description: 'an object' });
export type ResourceChange = Static<typeof ResourceChange>;

export const Protocol = Type.Enum([...protocols]);

/** A checked definition in one canonical form: what is compared, stored and sent to a data plane. */
export const ResourceDefinition = Type.Object(
  {
    name: Name,
    sizeBytes: Type.Integer({ minimum: 4096, multipleOf: 4096 }),
    backingPath: Type.Union([AbsolutePath, Type.Null()]),
    nbd: Type.Object(
      {
        listen: Type.Union([EndpointText, Type.Null()]),
        unix: Type.Union([AbsolutePath, Type.Null()]),
        tls: Type.Union([NbdTls, Type.Null()]),
      },
      closed,
    ),
    mirror: Type.Union([
      Type.Null(),
      Type.Object(
        {
          listen: EndpointText,
          secret: Type.String({ minLength: 1 }),
          protocol: Protocol,
          peerName: Name,
          peerAddress: EndpointText,
        },
        closed,
      ),
    ]),
    policies: Policies,
  },
  closed,
);
export type ResourceDefinition = Static<typeof ResourceDefinition>;
