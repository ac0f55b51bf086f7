/** A history of two nodes whose definitions do not fit together: they refuse each other, and nothing is copied. */
import type { Cluster } from './cluster.ts';

export function runMismatch(cluster: Cluster): void {
  const { world, nodes, client } = cluster;
  const [alpha, beta] = nodes;
  cluster.start();
  const isApart = (): boolean => nodes.every((node) => node.status()?.peer?.connection === 'StandAlone');
  world.run(10_000, isApart);
  if (!isApart()) return world.violation('refusal', `they do not refuse each other: ${cluster.describe()}`);
  cluster.forced = true;
  alpha.command({ kind: 'promote', force: true, dryRun: false });
  world.run(world.nowMs + 5_000);
  client.stop();
  world.run(world.nowMs + 10_000, () => client.isIdle);
  if (!isApart())
    return world.violation('refusal', `they no longer refuse each other: ${cluster.describe()}`);
  if (!client.isIdle) return world.violation('liveness', 'a request never ends');
  if (client.answered === 0) return world.violation('liveness', 'nothing was served alone');
  if (beta.disk.visible.some((stamp) => stamp !== 0))
    world.violation('refusal', 'something was copied all the same');
}
