/** Two nodes on loopback under one directory, as real processes, and the questions and orders that torture has for them. */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { connectNbd } from '../../nbd/client.ts';
import type { NbdClient } from '../../nbd/client.ts';
import { compareFiles } from '../../test/support/files-equal.ts';
import { NodeProcess } from '../../test/support/node-process.ts';
import { freePort } from '../../test/support/ports.ts';
import { isMirroring, onlyPeer } from '../../test/support/status.ts';
import type { ResourceStatus } from '../../test/support/status.ts';
import { TortureLink } from './link.ts';

export const mebibyte = 1024 * 1024;
const deviceBytes = 64 * mebibyte;
const resource = 'r0';

/** A lost peer is noticed soon; a thawed Primary has time to hear, on a busy machine too, that it was superseded. */
const policies = { pingIntervalMs: 200, peerTimeoutMs: 1_500, probeTimeoutMs: 5_000, connectIntervalMs: 200 };

export type NodeName = 'alpha' | 'beta';

export class TortureNode {
  readonly name: NodeName;
  readonly process: NodeProcess;
  readonly nbdPort: number;
  readonly replicationPort: number;

  constructor(name: NodeName, process: NodeProcess, nbdPort: number, replicationPort: number) {
    this.name = name;
    this.process = process;
    this.nbdPort = nbdPort;
    this.replicationPort = replicationPort;
  }

  get backingPath(): string {
    return join(this.process.dir, 'resources', resource, 'data.img');
  }

  status(): Promise<ResourceStatus> {
    return this.process.status(resource);
  }

  waitFor(predicate: (status: ResourceStatus) => boolean, what: string): Promise<ResourceStatus> {
    return this.process.waitFor(resource, predicate, what);
  }

  async order(verb: string, body?: unknown): Promise<void> {
    await this.process.call('POST', `/v1/resources/${resource}/${verb}`, body);
  }

  define(peer: TortureNode, peerPort: number): Promise<unknown> {
    return this.process.call('PUT', `/v1/resources/${resource}`, {
      size: deviceBytes,
      nbd: { listen: `127.0.0.1:${this.nbdPort}` },
      replication: { listen: `127.0.0.1:${this.replicationPort}`, secret: 'only for torture' },
      peers: [{ name: peer.name, address: `127.0.0.1:${peerPort}` }],
      policies,
    });
  }

  attach(): Promise<NbdClient> {
    return connectNbd({
      address: { host: '127.0.0.1', port: this.nbdPort },
      exportName: resource,
      timeoutMs: 60_000,
    });
  }

  /** Gives up the last connection and waits until the node has noticed. */
  async detach(client: NbdClient): Promise<void> {
    await client.disconnect();
    await this.waitFor(({ nbd }) => nbd.clients === 0, 'no client');
  }

  /** Resolves when the node says that its peer is not connected. */
  async untilAlone(): Promise<void> {
    await this.waitFor((status) => onlyPeer(status).connection !== 'Connected', 'the loss of the peer');
  }

  /**
   * Whether this node, dead or frozen, had recorded that it goes on without its peer. Then the peer may lack
   * acknowledged writes and is not to be promoted: whoever forces it is told so, and loses them. Reads a copy.
   */
  hadLeftPeerBehind(): boolean {
    const folder = join(this.process.dir, 'resources', resource);
    const copies = mkdtempSync(join(this.process.dir, 'look-'));
    try {
      for (const name of ['metadata.db', 'metadata.db-wal']) {
        if (existsSync(join(folder, name))) copyFileSync(join(folder, name), join(copies, name));
      }
      const database = new Database(join(copies, 'metadata.db'), { fileMustExist: true });
      try {
        return database.prepare('SELECT peer_excluded FROM superblock').pluck().get() !== 0;
      } finally {
        database.close();
      }
    } finally {
      rmSync(copies, { recursive: true, force: true });
    }
  }
}

export class TorturePair {
  readonly directory: string;
  readonly nodes: readonly [TortureNode, TortureNode];
  readonly link: TortureLink;
  /** Who is Primary, or was last. */
  primary: TortureNode;

  private constructor(directory: string, nodes: readonly [TortureNode, TortureNode], link: TortureLink) {
    this.directory = directory;
    this.nodes = nodes;
    this.link = link;
    this.primary = nodes[0];
  }

  /** Starts both; they are mirroring, and alpha is Primary, when this resolves. */
  static async start(directory: string): Promise<TorturePair> {
    // Nodes start some hundred times: those that ended by themselves leave the compiled program to the others.
    const env = { NODE_COMPILE_CACHE: join(directory, 'compiled') };
    const make = async (name: NodeName): Promise<TortureNode> => {
      const dir = join(directory, name);
      mkdirSync(dir);
      return new TortureNode(name, new NodeProcess(dir, { name, env }), await freePort(), await freePort());
    };
    const alpha = await make('alpha');
    const beta = await make('beta');
    const link = await TortureLink.start(alpha.replicationPort, beta.replicationPort);
    const pair = new TorturePair(directory, [alpha, beta], link);
    try {
      await Promise.all(pair.nodes.map(({ process }) => process.start()));
      await Promise.all([alpha.define(beta, link.portOf('beta')), beta.define(alpha, link.portOf('alpha'))]);
      await pair.mirroring();
      await alpha.order('promote');
    } catch (error) {
      await pair.end();
      throw error;
    }
    return pair;
  }

  get secondary(): TortureNode {
    const [alpha, beta] = this.nodes;
    return this.primary === alpha ? beta : alpha;
  }

  /** Changes a policy on both nodes, at once. */
  async change(changed: Readonly<Record<string, unknown>>): Promise<void> {
    await Promise.all(
      this.nodes.map(({ process }) =>
        process.call('PATCH', `/v1/resources/${resource}`, { policies: changed }),
      ),
    );
  }

  async mirroring(): Promise<void> {
    const settled = (status: ResourceStatus): boolean => {
      if (status.splitBrain) throw new Error('split brain');
      return isMirroring(status);
    };
    await Promise.all(this.nodes.map((node) => node.waitFor(settled, 'both copies UpToDate and connected')));
  }

  /** What is wrong with two copies that are UpToDate and have no write in flight; null when nothing is. */
  async difference(): Promise<string | null> {
    const [one, other] = await Promise.all(this.nodes.map((node) => node.status()));
    const marked = [one, other].map((status) =>
      status === undefined ? NaN : onlyPeer(status).outOfSyncBytes,
    );
    if (marked.some((bytes) => bytes !== 0))
      return `out of sync although UpToDate: ${marked.join(', ')} bytes`;
    const comparison = compareFiles(this.nodes[0].backingPath, this.nodes[1].backingPath);
    return comparison.equal ? null : `the copies differ: ${JSON.stringify(comparison)}`;
  }

  /** Kills both. With `keepOutput`, what they said is left in the directory. */
  async end(keepOutput = false): Promise<void> {
    await Promise.all(this.nodes.map(({ process }) => process.kill9()));
    await this.link.stop();
    if (!keepOutput) return;
    for (const { name, process } of this.nodes)
      writeFileSync(join(this.directory, `${name}.log`), process.output);
  }
}
