/** What the faults of torture have in common: when to strike, and how a cycle goes on after it. */
import { setTimeout as pause } from 'node:timers/promises';
import type { NbdClient } from '../../nbd/client.ts';
import type { StampedLoad } from '../../test/support/stamped-load.ts';
import type { TortureNode, TorturePair } from './pair.ts';

export interface Torture {
  readonly pair: TorturePair;
  readonly load: StampedLoad;
  /** A whole number from 0 to below `count`. */
  readonly draw: (count: number) => number;
  /** Throws unless every acknowledged write is there. Not while a phase of the load runs. */
  readonly verify: (client: NbdClient) => Promise<void>;
}

/** Begins with both nodes mirroring, one of them Primary and no client, and ends so; resolves with what was done. */
export type Fault = (torture: Torture) => Promise<string>;

/** After how many acknowledged writes to strike: from at once to deep in the load. */
export function moment({ draw }: Torture): number {
  return 1 + draw(10 ** (1 + draw(3)) * 2);
}

export async function perhapsKillAgain({ draw }: Torture, node: TortureNode): Promise<string> {
  if (draw(2) === 0) return '';
  await pause(draw(300));
  await node.process.kill9();
  await node.process.start();
  return ', killed again on its return';
}

/** Both are mirroring: either will do, without force. */
export async function promoteEither({ pair, draw }: Torture): Promise<string> {
  pair.primary = pair.nodes[draw(2) === 0 ? 0 : 1];
  await pair.primary.order('promote');
  return pair.primary.name;
}

export async function handOver({ pair }: Torture): Promise<void> {
  const { secondary } = pair;
  await secondary.order('failover');
  await secondary.waitFor(({ role }) => role === 'Primary', 'Primary');
  pair.primary = secondary;
}

/** One copy was there all the time: no client may have seen an error. */
export async function expectStopped(
  result: ReturnType<ReturnType<StampedLoad['start']>['stop']>,
): Promise<void> {
  const { reason } = await result;
  if (reason !== 'stopped')
    throw new Error('a client saw an error although the Primary was up', { cause: reason.error });
}
