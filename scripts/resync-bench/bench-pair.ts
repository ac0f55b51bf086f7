/** The pair that is measured: two real nodes with their images in one directory, NBD over Unix sockets, and what they used. */
import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Type } from 'typebox';
import { ApiClient, ApiFailure, checkStatus, expectBody } from '../../server/cli/api-client.ts';
import { ChildNode } from '../../server/pair/child-node.ts';
import { bodyFor, pairLayout, resourceName, type NodeLayout } from '../../server/pair/layout.ts';
import { waitUntilSettled } from '../../server/pair/settling.ts';
import type { ResourceStatus } from '../../server/schemas/status.ts';
import { checker } from '../../server/validation.ts';

/** Of /proc/PID/stat, on every Linux that Node runs on. */
const ticksPerSecond = 100;

const checkDecisions = checker(
  Type.Array(
    Type.Object({
      kind: Type.String(),
      rule: Type.String(),
      inputs: Type.Record(Type.String(), Type.Unknown()),
    }),
  ),
);

interface Node {
  readonly layout: NodeLayout;
  readonly child: ChildNode;
  readonly client: ApiClient;
}

export interface Usage {
  readonly seconds: number;
  /** Processor time of both nodes together. */
  readonly cpuSeconds: number;
}

export class BenchPair {
  readonly alpha: Node;
  readonly beta: Node;

  private constructor(alpha: Node, beta: Node) {
    this.alpha = alpha;
    this.beta = beta;
  }

  /** Both UpToDate, alpha Primary, when this resolves. `size` as the API takes it; `ports`: the base of six. */
  static async start(directory: string, size: string, ports: number): Promise<BenchPair> {
    const layout = pairLayout(directory, ports);
    const alpha = await startNode(layout.alpha);
    const beta = await startNode(layout.beta).catch(async (error: unknown) => {
      await alpha.child.stop();
      throw error;
    });
    const pair = new BenchPair(alpha, beta);
    try {
      for (const [self, peer] of [
        [layout.alpha, layout.beta],
        [layout.beta, layout.alpha],
      ] as const) {
        const body = { ...bodyFor(self, peer, 'bench', size), nbd: {} };
        await pair.ask(self === layout.alpha ? 'alpha' : 'beta', 'PUT', '', body);
      }
      await pair.settled();
      await pair.ask('alpha', 'POST', '/promote');
    } catch (error) {
      await pair.stop();
      throw error;
    }
    return pair;
  }

  get uri(): string {
    return `nbd+unix:///${resourceName}?socket=${this.socketPath}`;
  }

  get socketPath(): string {
    return join(this.alpha.layout.dataDirectory, 'resources', resourceName, 'nbd.sock');
  }

  async ask(
    name: 'alpha' | 'beta',
    method: 'GET' | 'PUT' | 'POST' | 'PATCH',
    path: string,
    body?: unknown,
  ): Promise<unknown> {
    const reply = await this[name].client.request(method, `/v1/resources/${resourceName}${path}`, body);
    if (!reply.ok) throw new ApiFailure(reply.problem);
    return reply.body;
  }

  async policies(policies: Readonly<Record<string, unknown>>): Promise<void> {
    for (const name of ['alpha', 'beta'] as const) await this.ask(name, 'PATCH', '', { policies });
  }

  async status(name: 'alpha' | 'beta'): Promise<ResourceStatus> {
    return expectBody(checkStatus(await this.ask(name, 'GET', '')));
  }

  async settled(): Promise<void> {
    const clients = [this.alpha.client, this.beta.client];
    const outcome = await waitUntilSettled(clients, () => undefined);
    if (outcome.kind === 'stuck') throw new Error(outcome.why);
  }

  async until(name: 'alpha' | 'beta', holds: (status: ResourceStatus) => boolean): Promise<void> {
    while (!holds(await this.status(name))) await delay(20);
  }

  async using(work: () => Promise<void>): Promise<Usage> {
    const cpuBefore = this.#cpuSeconds();
    const startMs = performance.now();
    await work();
    const seconds = (performance.now() - startMs) / 1000;
    return { seconds, cpuSeconds: this.#cpuSeconds() - cpuBefore };
  }

  /** What the last resync recorded of itself: figures by name. */
  async lastResync(): Promise<Readonly<Record<string, number>>> {
    const decisions = expectBody(checkDecisions(await this.ask('beta', 'GET', '/decisions')));
    const last = decisions.findLast(({ kind, inputs }) => kind === 'resync' && 'copiedBlocks' in inputs);
    const figures = Object.entries(last?.inputs ?? {}).map(([name, value]) => [name, Number(value)] as const);
    return Object.fromEntries(figures);
  }

  /** Bytes that beta's image takes on its file system. */
  async allocatedBytes(): Promise<number> {
    const { backing } = await this.status('beta');
    return (await stat(backing.path)).blocks * 512;
  }

  async stop(): Promise<void> {
    await Promise.all([this.alpha, this.beta].map(({ child }) => child.stop()));
  }

  #cpuSeconds(): number {
    return [this.alpha, this.beta].reduce((sum, { child }) => sum + cpuSecondsOf(child.pid), 0);
  }
}

async function startNode(layout: NodeLayout): Promise<Node> {
  const child = new ChildNode({
    name: layout.name,
    dataDirectory: layout.dataDirectory,
    api: `127.0.0.1:${layout.apiPort}`,
    say: (text) => console.log(text),
    restarted: () => undefined,
  });
  const ready = await child.start();
  const token = readFileSync(ready.tokenFile, 'utf8').trim();
  return { layout, child, client: new ApiClient({ name: layout.name, api: ready.api, token }) };
}

/** User and system time so far; the fields are counted behind the command's name, which may hold blanks. */
function cpuSecondsOf(pid: number | undefined): number {
  if (pid === undefined) return 0;
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
