/** GET /metrics: the Prometheus text format, measured at each scrape. */
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import { Type } from 'typebox';
import { NoQuery } from '../schemas/answers.ts';
import { connectionStates, diskStates, replicationStates } from '../../replicator/core/vocabulary.ts';
import type { ResourceStatus } from '../schemas/status.ts';
import { problemAnswer, type Router } from './common.ts';
import type { NodeRouteOptions } from './node.ts';

export function metricsRoutes(app: Router, { catalog, node }: NodeRouteOptions, done: () => void): void {
  // A registry of its own: two nodes in one process (tests) must not share theirs.
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: 'lockstep_node_info',
    help: 'Always 1; the labels name the node.',
    labelNames: ['node', 'version'],
    registers: [registry],
  }).set({ node: node.name, version: node.version }, 1);
  const record = resourceMetrics(registry);

  app.get(
    '/metrics',
    {
      schema: {
        tags: ['node'],
        operationId: 'getMetrics',
        summary: 'Metrics in the Prometheus text format',
        querystring: NoQuery,
        response: {
          200: { description: 'metrics', content: { 'text/plain': { schema: Type.String() } } },
          default: problemAnswer,
        },
      },
    },
    async (_request, reply) => {
      record(await catalog.list());
      return reply
        .type(registry.contentType)
        .serializer(String)
        .send(await registry.metrics());
    },
  );
  done();
}

type Read = (status: ResourceStatus) => number;
type PeerStatus = ResourceStatus['peers'][number];

/** One line per metric; answers what puts a list of statuses into them. */
function resourceMetrics(registry: Registry): (all: readonly ResourceStatus[]) => void {
  const recorders: ((status: ResourceStatus) => void)[] = [];
  const metrics: { reset(): void }[] = [];

  const gauge = (name: string, help: string, read: Read) => {
    const metric = new Gauge({ name, help, labelNames: ['resource'], registers: [registry] });
    metrics.push(metric);
    recorders.push((status) => metric.set({ resource: status.name }, read(status)));
  };
  const counter = (name: string, help: string, read: Read) => {
    const metric = new Counter({ name, help, labelNames: ['resource'], registers: [registry] });
    metrics.push(metric);
    recorders.push((status) => metric.inc({ resource: status.name }, read(status)));
  };
  const peerGauge = (name: string, help: string, read: (peer: PeerStatus) => number) => {
    const metric = new Gauge({ name, help, labelNames: ['resource', 'peer'], registers: [registry] });
    metrics.push(metric);
    recorders.push((status) => {
      for (const peer of status.peers) metric.set({ resource: status.name, peer: peer.name }, read(peer));
    });
  };
  /** One series per state, 1 for the present one: an alert can match on the name of a state. */
  const states = <S extends string>(
    name: string,
    help: string,
    all: readonly S[],
    read: (status: ResourceStatus) => S | undefined,
  ) => {
    const metric = new Gauge({ name, help, labelNames: ['resource', 'state'], registers: [registry] });
    metrics.push(metric);
    recorders.push((status) => {
      const present = read(status);
      if (present === undefined) return;
      for (const state of all) metric.set({ resource: status.name, state }, state === present ? 1 : 0);
    });
  };

  gauge('lockstep_resource_size_bytes', 'Size of the device.', (s) => s.size);
  gauge('lockstep_resource_primary', '1 while this node is Primary.', (s) => Number(s.role === 'Primary'));
  gauge('lockstep_resource_started', '0 when the resource could not be started.', (s) =>
    Number(s.error === null),
  );
  gauge('lockstep_resource_suspended', '1 while client I/O is held.', (s) => Number(s.suspended));
  gauge('lockstep_resource_split_brain', '1 when both sides have written apart.', (s) =>
    Number(s.splitBrain),
  );
  gauge('lockstep_resource_clients', 'NBD clients attached.', (s) => s.nbd.clients);
  states('lockstep_resource_disk_state', 'State of the own disk.', diskStates, (s) => s.diskState);
  states(
    'lockstep_peer_connection',
    'Connection to the peer.',
    connectionStates,
    (s) => s.peers[0]?.connection,
  );
  states(
    'lockstep_peer_replication',
    'Replication to the peer.',
    replicationStates,
    (s) => s.peers[0]?.replication,
  );
  states(
    'lockstep_peer_disk_state',
    'State of the disk of the peer.',
    diskStates,
    (s) => s.peers[0]?.diskState,
  );
  peerGauge(
    'lockstep_peer_out_of_sync_bytes',
    'Bytes the copies differ in, at most.',
    (p) => p.outOfSyncBytes,
  );
  peerGauge(
    'lockstep_peer_sync_done_bytes',
    'Progress of the resync under way.',
    (p) => p.sync?.doneBytes ?? 0,
  );
  peerGauge(
    'lockstep_peer_sync_total_bytes',
    'Extent of the resync under way.',
    (p) => p.sync?.totalBytes ?? 0,
  );
  peerGauge(
    'lockstep_peer_verify_differing_bytes',
    'Found to differ by the last online verify.',
    (p) => p.verify?.differingBytes ?? 0,
  );
  counter('lockstep_resource_reads_total', 'Reads of clients.', (s) => s.io.reads);
  counter('lockstep_resource_writes_total', 'Writes of clients.', (s) => s.io.writes);
  counter('lockstep_resource_read_bytes_total', 'Bytes clients read.', (s) => s.io.readBytes);
  counter('lockstep_resource_written_bytes_total', 'Bytes clients wrote.', (s) => s.io.writtenBytes);
  counter('lockstep_resource_flushes_total', 'Flushes of clients.', (s) => s.io.flushes);
  counter(
    'lockstep_resource_repaired_reads_total',
    'Unreadable pieces of the own disk that were rewritten from the peer.',
    (s) => s.io.repairedReads,
  );

  return (all) => {
    // The data plane counts; these only show its totals, and forget resources that are gone.
    for (const metric of metrics) metric.reset();
    for (const status of all) for (const recorder of recorders) recorder(status);
  };
}
