/** Real nodes of this checkout for a measurement: one, or a pair that mirrors, under one directory; ended with it. */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSize } from '../../server/size.ts';
import { NodeProcess } from '../../test/support/node-process.ts';
import { freePort } from '../../test/support/ports.ts';
import { isMirroring } from '../../test/support/status.ts';
import type { Report } from './report.ts';

export interface Measurement {
  /** Of its own, removed afterwards. */
  readonly directory: string;
  /** The same in memory: for the images of devices where software is measured and not the disk. */
  readonly memory: string;
  readonly report: Report;
  /** How long a row of load takes. */
  readonly seconds: number;
  /** How long the run for memory over time takes. */
  readonly minutes: number;
  /** The nodes that are to be ended, whatever happens. */
  readonly nodes: NodeProcess[];
}

export function makeNode(
  run: Measurement,
  name: string,
  env: Readonly<Record<string, string>> = {},
): NodeProcess {
  const dir = join(run.directory, name);
  mkdirSync(dir, { recursive: true });
  const program = [fileURLToPath(new URL('../../server/lockstep.js', import.meta.url)), 'serve'];
  const node = new NodeProcess(dir, { name, env, program, args: ['--log-level', 'warn'] });
  run.nodes.push(node);
  return node;
}

/** The export over its Unix socket. */
export function uriOf(node: NodeProcess, resource: string): string {
  return `nbd+unix:///${resource}?socket=${socketOf(node, resource)}`;
}

export function socketOf(node: NodeProcess, resource: string): string {
  return join(node.dir, 'resources', resource, 'nbd.sock');
}

export function backingOf(node: NodeProcess, resource: string): string {
  return join(node.dir, 'resources', resource, 'data.img');
}

/** A device without a mirror; Primary at once. */
export async function definePlain(node: NodeProcess, resource: string, size: string): Promise<void> {
  await node.call('PUT', `/v1/resources/${resource}`, { size, nbd: {} });
}

export interface Mirrored {
  readonly primary: NodeProcess;
  readonly secondary: NodeProcess;
  readonly resource: string;
}

export interface MirrorOptions {
  readonly policies?: Readonly<Record<string, unknown>>;
  readonly protocol?: 'A' | 'B' | 'C';
  /** Where the images are; left out: with the metadata. */
  readonly images?: string;
  /** Where the Primary finds its peer instead of at its port, given that port. */
  readonly through?: (port: number) => Promise<number>;
}

/** Defines a resource on both; resolves when it is mirroring and `alpha` is Primary. */
export async function defineMirrored(
  [alpha, beta]: readonly [NodeProcess, NodeProcess],
  resource: string,
  size: string,
  options: MirrorOptions = {},
): Promise<Mirrored> {
  const ports = { alpha: await freePort(), beta: await freePort() };
  const through = options.through ?? ((port: number) => Promise.resolve(port));
  const { images } = options;
  if (images !== undefined)
    for (const name of ['alpha', 'beta']) makeImage(imageOf(images, name, resource), size);
  const body = (own: 'alpha' | 'beta', peer: 'alpha' | 'beta', peerPort: number): unknown => ({
    size,
    ...(images === undefined ? {} : { backing: { path: imageOf(images, own, resource) } }),
    nbd: {},
    replication: {
      listen: `127.0.0.1:${ports[own]}`,
      secret: 'only for measurements',
      protocol: options.protocol ?? 'C',
    },
    peers: [{ name: peer, address: `127.0.0.1:${peerPort}` }],
    ...(options.policies === undefined ? {} : { policies: options.policies }),
  });
  await Promise.all([
    alpha.call('PUT', `/v1/resources/${resource}`, body('alpha', 'beta', await through(ports.beta))),
    beta.call('PUT', `/v1/resources/${resource}`, body('beta', 'alpha', await through(ports.alpha))),
  ]);
  await Promise.all([
    alpha.waitFor(resource, isMirroring, 'mirroring'),
    beta.waitFor(resource, isMirroring, 'mirroring'),
  ]);
  await alpha.call('POST', `/v1/resources/${resource}/promote`);
  return { primary: alpha, secondary: beta, resource };
}

function imageOf(directory: string, node: string, resource: string): string {
  return join(directory, `${node}-${resource}.img`);
}

/** Nothing but a hole. */
function makeImage(path: string, size: string): void {
  const parsed = parseSize(size);
  if (!parsed.ok) throw new Error(parsed.problem);
  writeFileSync(path, '');
  truncateSync(path, parsed.sizeBytes);
}

export async function startPair(run: Measurement): Promise<readonly [NodeProcess, NodeProcess]> {
  const pair = [makeNode(run, 'alpha'), makeNode(run, 'beta')] as const;
  await Promise.all(pair.map((node) => node.start()));
  return pair;
}

/** How long a step takes, milliseconds. */
export async function timed(step: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await step();
  return performance.now() - startMs;
}
