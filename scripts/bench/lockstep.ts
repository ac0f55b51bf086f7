/** Our own: a pair with one mirrored resource, and a third node with an unmirrored one. Processes as `serve` starts them. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { NodeProcess } from '../../test/support/node-process.ts';
import { freePort } from '../../test/support/ports.ts';
import { isMirroring } from '../../test/support/status.ts';
import { unixUri, type Contender, type Place } from './contender.ts';
import type { ContenderName } from './rows.ts';

const resource = 'r0';

export interface LockstepOptions extends Place {
  /** Arguments of Node itself, before the program: a profile, say. */
  readonly nodeFlags?: readonly string[];
}

export async function startPair(options: LockstepOptions): Promise<Contender> {
  const alpha = make('alpha', options);
  const beta = make('beta', options);
  return started('mirrored', [alpha, beta], async () => {
    const [portOfAlpha, portOfBeta] = [await freePort(), await freePort()];
    const define = (node: NodeProcess, own: number, peer: NodeProcess, peerPort: number): Promise<unknown> =>
      node.call('PUT', `/v1/resources/${resource}`, {
        size: options.sizeBytes,
        nbd: {},
        replication: { listen: `127.0.0.1:${own}`, secret: 'only for the bench' },
        peers: [{ name: peer.name, address: `127.0.0.1:${peerPort}` }],
      });
    await Promise.all([
      define(alpha, portOfAlpha, beta, portOfBeta),
      define(beta, portOfBeta, alpha, portOfAlpha),
    ]);
    await Promise.all(
      [alpha, beta].map((node) => node.waitFor(resource, isMirroring, 'both copies UpToDate')),
    );
    await alpha.call('POST', `/v1/resources/${resource}/promote`);
  });
}

export async function startUnmirrored(options: LockstepOptions): Promise<Contender> {
  const node = make('gamma', options);
  return started('unmirrored', [node], async () => {
    await node.call('PUT', `/v1/resources/${resource}`, { size: options.sizeBytes, nbd: {} });
    await node.waitFor(resource, ({ diskState }) => diskState === 'UpToDate', 'the disk UpToDate');
  });
}

function make(name: string, { directory, nodeFlags = [] }: LockstepOptions): NodeProcess {
  const dir = join(directory, name);
  mkdirSync(dir);
  const main = join(import.meta.dirname, '../../server/main.ts');
  return new NodeProcess(dir, { name, program: [...nodeFlags, main, 'serve'] });
}

async function started(
  name: ContenderName,
  nodes: readonly NodeProcess[],
  setUp: () => Promise<void>,
): Promise<Contender> {
  const [first] = nodes;
  if (!first) throw new Error('no node');
  try {
    await Promise.all(nodes.map((node) => node.start()));
    await setUp();
  } catch (error) {
    await Promise.all(nodes.map((node) => node.kill9()));
    throw error;
  }
  return {
    name,
    uri: unixUri(resource, join(first.dir, 'resources', resource, 'nbd.sock')),
    pids: nodes.map(({ pid }) => pid),
    commands: nodes.map(
      (node) => `lockstep serve --name ${node.name} --data-dir ${node.dir} --api 127.0.0.1:0`,
    ),
    stop: async () => {
      await Promise.all(nodes.map((node) => node.stop()));
    },
  };
}
