/** One connection over real sockets: its ends, its back-pressure, and what its misbehaviour costs others. */
import { once } from 'node:events';
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { mock } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import test from 'ava';
import { connectNbd, NbdClosedError, NbdHaggling } from '../../nbd/client.ts';
import { hex } from '../support/conversation.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { serveDevice, sourceOf } from '../support/nbd-server.ts';
import { goSimple, goSimpleAnswerBytes, RawClient, request } from '../support/raw-client.ts';

const [READ, WRITE, DISC, FLUSH] = [0, 1, 2, 3];
const disc = request(DISC, 0, 0, 0);

for (const [title, bytes] of [
  ['garbage instead of flags', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['garbage instead of an option', Buffer.concat([hex('00000003'), Buffer.from('GET / HTTP/1.1\r\n\r\n')])],
  ['an option that announces 4 GiB', hex('00000003 "IHAVEOPT" 00000007 ffffffff')],
  ['EXPORT_NAME of nothing', hex('00000003 "IHAVEOPT" 00000001 00000007 "nothing"')],
  ['garbage instead of a request', Buffer.concat([goSimple, Buffer.alloc(28, 0x55)])],
] as const)
  test(`${title} closes that connection alone`, async (t) => {
    const { tcp } = await serveDevice(t);
    const other = await connectNbd({ address: tcp });
    const bad = await RawClient.connect(t, tcp);
    bad.send(bytes);
    await bad.closed;
    await other.write(0, Buffer.from('still here'));
    t.is((await other.read(0, 10)).toString(), 'still here');
    await other.disconnect();
  });

test('a client that vanishes at any byte of its conversation leaves the server working', async (t) => {
  const { server, tcp, device } = await serveDevice(t);
  const conversation = Buffer.concat([
    goSimple,
    request(WRITE, 1, 0, 600, Buffer.alloc(600, 7)),
    request(READ, 2, 0, 600),
    disc,
  ]);
  for (let length = 0; length <= conversation.length; length += length < 120 ? 7 : 53) {
    const client = await RawClient.connect(t, tcp);
    client.socket.write(conversation.subarray(0, length), () => {
      if (length % 2 === 0) client.socket.resetAndDestroy();
      else client.socket.end();
    });
    await client.closed;
  }
  const client = await connectNbd({ address: tcp });
  t.is((await client.read(0, 600)).length, 600);
  await client.disconnect();
  t.true(device.calls.every((call) => call.kind !== 'write' || call.lengthBytes === 600));
  await server.close();
  t.is(server.connectionCount, 0);
});

test('DISC finishes what was requested, then closes', async (t) => {
  const { tcp, device } = await serveDevice(t);
  device.hold = (call) => call.kind === 'write';
  const client = await RawClient.inTransmission(t, tcp);
  client.send(Buffer.concat([request(WRITE, 7, 0, 3, Buffer.from('abc')), disc]));
  await device.arrived(1);
  device.releaseAll();
  t.is((await client.receive(16)).toString('hex'), '67446698000000000000000000000007');
  await client.closed;
  t.is(device.contents(0, 3).toString(), 'abc');
});

test('nothing behind DISC is executed', async (t) => {
  const { tcp, device } = await serveDevice(t);
  const client = await RawClient.inTransmission(t, tcp);
  client.send(Buffer.concat([disc, request(WRITE, 1, 0, 3, Buffer.from('abc'))]));
  await client.closed;
  t.deepEqual(device.calls, []);
});

test('a client that shuts down its sending side gets its replies and is closed', async (t) => {
  const { tcp, device, server } = await serveDevice(t);
  device.hold = () => true;
  const client = await RawClient.inTransmission(t, tcp, { allowHalfOpen: true });
  client.socket.end(request(FLUSH, 9, 0, 0));
  await device.arrived(1);
  device.releaseAll();
  t.is((await client.receive(16)).length, 16);
  await once(client.socket, 'end');
  client.socket.destroy();
  await server.disconnectClients();
  t.is(server.connectionCount, 0);
});

test('a reply is not held back because a later request is incomplete', async (t) => {
  const { tcp, device } = await serveDevice(t);
  const client = await RawClient.inTransmission(t, tcp);
  const write = request(WRITE, 2, 0, 1000, Buffer.alloc(1000, 1));
  client.send(Buffer.concat([request(FLUSH, 1, 0, 0), write.subarray(0, 500)]));
  t.is((await client.receive(16)).readUInt8(15), 1);
  t.is(device.calls.length, 1);
});

test('a partially received payload blocks nobody: others write, flush and read meanwhile', async (t) => {
  const { tcp, device } = await serveDevice(t);
  const half = await RawClient.inTransmission(t, tcp);
  half.send(request(WRITE, 1, 0, 1_000_000, Buffer.alloc(999_999, 1)));
  const other = await connectNbd({ address: tcp });
  await other.write(0, Buffer.alloc(4096, 2));
  await other.flush();
  half.socket.destroy();
  await half.closed;
  await other.flush();
  t.true((await other.read(0, 4096)).equals(Buffer.alloc(4096, 2)));
  t.is(device.calls.filter(({ kind }) => kind === 'write').length, 1);
  await other.disconnect();
});

test('replies go out as requests complete, in any order', async (t) => {
  const { tcp, device } = await serveDevice(t);
  device.hold = () => true;
  const client = await connectNbd({ address: tcp });
  const order: number[] = [];
  const writes = [0, 1, 2].map((index) =>
    client.write(index * 4096, Buffer.alloc(4096, index)).then(() => order.push(index)),
  );
  await device.arrived(3);
  const [first, second, third] = device.held;
  for (const held of [third, first, second]) {
    held?.release();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(writes);
  t.deepEqual(order, [2, 0, 1]);
  await client.disconnect();
});

test('what one connection wrote, the next read on another sees', async (t) => {
  const { tcp, socketPath } = await serveDevice(t);
  const clients = await Promise.all([
    connectNbd({ address: tcp }),
    connectNbd({ address: tcp, mode: 'simple' }),
    connectNbd({ address: { path: socketPath }, mode: 'structured' }),
  ]);
  for (let round = 0; round < 30; round++) {
    await clients[round % 3]?.write(round * 100, Buffer.alloc(300, round));
    for (const client of clients)
      t.true((await client.read(round * 100, 300)).equals(Buffer.alloc(300, round)));
  }
  await Promise.all(clients.map((client) => client.disconnect()));
});

test('requests at the device are bounded per connection, and the rest is taken in as they complete', async (t) => {
  const { tcp, device } = await serveDevice(t, { limits: { maxRequestsInFlight: 4 } });
  device.hold = () => true;
  const client = await connectNbd({ address: tcp });
  const flushes = Array.from({ length: 20 }, () => client.flush());
  await device.arrived(4);
  const other = await connectNbd({ address: tcp });
  const ask = other.flush();
  await device.arrived(5);
  t.is(device.held.length, 5, 'four of the first client, one of the second');
  device.releaseAll();
  await Promise.all([...flushes, ask]);
  t.is(device.calls.length, 21);
  await Promise.all([client.disconnect(), other.disconnect()]);
});

test('payload bytes at the device are bounded per connection', async (t) => {
  const { tcp, device } = await serveDevice(t, { limits: { maxBytesInFlight: 100_000 } });
  device.hold = ({ kind }) => kind === 'write';
  const client = await connectNbd({ address: tcp });
  const writes = Array.from({ length: 6 }, (_, index) => client.write(0, Buffer.alloc(60_000, index)));
  await device.arrived(2);
  const other = await connectNbd({ address: tcp });
  await other.flush();
  t.is(device.held.length, 2, 'the second reached the bound');
  device.releaseAll();
  await Promise.all(writes);
  t.true(device.contents(0, 60_000).equals(Buffer.alloc(60_000, 5)));
  await Promise.all([client.disconnect(), other.disconnect()]);
});

test('a client that does not read its replies is not read from, and costs the others nothing', async (t) => {
  // A Unix socket: the kernel buffers little there.
  const { socketPath, device, server } = await serveDevice(t, { limits: { maxReplyBytes: 256 * 1024 } });
  const deaf = await RawClient.inTransmission(t, { path: socketPath });
  deaf.socket.pause();
  const asked = 64;
  const readBytes = 1024 * 1024;
  for (let cookie = 0; cookie < asked; cookie++) deaf.send(request(READ, cookie, 0, readBytes));
  await device.arrived(1);
  const other = await connectNbd({ address: { path: socketPath } });
  for (let round = 0; round < 50; round++) await other.write(0, Buffer.alloc(4096, round));
  await other.disconnect();
  const served = device.calls.filter(({ kind }) => kind === 'read').length;
  t.true(served < 8, `${served} replies of 1 MiB were prepared for nobody`);
  deaf.socket.resume();
  const all = await deaf.receive(asked * (readBytes + 16));
  t.is(all.length, asked * (readBytes + 16), 'and it gets them all when it reads again');
  deaf.send(disc);
  await deaf.closed;
  await server.disconnectClients();
});

test('options of a client that reads no answers are not read for ever', async (t) => {
  const source = sourceOf(new MemoryDevice(4096));
  let lists = 0;
  const { socketPath, server } = await serveDevice(t, {
    limits: { maxReplyBytes: 64 * 1024 },
    source: {
      ...source,
      list: () => {
        lists++;
        return source.list();
      },
    },
  });
  const deaf = await RawClient.connect(t, { path: socketPath });
  deaf.socket.pause();
  const asked = 100_000;
  deaf.send(hex('00000003'));
  deaf.send(Buffer.alloc(16 * asked, hex('"IHAVEOPT" 00000003 00000000')));
  const other = await connectNbd({ address: { path: socketPath } });
  for (let round = 0; round < 50; round++) await other.flush();
  await other.disconnect();
  t.true(lists < asked / 4, `${lists} lists were made for nobody`);
  await server.close();
});

// Serial tests run before the others, which the mocked clock would reach as well.
test.serial('the handshake is timed, the transmission phase is not', async (t) => {
  const { tcp } = await serveDevice(t, { limits: { handshakeTimeoutMs: 1000 } });
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => {
    mock.timers.reset();
  });
  const silent = await RawClient.connect(t, tcp);
  await silent.receive(18);
  const halfway = await RawClient.connect(t, tcp);
  halfway.send(hex('00000003 "IHAVEOPT" 00000003 00000000 "IHAVE"'));
  await halfway.receive(18 + 4 * 20);
  const client = await connectNbd({ address: tcp });
  mock.timers.tick(999);
  await client.flush();
  t.false(silent.isClosed);
  mock.timers.tick(1);
  await Promise.all([silent.closed, halfway.closed]);
  mock.timers.tick(1_000_000);
  await client.flush();
  mock.timers.reset();
  await client.disconnect();
});

test.serial("the replies behind a DISC are the client's, however long it takes to read them", async (t) => {
  const { socketPath, device, server } = await serveDevice(t, {
    limits: { lingerMs: 1000, maxReplyBytes: 64 * 1024 * 1024 },
  });
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => {
    mock.timers.reset();
  });
  const slow = await RawClient.inTransmission(t, { path: socketPath });
  slow.socket.pause();
  const readBytes = 4 * 1024 * 1024;
  slow.send(Buffer.concat([request(READ, 1, 0, readBytes), request(READ, 2, 0, readBytes), disc]));
  await device.arrived(2);
  await nextTurn();
  mock.timers.tick(1_000_000);
  slow.socket.resume();
  t.is((await slow.receive(2 * (readBytes + 16))).length, 2 * (readBytes + 16));
  await slow.closed;
  mock.timers.reset();
  await server.disconnectClients();
});

test('500 silent and garbled connections do not disturb a client', async (t) => {
  const { tcp, server } = await serveDevice(t, { limits: { maxHandshaking: 100 } });
  const client = await connectNbd({ address: tcp });
  const crowd = Array.from({ length: 500 }, (_, index) => {
    const socket = createConnection(tcp);
    socket.on('error', () => undefined);
    if (index % 3 === 1) socket.write('garbage that is no NBD at all');
    if (index % 3 === 2) socket.write(goSimple.subarray(0, index % goSimple.length));
    return socket;
  });
  t.teardown(() => {
    for (const socket of crowd) socket.destroy();
  });
  for (let round = 0; round < 200; round++) await client.write(0, Buffer.alloc(4096, round));
  const late = await connectNbd({ address: tcp });
  t.true((await late.read(0, 4096)).equals(Buffer.alloc(4096, 199)));
  t.true(server.connectionCount <= 102);
  await Promise.all([client.disconnect(), late.disconnect()]);
});

test('connections beyond the bound are closed at once, and there is room again afterwards', async (t) => {
  const { tcp } = await serveDevice(t, { limits: { maxConnections: 2 } });
  const first = await connectNbd({ address: tcp });
  const second = await connectNbd({ address: tcp });
  const third = await RawClient.connect(t, tcp);
  await third.closed;
  t.is(third.receivedBytes, 0);
  await first.flush();
  await second.disconnect();
  const fourth = await connectNbd({ address: tcp });
  await fourth.flush();
  await Promise.all([first.disconnect(), fourth.disconnect()]);
});

test('connections that are gone count as long as the device works for them: what they hold is bounded', async (t) => {
  const { tcp, device, server } = await serveDevice(t, { limits: { maxConnections: 3 } });
  device.hold = () => true;
  for (let count = 1; count <= 3; count++) {
    const client = await RawClient.inTransmission(t, tcp);
    client.send(request(WRITE, 1, 0, 4096, Buffer.alloc(4096)));
    await device.arrived(count);
    client.socket.resetAndDestroy();
    while (server.clientCount > 0) await nextTurn();
  }
  const fourth = await RawClient.connect(t, tcp);
  await fourth.closed;
  t.is(fourth.receivedBytes, 0);
  device.releaseAll();
  await server.disconnectClients();
  const fifth = await connectNbd({ address: tcp });
  await fifth.flush();
  await fifth.disconnect();
});

test('connections that never say anything do not take the place of clients', async (t) => {
  const { tcp } = await serveDevice(t, { limits: { maxConnections: 3, maxHandshaking: 3 } });
  const first = await connectNbd({ address: tcp });
  const silent = [await RawClient.connect(t, tcp), await RawClient.connect(t, tcp)];
  for (const client of silent) await client.receive(18);
  const second = await connectNbd({ address: tcp });
  await silent[0]?.closed;
  const third = await connectNbd({ address: tcp });
  await silent[1]?.closed;
  const fourth = await RawClient.connect(t, tcp);
  await fourth.closed;
  t.is(fourth.receivedBytes, 0);
  await Promise.all([first, second, third].map((client) => client.disconnect()));
});

for (const [title, isUnix, leave] of [
  ['TCP connection that was closed', false, (socket: Socket) => socket.destroy()],
  ['TCP connection that was reset', false, (socket: Socket) => socket.resetAndDestroy()],
  ['Unix connection that was closed', true, (socket: Socket) => socket.destroy()],
] as const)
  test(`requests that waited on a ${title} do not land over newer data`, async (t) => {
    const { tcp, socketPath, device, server } = await serveDevice(t, { limits: { maxRequestsInFlight: 1 } });
    const address = isUnix ? { path: socketPath } : tcp;
    device.hold = (call) => call.kind === 'write' && call.offsetBytes === 0;
    const before = await RawClient.inTransmission(t, address);
    const written = Buffer.from('old');
    before.send(Buffer.concat([request(WRITE, 1, 0, 3, written), request(WRITE, 2, 4096, 3, written)]));
    await device.arrived(1);
    leave(before.socket);
    await before.closed;
    const after = await connectNbd({ address });
    await after.write(4096, written);
    await after.write(4096, Buffer.from('new'));
    device.releaseAll();
    await after.disconnect();
    await server.disconnectClients();
    t.is(device.contents(4096, 3).toString(), 'new');
  });

test('a pipelined handshake and its first requests in one segment are served', async (t) => {
  const { tcp } = await serveDevice(t);
  const client = await RawClient.connect(t, tcp);
  client.send(Buffer.concat([goSimple, request(WRITE, 1, 0, 3, Buffer.from('abc')), request(READ, 2, 0, 3)]));
  const answer = await client.receive(goSimpleAnswerBytes + 16 + 19);
  t.is(answer.subarray(-3).toString(), 'abc');
});

test('ABORT is answered, then the connection is closed', async (t) => {
  const { tcp, server } = await serveDevice(t);
  const haggling = await NbdHaggling.connect(tcp);
  t.deepEqual(await haggling.option(2), []);
  await server.disconnectClients();
  await haggling.abort();
  await server.close();
  t.is(server.connectionCount, 0);
});

test('requests in flight when the server is killed off are rejected, not answered', async (t) => {
  const device = new MemoryDevice(1024 * 1024);
  const { tcp, server } = await serveDevice(t, { device });
  device.hold = () => true;
  const client = await connectNbd({ address: tcp });
  const write = client.write(0, Buffer.from('abc'));
  await device.arrived(1);
  client.destroy();
  await t.throwsAsync(write, { instanceOf: NbdClosedError });
  await client.closed;
  const gone = server.disconnectClients();
  device.releaseAll();
  await gone;
  t.is(server.clientCount, 0);
});
