/** Sixty-four clients of one export: what those cost that only are there, and what it costs that all of them write. */
import { connectNbd } from '../../nbd/client.ts';
import { fio } from './fio.ts';
import { defineMirrored, socketOf, startPair, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { perSecond } from './report.ts';

const clients = 64;
const shareMin = 0.9;
/** Rounds in turn, so that a machine that becomes slower does so for both. */
const rounds = 3;

export async function manyClients(run: Measurement): Promise<void> {
  const pair = await startPair(run);
  await defineMirrored(pair, 'r0', '1GiB');
  const [alpha] = pair;
  const uri = uriOf(alpha, 'r0');
  const common = { uri, rw: 'randwrite', size: '256M', seconds: run.seconds } as const;
  await fio({ ...common, depth: clients, seconds: 1 });
  const one: number[] = [];
  const idle: number[] = [];
  const many: number[] = [];
  for (let round = 0; round < rounds; round++) {
    one.push((await fio({ ...common, depth: clients })).iops);
    const others = await Promise.all(
      Array.from({ length: clients - 1 }, () =>
        connectNbd({ address: { path: socketOf(alpha, 'r0') }, exportName: 'r0' }),
      ),
    );
    idle.push((await fio({ ...common, depth: clients })).iops);
    await Promise.all(others.map((client) => client.disconnect()));
    many.push((await fio({ ...common, depth: 1, clients })).iops);
  }
  const best = Math.max(...one);
  run.report.add({
    what: 'one client, 64 writes under way',
    measured: perSecond(best),
    bound: '',
    met: null,
  });
  share(run, `the same beside ${clients - 1} idle clients`, Math.max(...idle), best);
  share(run, `${clients} clients, one write each`, Math.max(...many), best);
}

function share(run: Measurement, what: string, iops: number, one: number): void {
  run.report.add({
    what,
    measured: `${perSecond(iops)} (${((100 * iops) / one).toFixed(0)} %)`,
    bound: `>= ${100 * shareMin} % of one client`,
    met: iops >= shareMin * one,
  });
}
