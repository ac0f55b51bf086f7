/**
 * `npm run measure`: the figures of a pair on this machine, as a user would see them: mirrored and unmirrored 4 KiB random
 * writes at queue 1 and 32 (fio's nbd engine), an idle resync at full speed and clients' writes beside one, the time a forced promotion takes after kill -9 of the Primary under load, and
 * how much the quick resync copies when it returns. Prints a table; machines are noisy, so compare within one run.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Type } from 'typebox';
import { connectNbd } from '../nbd/client.ts';
import { ApiClient, ApiFailure, checkStatus, expectBody } from '../server/cli/api-client.ts';
import { ChildNode } from '../server/pair/child-node.ts';
import { bodyFor, pairLayout, type NodeLayout } from '../server/pair/layout.ts';
import { waitUntilSettled } from '../server/pair/settling.ts';
import { checker } from '../server/validation.ts';
import { readFlags, wholeNumber } from './flags.ts';

const size = '1GiB';
const filledMiB = 512;
const script = 'measure';
const flags = readFlags(script, {
  dir: { type: 'text', help: 'DIR  where the nodes are (default: the system’s for temporary files)' },
  seconds: { type: 'text', help: 'N  of one measurement (default 4)' },
  ports: { type: 'text', help: 'N  the first of those that the nodes use (default 17780)' },
});
const parent = flags.text('dir') ?? tmpdir();
const seconds = wholeNumber(script, 'seconds', flags.text('seconds') ?? '4', 1, 3_600);
const firstPort = wholeNumber(script, 'ports', flags.text('ports') ?? '17780', 1, 65_000);

interface Node {
  readonly layout: NodeLayout;
  child: ChildNode;
  client: ApiClient;
}

const checkFio = checker(
  Type.Object({
    jobs: Type.Array(
      Type.Object({
        write: Type.Object({
          iops: Type.Number(),
          clat_ns: Type.Object({ percentile: Type.Record(Type.String(), Type.Number()) }),
        }),
      }),
    ),
  }),
);
const checkDecisions = checker(
  Type.Array(
    Type.Object({
      kind: Type.String(),
      rule: Type.String(),
      inputs: Type.Record(Type.String(), Type.Unknown()),
    }),
  ),
);

const directory = await mkdtemp(join(parent, 'lockstep-measure-'));
const layout = pairLayout(directory, firstPort);
const nodes: Node[] = [];
try {
  const alpha = await start(layout.alpha);
  const beta = await start(layout.beta);
  await ask(alpha, 'PUT', '/v1/resources/r0', bodyFor(layout.alpha, layout.beta, 'measure', size));
  await ask(beta, 'PUT', '/v1/resources/r0', bodyFor(layout.beta, layout.alpha, 'measure', size));
  await ask(alpha, 'PUT', '/v1/resources/plain', { size, nbd: {} });
  await settled();
  await ask(alpha, 'POST', '/v1/resources/r0/promote');
  console.log(`pair on loopback, ${size}, data under ${parent}, ${seconds} s a row`);
  const plain = `nbd+unix:///plain?socket=${join(layout.alpha.dataDirectory, 'resources/plain/nbd.sock')}`;
  const mirrored = `nbd://127.0.0.1:${layout.alpha.nbdPort}/r0`;
  await failover(alpha, beta);
  const started = nodes.find((node) => node.layout === layout.alpha);
  if (started) await ask(started, 'POST', '/v1/resources/r0/failover');
  for (const depth of [1, 32]) {
    await fio('unmirrored', plain, depth);
    await fio('mirrored', mirrored, depth);
  }
  await idleResync(beta, mirrored);
  for (const depth of [1, 8]) await besideResync(alpha, beta, mirrored, depth);
} finally {
  await Promise.all(nodes.map(({ child }) => child.stop()));
  await rm(directory, { recursive: true, force: true });
}

async function start(node: NodeLayout): Promise<Node> {
  const child = new ChildNode({
    name: node.name,
    dataDirectory: node.dataDirectory,
    api: `127.0.0.1:${node.apiPort}`,
    say: (text) => console.log(text),
    restarted: () => undefined,
  });
  const ready = await child.start();
  const token = readFileSync(ready.tokenFile, 'utf8').trim();
  const started = { layout: node, child, client: new ApiClient({ name: node.name, api: ready.api, token }) };
  nodes.push(started);
  return started;
}

async function ask(
  node: Node,
  method: 'GET' | 'PUT' | 'POST',
  path: string,
  body?: unknown,
): Promise<unknown> {
  const reply = await node.client.request(method, path, body);
  if (!reply.ok) throw new ApiFailure(reply.problem);
  return reply.body;
}

async function settled(): Promise<void> {
  const outcome = await waitUntilSettled(
    nodes.map(({ client }) => client),
    () => undefined,
  );
  if (outcome.kind === 'stuck') throw new Error(outcome.why);
}

async function fio(what: string, uri: string, depth: number, rampSeconds = 0): Promise<void> {
  const options = [
    '--name=w',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randwrite',
    '--bs=4k',
    '--size=512M',
    `--iodepth=${depth}`,
  ];
  const output = await run('fio', [
    ...options,
    `--runtime=${seconds}`,
    `--ramp_time=${rampSeconds}`,
    '--time_based',
    '--output-format=json',
  ]);
  const job = expectBody(checkFio(JSON.parse(output.slice(output.indexOf('{'))))).jobs[0]?.write;
  const us = (percent: string): string => ((job?.clat_ns.percentile[percent] ?? 0) / 1000).toFixed(0);
  console.log(
    `4k random write, ${what}, queue ${depth}: ${Math.round(job?.iops ?? 0)} IOPS, ` +
      `median ${us('50.000000')} us, p99 ${us('99.000000')} us`,
  );
}

/** Everything is copied to beta, half a gibibyte of it data and the rest holes, while no client is active. */
async function idleResync(beta: Node, uri: string): Promise<void> {
  const fill = ['--name=fill', '--ioengine=nbd', `--uri=${uri}`, '--rw=write', '--bs=1M', '--iodepth=4'];
  await run('fio', [...fill, `--size=${filledMiB}M`, '--end_fsync=1']);
  const startMs = performance.now();
  await ask(beta, 'POST', '/v1/resources/r0/resync', { action: 'invalidate' });
  await settled();
  const seconds = (performance.now() - startMs) / 1000;
  console.log(`idle resync of ${filledMiB} MiB of data: ${(filledMiB / seconds).toFixed(0)} MiB/s`);
}

/** The same writes without a resync and beside one that is begun first; the controller has three seconds to settle. */
async function besideResync(alpha: Node, beta: Node, uri: string, depth: number): Promise<void> {
  await fio('no resync', uri, depth, 1);
  await ask(beta, 'POST', '/v1/resources/r0/resync', { action: 'invalidate' });
  const writing = fio('beside a resync', uri, depth, 3);
  await delay((3 + seconds) * 1000 - 500);
  const status = expectBody(checkStatus(await ask(alpha, 'GET', '/v1/resources/r0')));
  const sync = status.peers[0]?.sync;
  await writing;
  console.log(
    sync
      ? `  the resync meanwhile: ${(sync.bytesPerSecond / 1024 ** 2).toFixed(1)} MiB/s, held back by: ${sync.rate.reason}`
      : '  the resync was over before the writes were',
  );
  await settled();
}

async function run(command: string, options: readonly string[]): Promise<string> {
  const child = spawn(command, options, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', (error) =>
      reject(
        new Error(`${command} cannot be run (scripts/install-test-tools.sh installs it)`, { cause: error }),
      ),
    );
    child.on('close', (status) =>
      status === 0 ? resolve(output) : reject(new Error(`${command} ended with status ${status}`)),
    );
  });
}

/** Kills the Primary under load, promotes the other, and lets the first come back. */
async function failover(alpha: Node, beta: Node): Promise<void> {
  const active = 5;
  const client = await connectNbd({
    address: { host: '127.0.0.1', port: alpha.layout.nbdPort },
    exportName: 'r0',
  });
  const block = Buffer.alloc(4096, 1);
  let written = 0;
  const writer = async (): Promise<void> => {
    for (;;) {
      await client.write((written++ % (active * 1024)) * 4096, block);
      // Killed while all sixteen writers are busy.
      if (written === 20_000) alpha.child.kill();
    }
  };
  await Promise.allSettled(Array.from({ length: 16 }, writer));
  const startMs = performance.now();
  await ask(beta, 'POST', '/v1/resources/r0/promote', { force: true });
  console.log(
    `promote --force after kill -9 of the Primary under load: ${(performance.now() - startMs).toFixed(1)} ms`,
  );
  const survivor = await connectNbd({
    address: { host: '127.0.0.1', port: beta.layout.nbdPort },
    exportName: 'r0',
  });
  for (let at = 0; at < 1024; at++) await survivor.write((at + 100_000) * 4096, block);
  await survivor.flush();
  await survivor.disconnect();
  nodes.splice(nodes.indexOf(alpha), 1);
  const backMs = performance.now();
  await start(layout.alpha);
  await settled();
  const decisions = expectBody(checkDecisions(await ask(beta, 'GET', '/v1/resources/r0/decisions')));
  const blocks = Number(
    decisions.findLast(({ kind, rule }) => kind === 'resync' && rule === 'quick')?.inputs['blocks'] ?? 0,
  );
  const status = expectBody(checkStatus(await ask(beta, 'GET', '/v1/resources/r0')));
  console.log(
    `quick resync after its return: ${(blocks * 4) / 1024} MiB of ${status.size / 1024 ** 2} MiB (${active} active extents of 4 MiB at ` +
      `the crash, 4 MiB written meanwhile), both UpToDate ${((performance.now() - backMs) / 1000).toFixed(1)} s after its start`,
  );
}
