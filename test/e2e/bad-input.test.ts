/** What is wrong on the command line, in the configuration, at the API and with addresses: said clearly, nothing lost. */
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import Database from 'better-sqlite3';
import { startNode } from '../support/cluster.ts';
import type { NodeProcess } from '../support/cluster.ts';
import { freePort } from '../support/ports.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { runTool } from '../support/tools.ts';
import type { ToolResult } from '../support/tools.ts';

const main = join(import.meta.dirname, '../../server/lockstep.js');

/** The command line, as a user calls it, with no setting from outside but these. */
function lockstep(
  args: readonly string[],
  variables: Readonly<Record<string, string>> = {},
): Promise<ToolResult> {
  const cleared = Object.keys(process.env).filter((name) => name.startsWith('LOCKSTEP_'));
  return runTool('env', [
    ...cleared.flatMap((name) => ['-u', name]),
    ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
    process.execPath,
    main,
    ...args,
  ]);
}

/** Ended with this status, printed nothing but this one complaint, and no stack. */
function refused(t: ExecutionContext, result: ToolResult, status: number, message: RegExp): void {
  t.is(result.status, status, result.stderr);
  t.is(result.stdout, '');
  t.regex(result.stderr, message);
  t.notRegex(result.stderr, /^ +at /m);
}

/** A file of that text in place of CONFIG. */
const misuse: readonly (readonly [
  string,
  readonly string[],
  Readonly<Record<string, string>>,
  string,
  RegExp,
])[] = [
  ['an unknown verb', ['promot', 'r0'], {}, '', /there is no verb "promot" \(did you mean "promote"\?\)/],
  [
    'an unknown flag of a verb',
    ['promote', 'r0', '--forse'],
    {},
    '',
    /unknown flag --forse \(did you mean "force"\?\)/,
  ],
  [
    'an unknown flag of serve',
    ['serve', '--data', '/d'],
    {},
    '',
    /unknown flag --data.*\nSee "lockstep serve --help"/,
  ],
  ['no data directory', ['serve'], {}, '', /--data-dir is missing:.*LOCKSTEP_DATA_DIR/],
  [
    'an unknown variable',
    ['serve'],
    { LOCKSTEP_DATADIR: '/d' },
    '',
    /unknown environment variable LOCKSTEP_DATADIR \(did you mean "LOCKSTEP_DATA_DIR"\?\)/,
  ],
  [
    'a variable with a wrong value',
    ['serve', '--data-dir', '/d'],
    { LOCKSTEP_API: 'localhost' },
    '',
    /LOCKSTEP_API: "localhost" is not HOST:PORT, as in 127\.0\.0\.1:7780/,
  ],
  [
    'no configuration file',
    ['serve', '--config', '/nowhere/c.json'],
    {},
    '',
    /\/nowhere\/c\.json cannot be read: ENOENT/,
  ],
  [
    'a file that is no JSON',
    ['serve', '--config', 'CONFIG'],
    {},
    '{"dataDir":',
    /config\.json cannot be read: it is not valid JSON/,
  ],
  [
    'an unknown key of the file',
    ['serve', '--config', 'CONFIG'],
    {},
    '{"dataDri": "/d"}',
    /config\.json: unknown key "dataDri" \(did you mean "dataDir"\?\)/,
  ],
  [
    'an unknown key of a resource in the file',
    ['serve', '--config', 'CONFIG'],
    {},
    '{"dataDir": "/d", "resources": {"r0": {"size": "1GiB", "nbd": {"lisen": "127.0.0.1:1"}}}}',
    /unknown key "lisen" in "resources\/r0\/nbd" \(did you mean "listen"\?\)/,
  ],
];

test('misuse of the command line and the configuration names the mistake, and creates nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const config = join(directory, 'config.json');
  for (const [what, args, variables, text, message] of misuse) {
    writeFileSync(config, text);
    const result = await lockstep(
      args.map((arg) => (arg === 'CONFIG' ? config : arg)),
      variables,
    );
    t.log(what);
    refused(t, result, 2, message);
  }
  t.false(existsSync('/d'));

  const data = join(directory, 'data');
  const size = { dataDir: data, resources: { r0: { size: 5000 } } };
  writeFileSync(config, JSON.stringify(size));
  refused(
    t,
    await lockstep(['serve', '--config', config]),
    2,
    /resource "r0".*"size".*multiple of 4096.*4096 is/,
  );
});

test('a Node that is too old is told before anything crashes', async (t) => {
  const old = '/usr/bin/node';
  const version = await runTool(old, ['--version']).catch(() => null);
  const major = Number(/^v(\d+)/.exec(version?.stdout ?? '')?.[1] ?? 24);
  if (major >= 24) {
    t.log(`NOT RUN (${old} is not an older Node)`);
    t.pass();
    return;
  }
  const result = await runTool(old, [main, 'status']);
  refused(t, result, 2, /this is Node \d+\.\d+\.\d+; Lockstep needs Node 24 or newer/);
});

test('a data directory that is in use, of another node, newer or damaged is left as it is', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  await node.call('PUT', '/v1/resources/r0', { size: 65536 });
  const serve = (name: string): Promise<ToolResult> =>
    lockstep([
      'serve',
      '--name',
      name,
      '--data-dir',
      node.dir,
      '--api',
      '127.0.0.1:0',
      '--log-level',
      'silent',
    ]);
  const path = join(node.dir, 'node.db');

  refused(
    t,
    await serve('alpha'),
    1,
    /node\.db open: a node is running on this data directory\. Stop it, or choose another --data-dir/,
  );
  t.is((await node.status('r0')).role, 'Primary', 'the one that runs goes on');

  t.is(await node.stop(), 0);
  refused(
    t,
    await serve('beta'),
    1,
    /node\.db belongs to the node "alpha", not to "beta"\. Use --name alpha/,
  );

  const intact = readFileSync(path);
  const database = new Database(path);
  database.pragma('user_version = 99');
  database.close();
  refused(
    t,
    await serve('alpha'),
    1,
    /node\.db was written by a newer Lockstep \(format 99, this one knows \d+\)\. Start the newer version/,
  );
  writeFileSync(path, 'not a database at all, but long enough to look at');
  refused(t, await serve('alpha'), 1, /node\.db is damaged: .*restore this one from a backup/);
  writeFileSync(path, intact.subarray(0, intact.byteLength / 2));
  refused(t, await serve('alpha'), 1, /node\.db is damaged: /);

  writeFileSync(path, intact);
  await node.start();
  t.is((await node.status('r0')).diskState, 'UpToDate', 'nothing was lost');
});

test('the API: what is wrong has a status, a stable code, and a text that names it and the next step', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  const definition = { size: '1MiB', nbd: { listen: `127.0.0.1:${await freePort()}` } };
  await node.call('PUT', '/v1/resources/r0', definition);

  const refusals: readonly (readonly [string, string, unknown, number, string, RegExp])[] = [
    [
      'PUT',
      'r1',
      { size: 4096, baking: {} },
      400,
      'invalid-request',
      /unknown key "baking" \(did you mean "backing"\?\)\. Correct/,
    ],
    ['PUT', 'r1', { size: 5000 }, 400, 'invalid-request', /"size".*multiple of 4096/],
    [
      'PUT',
      'r0',
      { ...definition, size: '2MiB' },
      409,
      'already-exists',
      /"r0" exists and differs in size .*\. Use PATCH/,
    ],
    ['GET', 'r1', undefined, 404, 'not-found', /no resource "r1"\. GET \/v1\/resources lists/],
    ['POST', 'r1/promote', undefined, 404, 'not-found', /no resource "r1"/],
    [
      'POST',
      'r0/promot',
      undefined,
      404,
      'not-found',
      /there is no POST \/v1\/resources\/r0\/promot\. See \/docs/,
    ],
    [
      'POST',
      'r0/promote',
      { froce: true },
      400,
      'invalid-request',
      /unknown key "froce" \(did you mean "force"\?\)/,
    ],
    [
      'PUT',
      'r1',
      { size: 4096, backing: { path: '/nowhere/at/all' } },
      409,
      'backing-missing',
      /\/nowhere\/at\/all does not exist\. Create it/,
    ],
  ];
  for (const [method, path, body, status, code, detail] of refusals) {
    const answer = await node.api(method, `/v1/resources/${path}`, body);
    const what = `${method} ${path}: ${JSON.stringify(answer.body)}`;
    t.is(answer.status, status, what);
    t.like(answer.body, { status, code }, what);
    t.regex(detailOf(answer.body), detail);
  }
  t.is(
    (await node.api('PUT', '/v1/resources/r0', definition)).status,
    200,
    'the same once more is no conflict',
  );
  t.is((await node.api('GET', '/v1/resources/r1')).status, 404, 'what was refused has left nothing behind');

  for (const authorization of [undefined, 'Bearer wrong', `Basic ${node.token}`]) {
    const response = await fetch(`${node.apiUrl}/v1/resources`, {
      headers: authorization === undefined ? {} : { authorization },
    });
    t.is(response.status, 401);
    const body: unknown = await response.json();
    t.like(body, { code: 'unauthorized' });
    t.regex(detailOf(body), /api-token file in the data directory/);
  }
});

test('the command line says what the API said, with exit status 1, or 2 for misuse', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  await node.call('PUT', '/v1/resources/r0', { size: '1MiB' });
  const here = ['--api', node.apiUrl, '--data-dir', node.dir];
  refused(t, await lockstep(['status', 'r1', ...here]), 1, /lockstep status: this node has no resource "r1"/);
  refused(t, await lockstep(['create', 'r1', '--size', '5000', ...here]), 2, /"size".*multiple of 4096/);
  refused(
    t,
    await lockstep(['create', 'r0', '--size', '2MiB', ...here]),
    1,
    /"r0" exists and differs in size/,
  );
  refused(
    t,
    await lockstep(['status', '--api', node.apiUrl, '--token', 'wrong']),
    1,
    /the bearer token is not the one of this node/,
  );
  const api = node.apiUrl;
  await node.stop();
  refused(
    t,
    await lockstep(['status', '--api', api, '--token', 'any']),
    1,
    /no answer from http.*Start it with "lockstep serve"/,
  );
});

test('a port that is in use is named; the resource is not defined, and is once the port is free', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  const taken = await occupyPort(t);
  const address = `127.0.0.1:${taken.port}`;
  const mirrored = (listen: string): object => ({
    size: '1MiB',
    replication: { listen, secret: 'only for this test' },
    peers: [{ name: 'beta', address: '127.0.0.1:9' }],
  });
  for (const [body, what] of [
    [{ size: '1MiB', nbd: { listen: address } }, 'NBD'],
    [mirrored(address), 'replication'],
  ] as const) {
    const answer = await node.api('PUT', '/v1/resources/r0', body);
    t.is(answer.status, 409, JSON.stringify(answer.body));
    t.like(answer.body, { code: 'address-in-use' });
    t.true(detailOf(answer.body).includes(address), detailOf(answer.body));
    t.regex(detailOf(answer.body), /(Free the address|End what uses it).* or choose another/);
    t.is((await node.api('GET', '/v1/resources/r0')).status, 404, what);
  }
  const other = ['--name', 'beta', '--data-dir', temporaryDirectory(t), '--log-level', 'silent'];
  refused(
    t,
    await lockstep(['serve', ...other, '--api', address]),
    1,
    new RegExp(`the address ${address} of the control API is in use; free it or choose another --api`),
  );

  await taken.release();
  await node.call('PUT', '/v1/resources/r0', mirrored(address));
  t.is((await node.status('r0')).size, 1024 * 1024);
});

test('a resource whose port is taken at start does not stop the node, and is started by attach', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  const port = await freePort();
  await node.call('PUT', '/v1/resources/sick', { size: '1MiB', nbd: { listen: `127.0.0.1:${port}` } });
  await node.call('PUT', '/v1/resources/well', { size: '1MiB' });
  await node.stop();
  const taken = await occupyPort(t, port);
  await node.start();
  t.is((await node.status('well')).role, 'Primary');
  await refusedAttach(t, node, `127.0.0.1:${port}`);
  await taken.release();
  await node.call('POST', '/v1/resources/sick/attach');
  t.is((await node.status('sick')).role, 'Primary');
});

async function refusedAttach(t: ExecutionContext, node: NodeProcess, address: string): Promise<void> {
  const answer = await node.api('POST', '/v1/resources/sick/attach');
  t.is(answer.status, 409);
  t.like(answer.body, { code: 'address-in-use' });
  t.true(detailOf(answer.body).includes(address), detailOf(answer.body));
}

async function occupyPort(
  t: ExecutionContext,
  port = 0,
): Promise<{ readonly port: number; readonly release: () => Promise<void> }> {
  const server = createServer((socket) => socket.destroy());
  server.listen(port === 0 ? await freePort() : port, '127.0.0.1');
  await once(server, 'listening');
  let closed = false;
  const release = async (): Promise<void> => {
    if (closed) return;
    closed = true;
    server.close();
    await once(server, 'close');
  };
  t.teardown(release);
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { port: address.port, release };
}

function detailOf(body: unknown): string {
  if (typeof body === 'object' && body !== null && 'detail' in body && typeof body.detail === 'string') {
    return body.detail;
  }
  throw new Error(`no problem: ${JSON.stringify(body)}`);
}
