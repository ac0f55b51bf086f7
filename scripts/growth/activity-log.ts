/**
 * What the activity log costs: nothing to speak of within its reach, and beyond it (random 4 KiB writes over 1 TiB, nearly
 * every one a miss) a share of a commit; and writes to active extents meanwhile, which wait for no commit.
 */
import { bareMisses } from './bare-disk.ts';
import { fio } from './fio.ts';
import type { FioResult } from './fio.ts';
import { defineMirrored, startPair, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { perSecond } from './report.ts';

const lossMax = 0.05;
const groupGainMin = 10;
const rounds = 3;
const sizeBytes = 1024 ** 4;

export async function activityLog(run: Measurement): Promise<void> {
  const { report } = run;
  const pair = await startPair(run);
  await defineMirrored(pair, 'r0', '1TiB');
  await defineMirrored(pair, 'r1', '8GiB');
  const [alpha] = pair;
  await withinReach(run, uriOf(alpha, 'r1'));

  const uri = uriOf(alpha, 'r0');
  const common = { uri, rw: 'randwrite', size: '1T', seconds: run.seconds } as const;
  const single = await fio({ ...common, depth: 1 });
  report.add({
    what: 'misses of the activity log, one at a time (a commit each)',
    measured: `${perSecond(single.iops)}, median ${(single.medianUs / 1000).toFixed(2)} ms`,
    bound: '',
    met: null,
  });
  const grouped = await fio({ ...common, depth: 32 });
  addGain(run, 'misses of the activity log, queue 32', grouped, single);
  const bare = await bareMisses(run.directory, pair.length, sizeBytes, run.seconds);
  report.add({
    what: 'the system calls of those alone: commits, writes and flushes of both copies on one disk',
    measured: `${perSecond(bare)} (${(bare / single.iops).toFixed(1)} times)`,
    bound: '',
    met: null,
  });
  const missing = fio({ ...common, depth: 32, seconds: run.seconds + 2 });
  const hits = await fio({ ...common, depth: 1, size: '64M', seconds: run.seconds, more: ['--ramp_time=1'] });
  await missing;
  report.add({
    what: 'writes to active extents beside them',
    measured: `median ${hits.medianUs.toFixed(0)} us, p99 ${(hits.p99Us / 1000).toFixed(1)} ms`,
    bound: `median < ${(single.medianUs / 2000).toFixed(2)} ms, half a commit`,
    met: hits.medianUs < single.medianUs / 2,
  });

  // One copy: the blocks of extents that leave the log are marked in its transactions, and no flush makes room.
  await pair[1].stop();
  const alone = await fio({ ...common, depth: 1 });
  addGain(run, 'misses while the peer is away, queue 32', await fio({ ...common, depth: 32 }), alone);
}

function addGain({ report }: Measurement, what: string, grouped: FioResult, single: FioResult): void {
  const gain = grouped.iops / single.iops;
  report.add({
    what,
    measured: `${perSecond(grouped.iops)} (${gain.toFixed(1)} times ${perSecond(single.iops)} of queue 1), median ${(grouped.medianUs / 1000).toFixed(1)} ms`,
    bound: `>= ${groupGainMin} times`,
    met: gain >= groupGainMin,
  });
}

/**
 * The same number of blocks, hit at random, in sixteen extents or in a thousand: only the log's work differs. All of them are
 * written first, so that neither a miss nor a page that is new to the file is in the figures.
 */
async function withinReach(run: Measurement, uri: string): Promise<void> {
  const common = { uri, rw: 'randwrite', depth: 32, seconds: run.seconds } as const;
  const dense = { ...common, size: '64M' } as const;
  // One block of every 256 KiB.
  const wide = { ...common, size: '4G', more: ['--blockalign=256k'] } as const;
  const touched = { uri, rw: 'write', depth: 32, requests: 16_384 } as const;
  await fio({ ...touched, size: dense.size });
  // A block, and 252 KiB that are left out.
  await fio({ ...touched, size: wide.size, more: ['--rw=write:252k'] });
  const few: number[] = [];
  const most: number[] = [];
  for (let round = 0; round < rounds; round++) {
    few.push((await fio({ ...dense })).iops);
    most.push((await fio({ ...wide })).iops);
  }
  const [best, spreadBest] = [Math.max(...few), Math.max(...most)];
  const loss = 1 - spreadBest / best;
  run.report.add({
    what: 'writes within reach of the activity log: over 1000 extents instead of 16',
    measured: `${perSecond(spreadBest)} of ${perSecond(best)} (${(100 * loss).toFixed(1)} % less)`,
    bound: `< ${100 * lossMax} % less`,
    met: loss < lossMax,
  });
}
