/** Memory of both nodes, sampled every second under full load: its slope once the first quarter is over. */
import { setTimeout as delay } from 'node:timers/promises';
import { memoryOf } from '../../test/support/memory-use.ts';
import { fio } from './fio.ts';
import { defineMirrored, startPair, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { mebibytes } from './report.ts';

/** What is no leak: an hour at this slope. */
const mebibytesPerMinuteMax = 4;

export async function memoryOverTime(run: Measurement): Promise<void> {
  const pair = await startPair(run);
  await defineMirrored(pair, 'r0', '1GiB');
  const uri = uriOf(pair[0], 'r0');
  const lastSeconds = Math.round(run.minutes * 60);
  const common = { uri, size: '512M', seconds: lastSeconds } as const;
  let busy = true;
  const load = Promise.all([
    fio({ ...common, rw: 'randwrite', depth: 32 }),
    fio({ ...common, rw: 'write', blockSize: '1m', depth: 4, more: ['--fsync=64'] }),
    fio({ ...common, rw: 'randread', depth: 16 }),
  ]).finally(() => (busy = false));
  const samples = pair.map((): number[] => []);
  while (busy) {
    pair.forEach((node, index) => samples[index]?.push(memoryOf(node.pid).nowBytes));
    await delay(1000);
  }
  await load;
  pair.forEach((node, index) => {
    const bytes = samples[index] ?? [];
    const settled = bytes.slice(Math.floor(bytes.length / 4));
    const slope = (slopeOf(settled) * 60) / 1024 ** 2;
    run.report.add({
      what: `memory of ${node.name} over ${run.minutes} min of full load`,
      measured: `${mebibytes(Math.min(...settled))} to ${mebibytes(Math.max(...settled))}, ${slope.toFixed(1)} MiB/min`,
      bound: `slope < ${mebibytesPerMinuteMax} MiB/min`,
      met: slope < mebibytesPerMinuteMax,
    });
  });
}

/** Of the line through the figures (least squares), by index. */
function slopeOf(figures: readonly number[]): number {
  const middle = (figures.length - 1) / 2;
  const mean = figures.reduce((sum, figure) => sum + figure, 0) / Math.max(figures.length, 1);
  let above = 0;
  let below = 0;
  figures.forEach((figure, index) => {
    above += (index - middle) * (figure - mean);
    below += (index - middle) ** 2;
  });
  return below === 0 ? 0 : above / below;
}
