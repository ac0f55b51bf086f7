/** `lockstep pair`, which `npm start` runs: two nodes on loopback, one mirrored resource, ready to attach. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import closeWithGrace from 'close-with-grace';
import { ApiClient, ApiFailure, checkStatus, expectBody } from './cli/api-client.ts';
import type { Arguments, FlagSpec } from './cli/arguments.ts';
import { resourcePath } from './cli/verbs.ts';
import { UsageError } from './config.ts';
import { readToken } from './data-directory.ts';
import { banner } from './pair/banner.ts';
import { ChildNode } from './pair/child-node.ts';
import {
  bodyFor,
  host,
  pairLayout,
  parsePortBase,
  resourceName,
  type NodeLayout,
  type PairLayout,
} from './pair/layout.ts';
import { waitUntilSettled } from './pair/settling.ts';
import type { ResourceStatus } from './schemas/status.ts';
import { parseSize } from './size.ts';
import { StartError } from './start-error.ts';
import { onStopSignals, stopSignals } from './stop-signals.ts';

export const pairFlags: Readonly<Record<string, FlagSpec>> = {
  dir: { type: 'text', help: 'DIR  for the data of both nodes (default ./.lockstep)' },
  ports: {
    type: 'text',
    help: 'BASE  of the six ports (default: API 7780/7790, NBD 10809/10819, replication 7789/7799)',
  },
  size: { type: 'text', help: 'SIZE  of the resource when it is created (default 1GiB)' },
  help: { type: 'switch', help: 'print this' },
};

/** Both nodes stop within their own 5 s; milliseconds. */
const stopGraceMs = 10_000;

/** Null: it runs until a signal. Throws what keeps the pair from starting. */
export async function runPair(args: Arguments): Promise<number | null> {
  const ports = args.text('ports');
  const size = args.text('size') ?? '1GiB';
  const checked = parseSize(size);
  if (!checked.ok) throw new UsageError(`pair: --size: ${checked.problem}`);
  const layout = pairLayout(
    resolve(args.text('dir') ?? '.lockstep'),
    ports === undefined ? null : parsePortBase(ports),
  );
  mkdirSync(layout.directory, { recursive: true, mode: 0o700 });

  const children = [layout.alpha, layout.beta].map(
    (node) =>
      new ChildNode({
        name: node.name,
        dataDirectory: node.dataDirectory,
        api: `${host}:${node.apiPort}`,
        say,
        restarted: () => void hint(layout),
      }),
  );
  const grace = closeWithGrace(
    {
      delay: stopGraceMs,
      logger: false,
      skip: [...stopSignals, 'uncaughtException', 'unhandledRejection', 'beforeExit'],
    },
    async () => {
      say('stopping both nodes ...');
      await Promise.all(children.map((child) => child.stop()));
    },
  );
  onStopSignals(
    () => grace.close(),
    () => {
      say('killed');
      for (const child of children) child.kill();
      process.exit(1);
    },
  );

  try {
    say(`starting alpha and beta in ${layout.directory} ...`);
    await Promise.all(children.map((child) => child.start()));
    const statuses = await bringUp(layout, size);
    process.stdout.write(`\n${banner(layout, statuses, commandName())}\n\n`);
    return null;
  } catch (error) {
    grace.uninstall();
    await Promise.all(children.map((child) => child.stop()));
    if (error instanceof StartError && error.message.includes('is in use; free it'))
      say('"--ports BASE" moves all six ports of the pair');
    throw error;
  }
}

/** Defines the resource where it is missing, waits for both copies, promotes alpha unless there is a Primary. */
async function bringUp(layout: PairLayout, size: string): Promise<readonly ResourceStatus[]> {
  const clients = [clientOf(layout.alpha), clientOf(layout.beta)] as const;
  const secret = readOrCreateSecret(layout.secretFile);
  await define(clients[0], bodyFor(layout.alpha, layout.beta, secret, size));
  await define(clients[1], bodyFor(layout.beta, layout.alpha, secret, size));
  const settled = await waitUntilSettled(clients, say);
  if (settled.kind === 'stuck') {
    say(`not healthy: ${settled.why}`);
    const fault = settled.statuses.find((status) => status.error !== null);
    if (fault) throw new StartError(settled.why);
  }
  if (!settled.statuses.some((status) => status.role === 'Primary')) {
    const reply = await clients[0].request('POST', `${resourcePath(resourceName)}/promote`);
    if (!reply.ok) say(`alpha was not promoted: ${reply.problem.detail}`);
  }
  return Promise.all(clients.map(statusFrom));
}

async function define(client: ApiClient, body: object): Promise<void> {
  // What is there stays as it is: it may have been resized or otherwise changed since.
  const existing = await client.request('GET', resourcePath(resourceName));
  if (existing.ok) return;
  if (existing.problem.code !== 'not-found') throw new ApiFailure(existing.problem);
  const reply = await client.request('PUT', resourcePath(resourceName), body);
  if (!reply.ok) throw new ApiFailure(reply.problem);
}

async function statusFrom(client: ApiClient): Promise<ResourceStatus> {
  const reply = await client.request('GET', resourcePath(resourceName));
  if (!reply.ok) throw new ApiFailure(reply.problem);
  return expectBody(checkStatus(reply.body));
}

/** After a crash roles are the operator's: say so when no node is Primary. */
async function hint(layout: PairLayout): Promise<void> {
  const nodes = [layout.alpha, layout.beta];
  const replies = await Promise.all(nodes.map((node) => statusFrom(clientOf(node)).catch(() => null)));
  if (replies.some((status) => status?.role === 'Primary')) return;
  say('no node is Primary now; clients wait or fail until one is. To choose:');
  for (const node of nodes)
    say(`  ${commandName()} failover ${resourceName} --api http://${host}:${node.apiPort}`);
}

function clientOf(node: NodeLayout): ApiClient {
  const token = readToken(`${node.dataDirectory}/api-token`);
  if (token === null) throw new Error(`${node.name} has no token in ${node.dataDirectory}`);
  return new ApiClient({ name: node.name, api: `http://${host}:${node.apiPort}`, token });
}

function readOrCreateSecret(path: string): string {
  try {
    writeFileSync(path, randomBytes(32).toString('base64url'), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
  const secret = readFileSync(path, 'utf8').trim();
  if (secret === '')
    throw new StartError(`${path} is empty; remove it and the directories beside it to begin anew`);
  return secret;
}

/** How this very command line is called, for lines to copy. */
function commandName(): string {
  return import.meta.url.endsWith('.ts') ? 'npm run -s lockstep --' : 'lockstep';
}

function say(text: string): void {
  process.stdout.write(`pair: ${text}\n`);
}
