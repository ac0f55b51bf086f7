/** How long `GET /v1/resources` takes while the node does all it can. */
import { fio } from './fio.ts';
import { defineMirrored, startPair, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { percentile } from './report.ts';

const p99MsMax = 50;

export async function apiLatency(run: Measurement): Promise<void> {
  const pair = await startPair(run);
  await defineMirrored(pair, 'r0', '1GiB');
  const [alpha] = pair;
  const uri = uriOf(alpha, 'r0');
  const common = { uri, size: '512M', depth: 32, seconds: run.seconds * 2 } as const;
  let busy = true;
  const load = Promise.all([
    fio({ ...common, rw: 'randwrite' }),
    fio({ ...common, rw: 'write', blockSize: '1m', depth: 4 }),
    fio({ ...common, rw: 'randread' }),
  ]).finally(() => (busy = false));
  const took: number[] = [];
  while (busy) {
    const startMs = performance.now();
    await alpha.call('GET', '/v1/resources');
    took.push(performance.now() - startMs);
  }
  await load;
  const p99 = percentile(took, 0.99);
  run.report.add({
    what: 'GET /v1/resources under full load',
    measured: `p99 ${p99.toFixed(1)} ms, median ${percentile(took, 0.5).toFixed(1)} ms of ${took.length}`,
    bound: `p99 < ${p99MsMax} ms`,
    met: p99 < p99MsMax,
  });
}
