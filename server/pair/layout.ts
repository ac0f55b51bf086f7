/** Ports, directories and definitions of the pair. */
import { join } from 'node:path';
import { UsageError } from '../config.ts';
import type { ResourceBody } from '../schemas/resource-definition.ts';

export const resourceName = 'r0';
export const host = '127.0.0.1';

export interface NodeLayout {
  readonly name: string;
  readonly dataDirectory: string;
  readonly apiPort: number;
  readonly nbdPort: number;
  readonly replicationPort: number;
}

export interface PairLayout {
  readonly directory: string;
  readonly secretFile: string;
  readonly alpha: NodeLayout;
  readonly beta: NodeLayout;
}

/**
 * By default the ports people know: NBD 10809 and DRBD's 7789, each with a second one ten above. With a base, all
 * six follow it: API base and base+10, NBD base+1 and base+11, replication base+9 and base+19.
 */
export function pairLayout(directory: string, base: number | null): PairLayout {
  const node = (name: string, step: number): NodeLayout => ({
    name,
    dataDirectory: join(directory, name),
    apiPort: (base ?? 7780) + step,
    nbdPort: (base === null ? 10809 : base + 1) + step,
    replicationPort: (base ?? 7780) + 9 + step,
  });
  return {
    directory,
    secretFile: join(directory, 'secret'),
    alpha: node('alpha', 0),
    beta: node('beta', 10),
  };
}

/** The base given with --ports. Throws UsageError. */
export function parsePortBase(text: string): number {
  const base = Number(text);
  if (/^[0-9]+$/.test(text) && base >= 1024 && base <= 65535 - 19) return base;
  throw new UsageError(`pair: --ports "${text}" is not 1024 to ${65535 - 19}`);
}

export function bodyFor(self: NodeLayout, peer: NodeLayout, secret: string, size: string): ResourceBody {
  return {
    size,
    nbd: { listen: `${host}:${self.nbdPort}` },
    replication: { listen: `${host}:${self.replicationPort}`, secret },
    peers: [{ name: peer.name, address: `${host}:${peer.replicationPort}` }],
  };
}
