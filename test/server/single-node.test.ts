/** A real node with real resources: defined over the API, written over NBD, there again after a restart. */
import { once } from 'node:events';
import { existsSync, renameSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { connectNbd } from '../../nbd/client.ts';
import { startNode } from '../support/node-process.ts';
import { freePort } from '../support/ports.ts';
import { temporaryDirectory } from '../support/test-app.ts';

const sizeBytes = 1024 ** 2;

test.serial(
  'an unmirrored resource is Primary at once and keeps its data over SIGTERM and kill -9',
  async (t) => {
    const environment = { XDG_RUNTIME_DIR: temporaryDirectory(t) };
    const node = await startNode(t, { name: 'alpha', env: environment });
    const path = join(node.dir, 'resources', 'r0', 'nbd.sock');
    t.is((await node.api('PUT', '/v1/resources/r0', { size: sizeBytes })).status, 201);
    t.like(await node.status('r0'), { role: 'Primary', diskState: 'UpToDate', size: sizeBytes });

    const data = Buffer.alloc(4096, 'lockstep');
    const client = await connectNbd({ address: { path }, exportName: 'r0' });
    await client.write(8192, data);
    await client.flush();
    await node.waitFor('r0', (status) => status.nbd.clients === 1, 'one client');
    t.like(await node.api('DELETE', '/v1/resources/r0'), { status: 409, body: { code: 'device-in-use' } });
    await client.disconnect();
    await node.waitFor('r0', (status) => status.nbd.clients === 0, 'no client');

    t.is(await node.stop(), 0);
    await node.start();
    for (const end of ['after SIGTERM', 'after kill -9']) {
      t.like(await node.status('r0'), { role: 'Primary' }, end);
      const reader = await connectNbd({ address: { path }, exportName: 'r0' });
      t.deepEqual(Buffer.from(await reader.read(8192, 4096)), data, end);
      await reader.disconnect();
      await node.restart();
    }
    const image = join(node.dir, 'resources', 'r0', 'data.img');
    t.is((await node.api('DELETE', '/v1/resources/r0?wipe=true')).status, 200);
    t.false(existsSync(image));
  },
);

test.serial('half a request to the control API does not keep a node from stopping cleanly', async (t) => {
  const node = await startNode(t, { name: 'alpha', env: { XDG_RUNTIME_DIR: temporaryDirectory(t) } });
  await node.call('PUT', '/v1/resources/r0', { size: sizeBytes });
  const { hostname, port } = new URL(node.apiUrl);
  const half = connect(Number(port), hostname);
  t.teardown(() => half.destroy());
  half.on('error', () => undefined);
  await once(half, 'connect');
  half.write('GET /v1/node HTTP/1.1\r\nHost: ');
  // Behind it on another connection: what came before is with the node by then.
  t.is((await node.api('GET', '/v1/node')).status, 200);
  t.is(await node.stop(), 0);
});

test.serial(
  'a missing backing file and a taken port stop their resource only; attach starts it when repaired',
  async (t) => {
    const environment = { XDG_RUNTIME_DIR: temporaryDirectory(t) };
    const node = await startNode(t, { name: 'alpha', env: environment });
    const listen = `127.0.0.1:${await freePort()}`;
    await node.call('PUT', '/v1/resources/good', { size: sizeBytes, nbd: { listen } });
    await node.call('PUT', '/v1/resources/lost', { size: sizeBytes });
    t.like(await node.api('PUT', '/v1/resources/clash', { size: sizeBytes, nbd: { listen } }), {
      status: 409,
      body: { code: 'address-in-use' },
    });
    t.is((await node.api('GET', '/v1/resources/clash')).status, 404);

    await node.kill9();
    const image = join(node.dir, 'resources', 'lost', 'data.img');
    renameSync(image, `${image}.away`);
    await node.start();
    t.like((await node.api('GET', '/v1/resources/lost')).body, {
      diskState: 'Diskless',
      error: { code: 'backing-missing' },
    });
    t.like(await node.status('good'), { role: 'Primary' });
    t.like(await node.api('POST', '/v1/resources/lost/promote'), {
      status: 409,
      body: { code: 'backing-missing' },
    });
    t.like(await node.api('POST', '/v1/resources/lost/attach'), {
      status: 409,
      body: { code: 'backing-missing' },
    });
    renameSync(`${image}.away`, image);
    t.is((await node.api('POST', '/v1/resources/lost/attach')).status, 200);
    t.like((await node.api('GET', '/v1/resources/lost')).body, {
      role: 'Primary',
      diskState: 'UpToDate',
      error: null,
    });
  },
);

test.serial(
  'a definition that was refused leaves nothing that stands in the way of another size',
  async (t) => {
    const node = await startNode(t, { name: 'alpha', env: { XDG_RUNTIME_DIR: temporaryDirectory(t) } });
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    t.teardown(() => taken.close());
    const address = taken.address();
    if (address === null || typeof address === 'string') throw new Error('it listens on a port');
    const mirrored = (size: number, listen: string) =>
      node.api('PUT', '/v1/resources/r0', {
        size,
        replication: { listen, secret: 'a secret' },
        peers: [{ name: 'beta', address: '127.0.0.1:1' }],
      });
    t.like(await mirrored(64 * sizeBytes, `127.0.0.1:${address.port}`), {
      status: 409,
      body: { code: 'address-in-use' },
    });
    t.false(existsSync(join(node.dir, 'resources', 'r0')));
    // An address of the documentation (RFC 5737), which no machine has.
    t.like(await mirrored(64 * sizeBytes, '192.0.2.1:0'), {
      status: 409,
      body: { code: 'address-unusable', nextStep: 'Choose an address of this machine.' },
    });
    t.like(await mirrored(sizeBytes, '127.0.0.1:0'), { status: 201 });
  },
);
