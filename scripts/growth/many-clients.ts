/**
 * Sixty-four clients of one export: what those cost that only are there, and what it costs that all of them write. On a
 * machine that is busy to the last, sixty-four threads of fio and twice as many system calls are in that as well: so the
 * processor time of both nodes is shown apart.
 */
import { connectNbd } from '../../nbd/client.ts';
import { cpuMicroseconds } from '../bench/processes.ts';
import { fio } from './fio.ts';
import type { FioJob } from './fio.ts';
import { defineMirrored, socketOf, startPair, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { percentile, perSecond } from './report.ts';

const clients = 64;
const shareMin = 0.9;
/** Rounds in turn, so that a machine that becomes slower does so for both; the ratio is that of a round. */
const rounds = 5;

export async function manyClients(run: Measurement): Promise<void> {
  const pair = await startPair(run);
  await defineMirrored(pair, 'r0', '1GiB', { images: run.memory });
  const [alpha] = pair;
  const uri = uriOf(alpha, 'r0');
  const common = { uri, rw: 'randwrite', size: '256M', seconds: run.seconds } as const;
  await fio({ ...common, depth: clients, seconds: 1 });
  const pids = pair.map((node) => node.pid);
  const turns: { readonly one: Turn; readonly idle: Turn; readonly many: Turn }[] = [];
  for (let round = 0; round < rounds; round++) {
    const one = await turn(pids, { ...common, depth: clients });
    const others = await Promise.all(
      Array.from({ length: clients - 1 }, () =>
        connectNbd({ address: { path: socketOf(alpha, 'r0') }, exportName: 'r0' }),
      ),
    );
    const idle = await turn(pids, { ...common, depth: clients });
    await Promise.all(others.map((client) => client.disconnect()));
    turns.push({ one, idle, many: await turn(pids, { ...common, depth: 1, clients }) });
  }
  run.report.add({
    what: 'one client, 64 writes under way',
    measured: described(turns.map(({ one }) => one)),
    bound: '',
    met: null,
  });
  for (const [what, name] of [
    [`the same beside ${clients - 1} idle clients`, 'idle'],
    [`${clients} clients, one write each`, 'many'],
  ] as const) {
    const kept = median(turns.map((each) => each[name].iops / each.one.iops));
    run.report.add({
      what,
      measured: `${described(turns.map((each) => each[name]))} (${(100 * kept).toFixed(0)} %)`,
      bound: `>= ${100 * shareMin} % of one client`,
      met: kept >= shareMin,
    });
  }
}

interface Turn {
  readonly iops: number;
  /** Microseconds of processor time that both nodes take for a write. */
  readonly cpuUs: number;
}

async function turn(pids: readonly number[], job: FioJob & { readonly seconds: number }): Promise<Turn> {
  const beforeUs = cpuMicroseconds(pids);
  const { iops } = await fio(job);
  return { iops, cpuUs: (cpuMicroseconds(pids) - beforeUs) / (iops * job.seconds) };
}

function described(turns: readonly Turn[]): string {
  const [iops, cpuUs] = [turns.map((each) => each.iops), turns.map((each) => each.cpuUs)];
  return `${perSecond(median(iops))}, ${median(cpuUs).toFixed(0)} us of both nodes each`;
}

function median(figures: readonly number[]): number {
  return percentile(figures, 0.5);
}
