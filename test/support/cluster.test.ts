/** The cluster helpers against a stand-in for the node, so that a failing end-to-end test is not theirs to explain. */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { startNode, startPair } from './cluster.ts';
import type { LinkProxy } from './cluster.ts';
import { freePort } from './ports.ts';

const program = [join(import.meta.dirname, 'fake-node.ts')];

test('a node that ends before it is ready fails the start with what it said', async (t) => {
  await t.throwsAsync(startNode(t, { name: 'alpha', program, args: ['--fail'] }), {
    message: /alpha ended before it was ready:[^]*refused to start, as ordered[^]*ended with 2/,
  });
});

test('a node is stopped, killed, frozen and started again with its directory', async (t) => {
  const node = await startNode(t, { name: 'alpha', program });
  t.is(await node.stop(), 0);
  t.throws(() => node.pid, { message: /alpha is not running/ });
  await node.start();
  const first = node.pid;
  await node.restart();
  t.not(node.pid, first);
  t.throws(() => process.kill(first, 0), { code: 'ESRCH' });
  t.true(existsSync(join(node.dir, 'api-token')));

  node.sigstop();
  const slow = node.api('GET', '/v1/resources/r0');
  node.sigcont();
  t.is((await slow).status, 404);

  const exit = node.exited();
  node.sigstop();
  await node.kill9();
  t.is((await exit).signal, 'SIGKILL');
});

test('a pair is mirroring once started; its link can be cut; a role is waited for, not polled', async (t) => {
  const pair = await startPair(t, { sizeBytes: 4096, node: { program }, proxy: startProxy });
  const { alpha, beta } = pair;
  t.is((await alpha.status()).peers[0]?.name, 'beta');

  await alpha.order('promote');
  t.is((await alpha.waitFor((status) => status.role === 'Primary', 'Primary')).role, 'Primary');
  t.is((await beta.status()).role, 'Secondary');

  await pair.cut();
  for (const node of [alpha, beta]) {
    await node.waitFor((status) => status.peers[0]?.connection === 'Connecting', 'link cut');
  }
  const never = alpha.node.waitFor('r0', (status) => status.splitBrain, 'split brain', 1);
  await t.throwsAsync(never, {
    message:
      /^waiting for alpha: split brain: not within 1 ms; last seen: r0 Primary UpToDate; beta: Connecting/,
  });

  const waiting = alpha.waitFor((status) => status.splitBrain, 'split brain');
  await Promise.all([
    alpha.node.kill9(),
    t.throwsAsync(waiting, { message: /^waiting for alpha: split brain: / }),
  ]);
  await alpha.node.restart();
  await alpha.node.call('PUT', '/v1/resources/r0', alpha.definition);
  t.is((await alpha.status()).role, 'Primary', 'the directory was kept');
});

test('a request that has to succeed says what was answered instead', async (t) => {
  const node = await startNode(t, { name: 'alpha', program });
  await t.throwsAsync(node.call('POST', '/v1/resources/r0/promote', { force: true }), {
    message: 'alpha: POST /v1/resources/r0/promote answered 404 {"code":"not-found"}',
  });
});

test('free ports are not given twice, and can be listened on', async (t) => {
  const ports = await Promise.all(Array.from({ length: 20 }, freePort));
  t.is(new Set(ports).size, 20);
  for (const port of ports) {
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
  }
});

async function startProxy(targetPort: number): Promise<LinkProxy> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(targetPort, '127.0.0.1');
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        near.destroy();
        far.destroy();
        sockets.delete(socket);
      });
    }
    near.pipe(far).pipe(near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: address.port,
    cut,
    freeze: cut,
    heal: () => undefined,
    close: () => {
      cut();
      server.close();
    },
  };
}
