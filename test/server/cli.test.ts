/** The command line against a control API that listens, as processes: output, exit status, finding the node. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { refuse } from '../../replicator/core/refusal.ts';
import { registerNode } from '../../server/node-registry.ts';
import { cleanEnvironment, lockstep, mainFile } from '../support/command-line.ts';
import { mirroredBody, testApp, testToken } from '../support/test-app.ts';

/** A node on loopback that the command line of `run` finds by itself. */
async function node(t: ExecutionContext) {
  const running = await testApp(t);
  const api = await running.app.listen({ host: '127.0.0.1', port: 0 });
  const environment = cleanEnvironment(running.directory);
  const tokenFile = join(running.directory, 'api-token');
  writeFileSync(tokenFile, testToken);
  const register = (name: string) =>
    registerNode({ name, api, pid: process.pid, tokenFile, dataDirectory: running.directory }, environment);
  register('alpha');
  return { ...running, api, environment, run: (...args: string[]) => lockstep(args, environment) };
}

test.serial('create, status, promote, delete: the node and its token are found', async (t) => {
  const { run, plane, store } = await node(t);
  const created = await run(
    'create',
    'r0',
    '--size',
    '1GiB',
    '--nbd',
    '127.0.0.1:10809',
    '--policy',
    'pingIntervalMs=500',
  );
  t.is(created.status, 0, created.stderr);
  t.like(store.definition('r0'), { sizeBytes: 1024 ** 3, policies: { pingIntervalMs: 500 } });
  const status = await run('status');
  t.is(
    status.stdout,
    'r0 role:Primary\n  disk:UpToDate size:1GiB clients:0\n  nbd:nbd://127.0.0.1:10809/r0\n',
  );
  const promoted = await run('promote', 'r0', '--force', '--dry-run');
  t.deepEqual([promoted.status, promoted.stdout], [0, 'r0: Did promote.\n']);
  t.deepEqual(plane.commands, [{ name: 'r0', command: { kind: 'promote', force: true, dryRun: true } }]);
  const removed = await run('delete', 'r0');
  t.is(removed.status, 0);
  t.regex(removed.stdout, /its data and metadata are kept/);
  t.is(store.definition('r0'), null);
});

test.serial('create: a mirrored resource takes its secret from a file', async (t) => {
  const { run, store, directory } = await node(t);
  const secretFile = join(directory, 'secret');
  writeFileSync(secretFile, 'from a file\n');
  const mirror = ['--replication', '127.0.0.1:7789', '--peer', 'beta=127.0.0.1:7799'];
  const without = await run('create', 'r0', '--size', '1GiB', ...mirror);
  t.is(without.status, 2);
  t.regex(without.stderr, /--secret-file/);
  const created = await run('create', 'r0', '--size', '1GiB', ...mirror, '--secret-file', secretFile);
  t.is(created.status, 0, created.stderr);
  t.like(store.definition('r0')?.mirror, { secret: 'from a file', peerName: 'beta', protocol: 'C' });
});

test.serial(
  'a refusal prints reason and next step and exits with 1; --json prints the problem',
  async (t) => {
    const { run, plane, send } = await node(t);
    await send('PUT', '/v1/resources/r0', mirroredBody);
    plane.answer = () => refuse('peer-may-be-primary', 'beta is out of reach', 'Use --force if it is down.');
    const plain = await run('promote', 'r0');
    t.deepEqual(
      [plain.status, plain.stdout, plain.stderr],
      [1, '', 'lockstep promote: beta is out of reach. Use --force if it is down.\n'],
    );
    const json = await run('promote', 'r0', '--json');
    t.is(json.status, 1);
    t.like(JSON.parse(json.stdout), { code: 'peer-may-be-primary', status: 409 });
  },
);

test.serial('--json prints the answer of the API', async (t) => {
  const { run, send } = await node(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const one = await run('status', 'r0', '--json');
  t.like(JSON.parse(one.stdout), { name: 'r0', peers: [{ name: 'beta' }] });
  const all = await run('status', '--json');
  t.is((JSON.parse(all.stdout) as unknown[]).length, 1);
});

test.serial('misuse exits with 2 and says what would be right', async (t) => {
  const { run } = await node(t);
  const rows: readonly (readonly [string[], RegExp])[] = [
    [['statsu'], /no verb "statsu" \(did you mean "status"\?\)/],
    [['promote', 'r0', '--froce'], /unknown flag --froce \(did you mean "force"\?\)/],
    [['promote'], /NAME is missing/],
    [['promote', 'r0', 'r1'], /"r1" is one argument too many/],
    [['status', '--api'], /--api needs a value/],
    [['status', '--data-dir', ''], /--data-dir needs a value/],
    [['delete', '', '--wipe'], /NAME is empty/],
    [['create', 'r0'], /--size is missing/],
    [['create', 'r0', '--size', '1000'], /multiple of 4096/],
    [['resync', 'r0', 'backwards'], /"action" must be "pause"/],
    [['serve', '--data-dri', 'x'], /unknown flag --data-dri/],
    [['pair', '--ports', 'x'], /--ports "x" is not/],
    [['status', '--api', 'ftp://x/y'], /neither/],
  ];
  const results = await Promise.all(rows.map(([args]) => run(...args)));
  rows.forEach(([args, message], index) => {
    t.is(results[index]?.status, 2, args.join(' '));
    t.regex(results[index]?.stderr ?? '', message);
  });
});

test.serial('help is printed for everything, on standard output, with exit status 0', async (t) => {
  const { run } = await node(t);
  const verbs = ['create', 'status', 'failover', 'resync', 'serve', 'pair'];
  const results = await Promise.all([...verbs.map((verb) => run(verb, '--help')), run('--help')]);
  for (const result of results) t.is(result.status, 0);
  verbs.forEach((verb, index) => t.true(results[index]?.stdout.startsWith(`lockstep ${verb}`), verb));
  for (const verb of verbs) t.true(results.at(-1)?.stdout.includes(`  ${verb} `), verb);
});

test.serial('a node that does not answer is exit status 1', async (t) => {
  const { environment } = await node(t);
  const gone = await lockstep(
    ['status', '--api', 'http://127.0.0.1:1', '--token', 'x'.repeat(20)],
    environment,
  );
  t.is(gone.status, 1);
  t.regex(gone.stderr, /no answer from http:\/\/127\.0\.0\.1:1: .*Is the node running/);
});

test.serial('with two nodes running, status shows both and a change asks which', async (t) => {
  const { environment, directory } = await node(t);
  const other = await testApp(t);
  const api = await other.app.listen({ host: '127.0.0.1', port: 0 });
  const tokenFile = join(directory, 'api-token');
  // Records are kept by process: this one is of our parent, which runs as well.
  registerNode(
    { name: 'beta', api, pid: process.ppid, tokenFile, dataDirectory: other.directory },
    environment,
  );
  const status = await lockstep(['status'], environment);
  t.is(status.status, 0, status.stderr);
  t.regex(status.stdout, /^node alpha http.*\nno resources\nnode beta http.*\nno resources\n$/);
  const promote = await lockstep(['promote', 'r0'], environment);
  t.is(promote.status, 2);
  t.regex(promote.stderr, /several nodes run here; say which one:\n {2}alpha {2}--api/);
  const told = await lockstep(['promote', 'r0', '--api', api], environment);
  t.is(told.status, 1);
  t.regex(told.stderr, /no resource "r0"/);
});

test.serial('a service without a runtime directory is found from a login that has one', async (t) => {
  const { api, directory } = await node(t);
  const login = { ...cleanEnvironment(join(directory, 'run')), XDG_STATE_HOME: join(directory, 'home') };
  const tokenFile = join(directory, 'api-token');
  const entry = { name: 'alpha', api, pid: process.pid, tokenFile, dataDirectory: directory };
  registerNode(entry, { XDG_STATE_HOME: login.XDG_STATE_HOME });
  const status = await lockstep(['status'], login);
  t.deepEqual([status.status, status.stdout], [0, 'no resources\n'], status.stderr);
});

test.serial('events that are torn off by the death of the node say so, without a trace', async (t) => {
  const { environment, send, app } = await node(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const child = spawn(process.execPath, [mainFile, 'events'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const exited = once(child, 'close');
  await once(child.stdout, 'data');
  app.server.closeAllConnections();
  t.deepEqual(await exited, [1, null]);
  t.regex(stderr, /^lockstep events: no answer from http.*Is the node running\?.*\n$/);
});

test.serial('events prints a line per change until it is ended', async (t) => {
  const { environment, send, plane } = await node(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const child = spawn(process.execPath, [mainFile, 'events'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const healthy = 'disk:UpToDate clients:0 peer:beta connection:Connected role:Secondary peer-disk:UpToDate';
  t.is((await lines.next()).value, `r0 role:Secondary ${healthy}`);
  plane.change('r0', { role: 'Primary' });
  t.is((await lines.next()).value, `r0 role:Primary ${healthy}`);
  await plane.stop('r0');
  t.is((await lines.next()).value, 'r0 removed');
  child.kill('SIGTERM');
  await once(child, 'close');
});
