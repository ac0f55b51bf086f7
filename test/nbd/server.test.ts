/** The server as its owner sees it: listening, counting, disconnecting (fencing), closing. */
import { lstat, readdir, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import test from 'ava';
import { connectNbd, NbdClosedError } from '../../nbd/client.ts';
import { createNbdServer } from '../../nbd/server.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { serveDevice, sourceOf, temporaryDirectory } from '../support/nbd-server.ts';
import { RawClient, request } from '../support/raw-client.ts';
import { runTool } from '../support/tools.ts';

const [WRITE, FLUSH] = [1, 3];

test('clients are counted from their transmission phase to their end', async (t) => {
  const counts: number[] = [];
  const { server, tcp } = await serveDevice(t, { onClientCount: (count) => counts.push(count) });
  const silent = await RawClient.connect(t, tcp);
  await silent.receive(18);
  t.is(server.clientCount, 0);
  const first = await connectNbd({ address: tcp });
  const second = await connectNbd({ address: tcp });
  t.is(server.clientCount, 2);
  await first.disconnect();
  second.destroy();
  await second.closed;
  await server.disconnectClients();
  t.deepEqual(counts, [1, 2, 1, 0]);
});

test('after disconnectClients no request is executed that was not at the device', async (t) => {
  const { server, tcp, device } = await serveDevice(t, { limits: { maxRequestsInFlight: 2 } });
  device.hold = () => true;
  const client = await RawClient.inTransmission(t, tcp);
  const writes = [1, 2, 3, 4, 5].map((cookie) => request(WRITE, cookie, cookie, 1, Buffer.from([cookie])));
  client.send(Buffer.concat([...writes, request(WRITE, 6, 6, 100, Buffer.alloc(50))]));
  await device.arrived(2);
  const gone = server.disconnectClients();
  client.send(Buffer.alloc(50));
  const [first, second] = device.held;
  device.hold = null;
  first?.release();
  second?.fail('ESHUTDOWN');
  t.is(
    (await client.receive(32)).toString('hex'),
    ['67446698' + '00000000' + '0000000000000001', '67446698' + '0000006c' + '0000000000000002'].join(''),
  );
  await client.closed;
  await gone;
  t.is(device.calls.length, 2);
  t.is(server.clientCount, 0);
});

test('disconnectClients of one export leaves the others', async (t) => {
  const { server, tcp } = await serveDevice(t);
  const [one, other] = await Promise.all([
    connectNbd({ address: tcp, exportName: '' }),
    connectNbd({ address: tcp, exportName: 'ro' }),
  ]);
  await server.disconnectClients('r0');
  await one.closed;
  await t.throwsAsync(one.flush(), { instanceOf: NbdClosedError });
  await other.flush();
  await other.disconnect();
});

test('disconnectClients called from within a request stops the rest of its chunk', async (t) => {
  const { server, tcp, device } = await serveDevice(t);
  const gone: Promise<void>[] = [];
  device.fail = () => {
    gone.push(server.disconnectClients());
    return null;
  };
  const client = await RawClient.inTransmission(t, tcp);
  client.send(Buffer.concat([1, 2, 3].map((cookie) => request(FLUSH, cookie, 0, 0))));
  t.is((await client.receive(1000)).length, 16);
  await client.closed;
  await Promise.all(gone);
  t.is(device.calls.length, 1);
});

for (const [title, last] of [
  ['reads nothing', Buffer.alloc(0)],
  ['has taken leave and reads nothing', request(2, 0, 0, 0)],
] as const)
  test(`disconnectClients does not wait for a client that ${title}`, async (t) => {
    const limits = { lingerMs: 20, maxReplyBytes: 128 * 1024 * 1024 };
    const { server, tcp, device } = await serveDevice(t, { limits });
    const deaf = await RawClient.inTransmission(t, tcp, { allowHalfOpen: true });
    deaf.socket.pause();
    const reads = Array.from({ length: 16 }, (_, cookie) => request(0, cookie, 0, 4 * 1024 * 1024));
    deaf.send(Buffer.concat([...reads, last]));
    await device.arrived(16);
    await server.disconnectClients();
    t.is(server.clientCount, 0);
  });

for (const [title, goneFirst] of [
  ['of clients attached', false],
  ['of clients gone before', true],
] as const)
  test(`disconnectClients waits until the device has completed what it was given ${title}`, async (t) => {
    const left: (() => void)[] = [];
    const { server, tcp, device } = await serveDevice(t, {
      onClientCount: (count) => {
        if (count === 0) for (const resolve of left) resolve();
      },
    });
    const clientLeft = new Promise<void>((resolve) => left.push(resolve));
    device.hold = () => true;
    const client = await RawClient.inTransmission(t, tcp);
    client.send(request(WRITE, 1, 0, 1, Buffer.from('x')));
    await device.arrived(1);
    let done = false;
    const disconnect = (): Promise<void> =>
      server.disconnectClients().then(() => {
        done = true;
      });
    const early = goneFirst ? null : disconnect();
    client.socket.resetAndDestroy();
    await clientLeft;
    const gone = early ?? disconnect();
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.false(done);
    device.failAll('ESHUTDOWN');
    await gone;
    t.true(done);
  });

test('a client in its handshake when the role changed is refused at GO', async (t) => {
  const device = new MemoryDevice(1024 * 1024);
  let primary = true;
  const source = sourceOf(device);
  const { server, tcp } = await serveDevice(t, {
    device,
    source: { ...source, open: (name) => (primary ? source.open(name) : { kind: 'refused', message: 'no' }) },
  });
  const client = await RawClient.connect(t, tcp);
  await client.receive(18);
  primary = false;
  await server.disconnectClients();
  await t.throwsAsync(connectNbd({ address: tcp }), { message: 'no' });
});

test('close ends every connection and stops listening', async (t) => {
  const { server, tcp, socketPath } = await serveDevice(t);
  const client = await connectNbd({ address: tcp });
  const silent = await RawClient.connect(t, { path: socketPath });
  await server.close();
  await Promise.all([client.closed, silent.closed]);
  await t.throwsAsync(connectNbd({ address: tcp }), { instanceOf: NbdClosedError });
  await t.throwsAsync(stat(socketPath), { code: 'ENOENT' });
});

test('a port in use is told', async (t) => {
  const { server, tcp } = await serveDevice(t);
  await t.throwsAsync(server.listenTcp('127.0.0.1', tcp.port), { code: 'EADDRINUSE' });
});

test('the Unix socket is for its owner only, and nothing else is left in the directory', async (t) => {
  const { socketPath, directory } = await serveDevice(t);
  t.is((await stat(socketPath)).mode & 0o777, 0o600);
  t.deepEqual(await readdir(directory), ['nbd.sock']);
});

test('a live Unix socket is refused as in use, and goes on', async (t) => {
  const { socketPath } = await serveDevice(t);
  const second = createNbdServer({ source: sourceOf(new MemoryDevice(4096)) });
  await t.throwsAsync(second.listenUnix(socketPath), { message: /in use/ });
  await second.close();
  const client = await connectNbd({ address: { path: socketPath } });
  await client.flush();
  await client.disconnect();
});

test('a stale Unix socket is replaced', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'nbd.sock');
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await runTool(process.execPath, ['-e', script]);
  t.true((await lstat(path)).isSocket(), 'the killed server left its socket');
  const server = createNbdServer({ source: sourceOf(new MemoryDevice(4096)) });
  t.teardown(() => server.close());
  await server.listenUnix(path);
  const client = await connectNbd({ address: { path } });
  await client.disconnect();
});

test('a file that is no socket is never replaced', async (t) => {
  const path = join(await temporaryDirectory(t), 'precious');
  await writeFile(path, 'data');
  const server = createNbdServer({ source: sourceOf(new MemoryDevice(4096)) });
  await t.throwsAsync(server.listenUnix(path), { message: /not a socket/ });
  await server.close();
  t.is((await stat(path)).size, 4);
});

test('closing leaves a Unix socket alone that somebody else put in its place', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'nbd.sock');
  const server = createNbdServer({ source: sourceOf(new MemoryDevice(4096)) });
  await server.listenUnix(path);
  await runTool('mv', [path, join(directory, 'old')]);
  const foreign = createServer();
  foreign.listen(path);
  await once(foreign, 'listening');
  t.teardown(() => foreign.close());
  await server.close();
  t.true((await lstat(path)).isSocket());
});

test('a directory that does not exist is told', async (t) => {
  const directory = await temporaryDirectory(t);
  const server = createNbdServer({ source: sourceOf(new MemoryDevice(4096)) });
  await t.throwsAsync(server.listenUnix(join(directory, 'missing', 'nbd.sock')), { code: 'ENOENT' });
  await server.close();
});
