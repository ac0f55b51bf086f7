/**
 * Stands in for `server/main.ts serve` in the tests of the cluster helpers: the same command line, ready line, API
 * and events, and nothing behind them. Two of them are "Connected" while a TCP connection between them is open.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';

const { values } = parseArgs({
  options: {
    name: { type: 'string', default: '' },
    'data-dir': { type: 'string', default: '' },
    api: { type: 'string', default: '' },
    fail: { type: 'boolean', default: false },
  },
});
if (values.fail) {
  console.error('refused to start, as ordered');
  process.exit(2);
}

const definition = Compile(
  Type.Object({
    size: Type.Number(),
    replication: Type.Object({ listen: Type.String() }),
    peers: Type.Array(Type.Object({ name: Type.String(), address: Type.String() })),
  }),
);
const token = 'a token';
const tokenFile = join(values['data-dir'], 'api-token');
const roleFile = join(values['data-dir'], 'role');
const streams = new Set<ServerResponse>();
let resource: { name: string; size: number; peers: { name: string }[] } | null = null;
let role = existsSync(roleFile) ? readFileSync(roleFile, 'utf8') : 'Secondary';
let links = 0;

const api = createHttpServer((request, response) => {
  void answer(request, response);
});
writeFileSync(tokenFile, `${token}\n`);
api.listen(0, '127.0.0.1', () => {
  const address = api.address();
  const port = address === null || typeof address === 'string' ? 0 : address.port;
  console.log(`not the ready line, api ${values.api}`);
  console.log(JSON.stringify({ ready: true, api: `http://127.0.0.1:${port}`, pid: process.pid, tokenFile }));
});
process.on('SIGTERM', () => process.exit(0));

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += String(chunk);
  const reply = (status: number, body: unknown): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
  if (request.headers.authorization !== `Bearer ${token}`) {
    reply(401, { code: 'unauthorized' });
  } else if (request.url === '/v1/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
    streams.add(response);
    response.write(': alive\n\n');
    sendStatus();
  } else if (request.method === 'PUT') {
    define(request.url?.split('/').at(-1) ?? '', definition.Parse(JSON.parse(text)));
    reply(201, status());
  } else if (resource === null) {
    reply(404, { code: 'not-found' });
  } else if (request.url?.endsWith('/promote') === true) {
    // The order is answered before it is carried out, so whoever does not wait for the event is early.
    reply(200, { message: 'soon' });
    setImmediate(() => {
      role = 'Primary';
      writeFileSync(roleFile, role);
      sendStatus();
    });
  } else {
    reply(200, status());
  }
}

function define(name: string, { size, replication, peers }: ReturnType<typeof definition.Parse>): void {
  resource = { name, size, peers };
  createServer(follow).listen(portOf(replication.listen), '127.0.0.1', () => {
    // Dialled once: whichever node is defined last finds the other.
    const socket = connect(portOf(peers[0]?.address ?? ''), '127.0.0.1');
    socket.once('connect', () => follow(socket));
    socket.on('error', () => undefined);
  });
}

function follow(socket: Socket): void {
  links++;
  sendStatus();
  socket.on('error', () => undefined);
  socket.on('close', () => {
    links--;
    sendStatus();
  });
  socket.resume();
}

function portOf(endpoint: string): number {
  return Number(endpoint.split(':')[1]);
}

function sendStatus(): void {
  if (resource === null) return;
  const data = JSON.stringify({ resource: resource.name, status: status() });
  // In two pieces, as a network may deliver it.
  for (const stream of streams) {
    stream.write(`event: status\nid: 1\ndata: ${data.slice(0, 40)}`);
    stream.write(`${data.slice(40)}\n\n`);
  }
}

function status(): unknown {
  const connected = links > 0;
  return {
    name: resource?.name,
    size: resource?.size,
    role,
    diskState: 'UpToDate',
    suspended: false,
    splitBrain: false,
    nbd: { uri: 'nbd://127.0.0.1/', clients: 0 },
    peers: resource?.peers.map(({ name }) => ({
      name,
      connection: connected ? 'Connected' : 'Connecting',
      replication: connected ? 'Established' : 'Off',
      role: 'Unknown',
      diskState: connected ? 'UpToDate' : 'DUnknown',
      outOfSyncBytes: 0,
      sync: null,
      verify: null,
      lastError: null,
    })),
    generation: { current: '', bitmap: '', history: [] },
    io: { reads: 0, writes: 0, flushes: 0, repairedReads: 0 },
    backing: { path: '' },
  };
}
