/** Garbage on the ports of a live pair, and connections that do nothing, while a client works: it never notices. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { connectNbd } from '../../nbd/client.ts';
import type { NbdClient, NbdConnectOptions } from '../../nbd/client.ts';
import { startPair } from '../support/cluster.ts';
import type { Pair } from '../support/cluster.ts';
import { patienceMs } from '../support/node-process.ts';
import { compareFiles } from '../support/files-equal.ts';
import { seededRandom, StampedLoad } from '../support/stamped-load.ts';

const sizeBytes = 16 * 1024 * 1024;

/** Writes that have to be acknowledged after something was done to the node, to say that it goes on as before. */
const furtherWrites = 200;

/** Each at the connection of its own; `null` sends nothing and resets. */
const garbage: readonly (readonly [string, Buffer | null])[] = [
  ['nothing at all', null],
  ['a line of HTTP', Buffer.from('GET /v1/resources HTTP/1.1\r\nHost: localhost\r\n\r\n')],
  ['zeroes', Buffer.alloc(100_000)],
  ['ones', Buffer.alloc(100_000, 0xff)],
  ['random bytes', randomBytesOf(1, 300_000)],
  // Client flags of an NBD client, then an option that says it is 4 GiB long.
  ['an endless NBD option', Buffer.concat([be32(1), Buffer.from('IHAVEOPT'), be32(7), be32(0xffffffff)])],
  ['unknown NBD client flags', be32(0xffffffff)],
  // Newstyle, default export; then no request.
  [
    'an NBD request with a wrong magic',
    Buffer.concat([be32(3), Buffer.from('IHAVEOPT'), be32(1), be32(0), Buffer.alloc(4096, 0x42)]),
  ],
  [
    'half an NBD write',
    Buffer.concat([
      be32(3),
      ...[Buffer.from('IHAVEOPT'), be32(1), be32(0)],
      // NBD_REQUEST_MAGIC, no flags, NBD_CMD_WRITE, cookie, offset, length; and 100 of 65536 bytes.
      ...[
        be32(0x25609513),
        be32(1),
        Buffer.alloc(8, 7),
        Buffer.alloc(8),
        be32(65536),
        Buffer.alloc(100, 0x99),
      ],
    ]),
  ],
];

test('garbage on the NBD and replication ports ends its own connection and nothing else', async (t) => {
  const { pair, goesOn, finish } = await startUnderLoad(t);
  const ports = [
    pair.alpha.nbdPort,
    pair.beta.nbdPort,
    pair.alpha.replicationPort,
    pair.beta.replicationPort,
  ];
  for (const port of ports) {
    await Promise.all(garbage.map(([, bytes]) => throwAt(port, bytes)));
    await goesOn();
  }
  await finish();
});

test('hundreds of idle connections, attached or not even begun, cost a working client nothing', async (t) => {
  const { pair, goesOn, finish } = await startUnderLoad(t);
  const attached: NbdClient[] = [];
  // Not all at once: more than 256 that have only begun push each other out.
  while (attached.length < 500) {
    const some = Array.from({ length: 100 }, () => connectNbd({ ...exportOf(pair), mode: 'simple' }));
    attached.push(...(await Promise.all(some)));
  }
  await goesOn();
  t.is((await pair.alpha.status()).nbd.clients, 501);
  // As many again that never say a word; the oldest of them make room for the newest.
  const silent = await Promise.all(Array.from({ length: 300 }, () => open(pair.alpha.nbdPort)));
  await goesOn();
  const late = await connectNbd(exportOf(pair));
  t.is((await late.read(0, 4096)).byteLength, 4096);
  t.true(attached.every((client) => client.isOpen));
  await goesOn();

  for (const client of [...attached, late]) client.destroy();
  for (const socket of silent) socket.destroy();
  await pair.alpha.waitFor((status) => status.nbd.clients === 1, 'only the load attached');
  await finish();
});

interface UnderLoad {
  readonly pair: Pair;
  /** Resolves when more writes have been acknowledged from here on. */
  readonly goesOn: () => Promise<void>;
  /** Ends the load and says whether anybody noticed anything. */
  readonly finish: () => Promise<void>;
}

async function startUnderLoad(t: ExecutionContext): Promise<UnderLoad> {
  const pair = await startPair(t, { sizeBytes });
  await pair.alpha.order('promote');
  const client = await connectNbd(exportOf(pair));
  t.teardown(() => client.destroy());
  const load = new StampedLoad({ sizeBytes, seed: 5, flushEvery: 50 });
  const phase = load.start(client);
  await phase.acknowledged(furtherWrites);
  const sessions = await handshakes(pair);
  const pids = [pair.alpha.node.pid, pair.beta.node.pid];
  return {
    pair,
    goesOn: () => phase.acknowledged(load.acknowledged + furtherWrites),
    finish: async () => {
      const { reason } = await phase.stop();
      t.is(reason, 'stopped', 'the client saw no error');
      t.deepEqual(await load.verify((offset, length) => client.read(offset, length)), []);
      t.is(client.inFlight, 0);
      await client.disconnect();
      await pair.mirroring();
      t.deepEqual([pair.alpha.node.pid, pair.beta.node.pid], pids);
      t.deepEqual(await handshakes(pair), sessions, 'the link between the nodes never broke');
      const [alpha, beta] = await Promise.all([pair.alpha.status(), pair.beta.status()]);
      t.is(alpha.peers[0]?.outOfSyncBytes, 0);
      t.deepEqual(compareFiles(alpha.backing.path, beta.backing.path), { equal: true });
    },
  };
}

function exportOf(pair: Pair): NbdConnectOptions {
  const address = { host: '127.0.0.1', port: pair.alpha.nbdPort };
  return { address, exportName: pair.resource, timeoutMs: patienceMs };
}

/** Every handshake and every loss of the peer that either node has seen. */
async function handshakes(pair: Pair): Promise<unknown> {
  return Promise.all(
    [pair.alpha, pair.beta].map(({ node }) => node.call('GET', `/v1/resources/${pair.resource}/decisions`)),
  );
}

async function open(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Sends it, and is done when the other side has closed, or has nothing more to wait for. */
async function throwAt(port: number, bytes: Buffer | null): Promise<void> {
  const socket = await open(port);
  if (bytes === null) {
    socket.resetAndDestroy();
    return;
  }
  socket.resume();
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.end(bytes);
  await closed;
}

function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function randomBytesOf(seed: number, length: number): Buffer {
  const random = seededRandom(seed);
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
}
