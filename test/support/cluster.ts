/** Two real nodes that mirror one resource, with proxies on the link between them if a test wants to cut it. */
import type { ExecutionContext } from 'ava';
import { startNode } from './node-process.ts';
import type { NodeOptions, NodeProcess } from './node-process.ts';
import { freePort } from './ports.ts';
import { isMirroring } from './status.ts';
import type { ResourceStatus } from './status.ts';

export { startNode } from './node-process.ts';
export type { ApiAnswer, NodeOptions, NodeProcess } from './node-process.ts';
export { describeStatus, isMirroring, onlyPeer } from './status.ts';
export type { PeerStatus, ResourceStatus } from './status.ts';

/** What a pair asks of a proxy; tcp-proxy.ts is one. */
export interface LinkProxy {
  /** Where it listens on the loopback address. */
  readonly port: number;
  /** Connections are reset, new ones refused. */
  cut(): unknown;
  /** Nothing gets through, connections stay open. */
  freeze(): unknown;
  /** Back to forwarding. */
  heal(): unknown;
  close(): unknown;
}

export interface PairOptions {
  readonly sizeBytes: number;
  /** Puts a proxy before each node's replication port. */
  readonly proxy?: (targetPort: number) => Promise<LinkProxy>;
  readonly policies?: Readonly<Record<string, unknown>>;
  readonly protocol?: 'A' | 'B' | 'C';
  readonly resource?: string;
  /** Backing paths of alpha and beta; default: files in the data directories. */
  readonly backing?: readonly [string, string];
  /** Further options for both nodes. */
  readonly node?: Omit<NodeOptions, 'name' | 'dir'>;
  /** Environments of alpha and beta, beside that of `node`. */
  readonly env?: readonly [Readonly<Record<string, string>>, Readonly<Record<string, string>>];
  /** What beta's definition has otherwise than alpha's. */
  readonly betaOtherwise?: Readonly<Record<string, unknown>>;
  /** Do not wait until both copies are good. */
  readonly raw?: boolean;
}

export interface Pair {
  readonly alpha: NodePeer;
  readonly beta: NodePeer;
  readonly resource: string;
  /** The link between the nodes, both directions; rejects without proxies. */
  cut(): Promise<void>;
  freeze(): Promise<void>;
  heal(): Promise<void>;
  /** Resolves when both nodes say that both copies are good and connected. */
  mirroring(): Promise<void>;
}

/** A node of a pair, with what is its own in it. */
export interface NodePeer {
  readonly node: NodeProcess;
  /** On the loopback address. The export's name is the resource's. */
  readonly nbdPort: number;
  readonly replicationPort: number;
  /** What was PUT on this node. */
  readonly definition: Readonly<Record<string, unknown>>;
  status(): Promise<ResourceStatus>;
  waitFor(predicate: (status: ResourceStatus) => boolean, what: string): Promise<ResourceStatus>;
  /** POST /v1/resources/{r}/VERB that has to succeed; `verb` may carry a query. */
  order(verb: string, body?: unknown): Promise<unknown>;
}

/** Both are Secondary, connected and UpToDate when this resolves. Everything ends with the test. */
export async function startPair(t: ExecutionContext, options: PairOptions): Promise<Pair> {
  const resource = options.resource ?? 'r0';
  const [alphaNode, betaNode] = await Promise.all([
    startNode(t, { ...options.node, name: 'alpha', env: { ...options.node?.env, ...options.env?.[0] } }),
    startNode(t, { ...options.node, name: 'beta', env: { ...options.node?.env, ...options.env?.[1] } }),
  ]);
  const ports = {
    alpha: { nbd: await freePort(), replication: await freePort() },
    beta: { nbd: await freePort(), replication: await freePort() },
  };
  const proxies: LinkProxy[] = [];
  const reachedAt = async (port: number): Promise<number> => {
    if (options.proxy === undefined) return port;
    const proxy = await options.proxy(port);
    t.teardown(() => proxy.close());
    proxies.push(proxy);
    return proxy.port;
  };
  const alphaReachedAt = await reachedAt(ports.alpha.replication);
  const betaReachedAt = await reachedAt(ports.beta.replication);

  const define = async (
    node: NodeProcess,
    own: { nbd: number; replication: number },
    peer: { name: string; port: number },
    backing: string | undefined,
    otherwise: Readonly<Record<string, unknown>>,
  ): Promise<NodePeer> => {
    const definition = {
      size: options.sizeBytes,
      ...(backing === undefined ? {} : { backing: { path: backing } }),
      nbd: { listen: `127.0.0.1:${own.nbd}` },
      replication: {
        listen: `127.0.0.1:${own.replication}`,
        secret: 'only for this test',
        ...(options.protocol === undefined ? {} : { protocol: options.protocol }),
      },
      peers: [{ name: peer.name, address: `127.0.0.1:${peer.port}` }],
      ...(options.policies === undefined ? {} : { policies: options.policies }),
      ...otherwise,
    };
    await node.call('PUT', `/v1/resources/${resource}`, definition);
    return {
      node,
      nbdPort: own.nbd,
      replicationPort: own.replication,
      definition,
      status: () => node.status(resource),
      waitFor: (predicate, what) => node.waitFor(resource, predicate, what),
      order: (verb, body) => node.call('POST', `/v1/resources/${resource}/${verb}`, body),
    };
  };
  const [alpha, beta] = await Promise.all([
    define(alphaNode, ports.alpha, { name: 'beta', port: betaReachedAt }, options.backing?.[0], {}),
    define(
      betaNode,
      ports.beta,
      { name: 'alpha', port: alphaReachedAt },
      options.backing?.[1],
      options.betaOtherwise ?? {},
    ),
  ]);

  const onLink = async (act: (proxy: LinkProxy) => unknown): Promise<void> => {
    if (proxies.length === 0) throw new Error('this pair has no proxies');
    await Promise.all(proxies.map(act));
  };
  const pair: Pair = {
    alpha,
    beta,
    resource,
    cut: () => onLink((proxy) => proxy.cut()),
    freeze: () => onLink((proxy) => proxy.freeze()),
    heal: () => onLink((proxy) => proxy.heal()),
    mirroring: async () => {
      await Promise.all([
        alpha.waitFor(isMirroring, 'both copies UpToDate and connected'),
        beta.waitFor(isMirroring, 'both copies UpToDate and connected'),
      ]);
    },
  };
  if (options.raw !== true) await pair.mirroring();
  return pair;
}
