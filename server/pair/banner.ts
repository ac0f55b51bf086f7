/** What the user needs to know once the pair is up: where to attach, what to look at, how to fail over. */
import type { ResourceStatus } from '../schemas/status.ts';
import { formatSize } from '../size.ts';
import { host, resourceName, type PairLayout } from './layout.ts';

export function banner(layout: PairLayout, statuses: readonly ResourceStatus[], lockstep: string): string {
  const nodes = [layout.alpha, layout.beta];
  const rows = nodes.map((node, index) => {
    const role = statuses[index]?.role ?? 'Unknown';
    return `  ${node.name.padEnd(6)} ${role.padEnd(10)} API http://${host}:${node.apiPort}  NBD nbd://${host}:${node.nbdPort}/${resourceName}`;
  });
  const primary = nodes[statuses.findIndex((status) => status.role === 'Primary')];
  const size = formatSize(statuses[0]?.size ?? 0);
  const lines = [`${resourceName}, ${size}, mirrored between alpha and beta:`, '', ...rows, ''];
  if (!primary) {
    return [
      ...lines,
      'No node is Primary, so no client can attach yet. Look, then promote one:',
      `  ${lockstep} status`,
      `  ${lockstep} promote ${resourceName} --api http://${host}:${layout.alpha.apiPort}`,
    ].join('\n');
  }
  const standby = primary === layout.alpha ? layout.beta : layout.alpha;
  const uri = `nbd://${host}:${primary.nbdPort}/${resourceName}`;
  return [
    ...lines,
    'Attach (the first two as root, after "modprobe nbd"):',
    `  nbd-client ${host} ${primary.nbdPort} -N ${resourceName} /dev/nbd0`,
    `  qemu-nbd --connect=/dev/nbd0 --format=raw ${uri}`,
    `  nbdcopy image.raw ${uri}`,
    `  nbdinfo ${uri}`,
    '',
    'See:',
    `  ${lockstep} status`,
    `  ${lockstep} events --api http://${host}:${primary.apiPort}`,
    `  http://${host}:${primary.apiPort}/docs   (token in ${primary.dataDirectory}/api-token)`,
    '',
    `Fail over: hand ${resourceName} to ${standby.name} (with --force, and only then, while ${primary.name} is dead):`,
    `  ${lockstep} failover ${resourceName} --api http://${host}:${standby.apiPort}`,
    '',
    'Ctrl-C stops both nodes; the data stays in ' + `${layout.directory}.`,
  ].join('\n');
}
