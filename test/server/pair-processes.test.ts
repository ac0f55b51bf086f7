/** `lockstep pair` as the user meets it: it comes up, restarts what dies, and leaves nothing behind. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { ApiClient, checkStatus, expectBody } from '../../server/cli/api-client.ts';
import { pairLayout } from '../../server/pair/layout.ts';
import { cleanEnvironment, lockstep, mainFile } from '../support/command-line.ts';
import { freePort } from '../support/ports.ts';
import { temporaryDirectory } from '../support/test-app.ts';

async function startedPair(t: ExecutionContext) {
  t.timeout(180_000);
  const directory = temporaryDirectory(t);
  const environment = cleanEnvironment(directory);
  const layout = pairLayout(join(directory, 'pair'), await freeBase());
  const args = [
    'pair',
    '--dir',
    layout.directory,
    '--ports',
    String(layout.alpha.apiPort),
    '--size',
    '16MiB',
  ];
  const child = spawn(process.execPath, [mainFile, ...args], {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // Its nodes stop when they lose it.
  t.teardown(() => child.kill('SIGKILL'));
  const closed = once(child, 'close') as Promise<[number | null, string | null]>;
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const seen: string[] = [];
  const until = async (text: string): Promise<void> => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`the pair ended before "${text}":\n${seen.join('\n')}`);
      seen.push(value);
      if (value.includes(text)) return;
    }
  };
  await until('Ctrl-C stops both nodes');
  const client = (node: { name: string; apiPort: number; dataDirectory: string }) =>
    new ApiClient({
      name: node.name,
      api: `http://127.0.0.1:${node.apiPort}`,
      token: readFileSync(join(node.dataDirectory, 'api-token'), 'utf8').trim(),
    });
  const alpha = client(layout.alpha);
  const beta = client(layout.beta);
  t.teardown(async () => {
    // Only a failed test leaves nodes that still answer.
    for (const node of [alpha, beta]) {
      const pid = await pidOf(node).catch(() => null);
      if (pid !== null) process.kill(pid, 'SIGKILL');
    }
  });
  return { child, closed, until, args, environment, alpha, beta };
}

/** A base whose six ports are free. */
async function freeBase(): Promise<number> {
  const base = await freePort();
  return base > 65_000 ? freeBase() : base;
}

async function statusOf(client: ApiClient) {
  const reply = await client.request('GET', '/v1/resources/r0');
  return expectBody(checkStatus(reply.ok ? reply.body : null));
}

async function pidOf(client: ApiClient): Promise<number> {
  const reply = await client.request('GET', '/v1/node');
  const body: unknown = reply.ok ? reply.body : null;
  if (typeof body !== 'object' || body === null || !('pid' in body)) throw new Error('no answer of the node');
  return Number(body.pid);
}

test.serial(
  'comes up mirrored with alpha Primary; a killed node is started again; Ctrl-C ends all with 0',
  async (t) => {
    const { child, closed, until, args, environment, alpha, beta } = await startedPair(t);
    t.like(await statusOf(alpha), { role: 'Primary', diskState: 'UpToDate', size: 16 * 1024 ** 2 });
    t.like(await statusOf(beta), {
      role: 'Secondary',
      diskState: 'UpToDate',
      peers: [{ connection: 'Connected' }],
    });

    const second = await lockstep(args, environment);
    t.is(second.status, 1);
    t.regex(second.stderr, /(alpha|beta) did not start .* another process has /);

    const before = await pidOf(beta);
    process.kill(before, 'SIGKILL');
    await until('beta ended (SIGKILL)');
    await until('beta is back');
    t.not(await pidOf(beta), before);
    t.like(await statusOf(alpha), { role: 'Primary' });

    child.kill('SIGINT');
    t.deepEqual(await closed, [0, null]);
    t.false((await alpha.request('GET', '/v1/node')).ok);
    t.false((await beta.request('GET', '/v1/node')).ok);
  },
);

test.serial('its nodes stop when it is killed', async (t) => {
  const { child, closed, alpha, beta } = await startedPair(t);
  const streams = [alpha.events(), beta.events()];
  await Promise.all(streams.map((stream) => stream.next()));
  child.kill('SIGKILL');
  await closed;
  // A stream ends when its node closes it; a node that stayed would keep it open.
  for (const stream of streams) for await (const _event of stream) continue;
  t.pass();
});
