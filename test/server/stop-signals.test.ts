/** How a node takes the signals that ask it to stop: one wish may arrive as two signals. */
import test from 'ava';
import { startNode } from '../support/cluster.ts';

test('two signals of one wish, as npm and the terminal send them, stop a node in order', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  await node.call('PUT', '/v1/resources/r0', { size: '1MiB' });
  const exited = node.exited();
  process.kill(node.pid, 'SIGINT');
  process.kill(node.pid, 'SIGTERM');
  t.deepEqual(await exited, { code: 0, signal: null });
  t.regex(node.output, /"msg":"stopped"/);
});
