/** A replica of a pair in this process, real but for the server around it, and what is written to it. */
import { join } from 'node:path';
import { defaultCoreOptions } from '../../replicator/core/options.ts';
import type { CoreOptions } from '../../replicator/core/options.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import { extentBytes } from '../../replicator/core/vocabulary.ts';
import { openResourceNode } from '../../replicator/shell/driver.ts';
import type { ResourceNode } from '../../replicator/shell/resource-node.ts';
import { patienceMs, within } from './node-process.ts';

export const blockBytes = 4096;
export const blocksPerExtent = extentBytes / blockBytes;
/** Twice the extents that are active at once. */
const sizeBytes = 16 * extentBytes;

export interface ReplicaPlace {
  readonly name: string;
  readonly peerName: string;
  readonly directory: string;
  /** On the loopback address; 0 lets the system choose. */
  readonly port: number;
  readonly peerPort: number;
  readonly core?: Partial<CoreOptions>;
}

export interface Replica {
  readonly node: ResourceNode;
  readonly backingPath: string;
  write(block: number, version: number): Promise<void>;
  read(block: number): Promise<Buffer>;
  flush(): Promise<void>;
  /** Resolves as soon as the status satisfies the predicate; rejects when `orElse` does. */
  until(what: string, predicate: (status: CoreStatus) => boolean, orElse?: Promise<never>): Promise<void>;
}

export function replicaArguments(place: ReplicaPlace): string[] {
  return [place.name, place.peerName, place.directory, String(place.port), String(place.peerPort)];
}

export function parseReplicaPlace(args: readonly string[]): ReplicaPlace {
  const [name = '', peerName = '', directory = '', port = '', peerPort = ''] = args;
  return { name, peerName, directory, port: Number(port), peerPort: Number(peerPort) };
}

export async function startReplica(place: ReplicaPlace): Promise<Replica> {
  const backingPath = join(place.directory, 'data.img');
  const host = '127.0.0.1';
  let waiting: (() => void)[] = [];
  const opened = await openResourceNode(
    {
      resourceName: 'r0',
      core: {
        ...defaultCoreOptions,
        nodeName: place.name,
        peerName: place.peerName,
        sizeBytes,
        activityLogExtents: 7,
        ...place.core,
      },
      backing: { path: backingPath, create: true },
      metadataPath: join(place.directory, 'metadata.db'),
      replication: {
        listen: { host, port: place.port },
        peerAddress: { host, port: place.peerPort },
        secret: 'only for this test',
        connectIntervalMs: 100,
        probeTimeoutMs: 5_000,
      },
    },
    {
      statusChanged: () => {
        const woken = waiting;
        waiting = [];
        for (const wake of woken) wake();
      },
      serveClients: () => undefined,
      decided: () => undefined,
      log: () => undefined,
      panic: (message) => {
        throw new Error(`panic of ${place.name}: ${message}`);
      },
    },
  );
  if (!opened.ok) throw new Error(`${opened.refusal.code}: ${opened.refusal.reason}`);
  const { node } = opened;
  return {
    node,
    backingPath,
    write: (block, version) =>
      new Promise((resolve, reject) => {
        node.device.write(block * blockBytes, contentOf(block, version), { fua: false }, (error) => {
          if (error === null) resolve();
          else reject(new Error(`write: ${error}`));
        });
      }),
    read: (block) =>
      new Promise((resolve, reject) => {
        node.device.read(block * blockBytes, blockBytes, (error, data) => {
          if (error === null && data !== null) resolve(Buffer.from(data));
          else reject(new Error(`read: ${error}`));
        });
      }),
    flush: () =>
      new Promise((resolve, reject) => {
        node.device.flush((error) => {
          if (error === null) resolve();
          else reject(new Error(`flush: ${error}`));
        });
      }),
    until: async (what, predicate, orElse) => {
      const reached = async (): Promise<void> => {
        while (!predicate(node.status())) await new Promise<void>((resolve) => waiting.push(resolve));
      };
      const either = orElse === undefined ? reached() : Promise.race([reached(), orElse]);
      await within(patienceMs, `${place.name}: ${what}`, either);
    },
  };
}

/** Version 0 is what was there before any write. */
export function contentOf(block: number, version: number): Buffer {
  return version === 0
    ? Buffer.alloc(blockBytes)
    : Buffer.alloc(blockBytes, `block ${block} version ${version}; `);
}

export function isMirrored({ diskState, peer }: CoreStatus): boolean {
  return (
    diskState === 'UpToDate' &&
    peer?.connection === 'Connected' &&
    peer.replication === 'Established' &&
    peer.diskState === 'UpToDate'
  );
}
