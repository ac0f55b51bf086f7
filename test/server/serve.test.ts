/** `lockstep serve` as a process: readiness, token, signals, a second one on the same directory. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { cleanEnvironment, lockstep, mainFile } from '../support/command-line.ts';
import { temporaryDirectory } from '../support/test-app.ts';

interface Ready {
  ready: boolean;
  api: string;
  pid: number;
  tokenFile: string;
}

async function serving(t: ExecutionContext, ...extra: string[]) {
  const directory = temporaryDirectory(t);
  const environment = cleanEnvironment(directory);
  const data = join(directory, 'data');
  const args = ['serve', '--name', 'alpha', '--data-dir', data, '--api', '127.0.0.1:0', ...extra];
  const child = spawn(process.execPath, [mainFile, ...args], {
    env: environment,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  const exited = once(child, 'close') as Promise<[number | null, string | null]>;
  const stdout: string[] = [];
  const first = new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      stdout.push(line);
      resolve(line);
    });
    void exited.then(() => reject(new Error(`serve ended: ${log}`)));
  });
  const ready = JSON.parse(await first) as Ready;
  return { child, exited, ready, environment, data, stdout, args, log: () => log };
}

test.serial('prints one line when ready; answers; SIGTERM ends it with 0', async (t) => {
  const { child, exited, ready, environment, stdout } = await serving(t);
  t.deepEqual(Object.keys(ready), ['ready', 'api', 'pid', 'tokenFile']);
  t.is(child.pid, ready.pid);
  t.is((await fetch(new URL('/readyz', ready.api))).status, 200);
  const authorization = `Bearer ${readFileSync(ready.tokenFile, 'utf8').trim()}`;
  t.is((await fetch(new URL('/v1/node', ready.api), { headers: { authorization } })).status, 200);
  // Found without being told anything, since it runs for this user.
  t.is((await lockstep(['status'], environment)).stdout, 'no resources\n');
  // A stream that is open does not hold up the end.
  const events = await fetch(new URL('/v1/events', ready.api), { headers: { authorization } });
  child.kill('SIGTERM');
  t.deepEqual(await exited, [0, null]);
  t.is(stdout.length, 1);
  await events.text();
  const after = await lockstep(['status'], environment);
  t.is(after.status, 2);
  t.regex(after.stderr, /no node of this user is running/);
});

test.serial('a second node on the same directory is refused, and the first goes on', async (t) => {
  const { environment, args, ready } = await serving(t);
  const second = await lockstep(args, environment);
  t.is(second.status, 1);
  t.regex(second.stderr, /^lockstep serve: another process has /m);
  t.is((await fetch(new URL('/healthz', ready.api))).status, 200);
});

test.serial('kill -9 leaves nothing that keeps it from starting again, with the same token', async (t) => {
  const { child, exited, ready, environment, data } = await serving(t);
  const token = readFileSync(ready.tokenFile, 'utf8');
  child.kill('SIGKILL');
  await exited;
  t.is((await lockstep(['status'], environment)).status, 2, 'its record is passed over');
  const again = spawn(
    process.execPath,
    [mainFile, 'serve', '--name', 'alpha', '--data-dir', data, '--api', '127.0.0.1:0'],
    {
      env: environment,
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  t.teardown(() => again.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: again.stdout }), 'line')) as [string];
  t.is(readFileSync((JSON.parse(line) as Ready).tokenFile, 'utf8'), token);
});

test.serial('with --stop-on-stdin-end it stops when its supervisor is gone', async (t) => {
  const { child, exited } = await serving(t, '--stop-on-stdin-end');
  child.stdin.end();
  t.deepEqual(await exited, [0, null]);
});

test.serial('a used API address and a bad configuration are clear errors', async (t) => {
  const directory = temporaryDirectory(t);
  const environment = cleanEnvironment(directory);
  const blocker = createServer().listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  t.teardown(() => blocker.close());
  const { port } = blocker.address() as AddressInfo;
  const used = await lockstep(
    ['serve', '--name', 'a', '--data-dir', join(directory, 'd'), '--api', `127.0.0.1:${port}`],
    environment,
  );
  t.is(used.status, 1);
  t.regex(used.stderr, new RegExp(`address 127\\.0\\.0\\.1:${port} of the control API is in use`));
  const config = join(directory, 'c.json');
  writeFileSync(config, JSON.stringify({ resources: { r0: { size: 4097 } } }));
  const bad = await lockstep(
    ['serve', '--name', 'a', '--data-dir', join(directory, 'd'), '--config', config],
    environment,
  );
  t.is(bad.status, 2);
  t.regex(bad.stderr, /resource "r0": "size": the size must be a multiple of 4096/);
});

test.serial('a log on a full disk does not end the node', async (t) => {
  const directory = temporaryDirectory(t);
  const log = openSync('/dev/full', 'w');
  const child = spawn(
    process.execPath,
    [mainFile, 'serve', '--name', 'alpha', '--data-dir', join(directory, 'data'), '--api', '127.0.0.1:0'],
    { env: cleanEnvironment(directory), stdio: ['ignore', 'pipe', log] },
  );
  closeSync(log);
  t.teardown(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>;
  const { stdout } = child;
  if (!stdout) throw new Error('its output is a pipe');
  // It logs before this line and after.
  const ready = once(createInterface({ input: stdout }), 'line').then(() => 'ready');
  t.is(await Promise.race([ready, exited.then(() => 'ended')]), 'ready');
  child.kill('SIGTERM');
  t.deepEqual(await exited, [0, null]);
});
