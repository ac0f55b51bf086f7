/**
 * What the activity log costs: nothing to speak of within its reach, and beyond it (random 4 KiB writes over 1 TiB, nearly
 * every one a miss) a share of a commit; and writes to active extents meanwhile, which wait for no commit.
 */
import { fio } from './fio.ts';
import type { FioResult } from './fio.ts';
import { defineMirrored, startPair, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { percentile, perSecond } from './report.ts';

const lossMax = 0.05;
const groupGainMin = 10;
/** Of which the one in the middle counts. */
const rounds = 5;

export async function activityLog(run: Measurement): Promise<void> {
  const pair = await startPair(run);
  await defineMirrored(pair, 'r0', '1TiB', { images: run.memory });
  await defineMirrored(pair, 'r1', '8GiB', { images: run.memory });
  const [alpha] = pair;
  await withinReach(run, uriOf(alpha, 'r1'));

  const uri = uriOf(alpha, 'r0');
  const single = await misses(run, uri, '');
  await beside(run, uri, single.medianUs);

  // One copy: the blocks of extents that leave the log are marked in its transactions, and no flush makes room.
  await pair[1].stop();
  await misses(run, uri, ' while the peer is away');
}

/** One at a time, and 32 under way, in turn, once both are warm. */
async function misses({ report, seconds }: Measurement, uri: string, when: string): Promise<FioResult> {
  const common = { uri, rw: 'randwrite', size: '1T', seconds } as const;
  for (const depth of [1, 32]) await fio({ ...common, depth });
  const singles: FioResult[] = [];
  const grouped: FioResult[] = [];
  for (let round = 0; round < rounds; round++) {
    singles.push(await fio({ ...common, depth: 1 }));
    grouped.push(await fio({ ...common, depth: 32 }));
  }
  const [single, group] = [middle(singles), middle(grouped)];
  const gain = percentile(
    singles.map(({ iops }, round) => (grouped[round]?.iops ?? 0) / iops),
    0.5,
  );
  report.add({
    what: `misses of the activity log${when}, one at a time (a commit each)`,
    measured: `${perSecond(single.iops)}, median ${(single.medianUs / 1000).toFixed(2)} ms`,
    bound: '',
    met: null,
  });
  report.add({
    what: `misses of the activity log${when}, queue 32`,
    measured: `${perSecond(group.iops)} (${gain.toFixed(1)} times), median ${(group.medianUs / 1000).toFixed(1)} ms`,
    bound: `>= ${groupGainMin} times`,
    met: gain >= groupGainMin,
  });
  return single;
}

/** Of some turns the one with the rate in the middle. */
function middle(turns: readonly FioResult[]): FioResult {
  const one = turns.toSorted((a, b) => a.iops - b.iops)[Math.floor(turns.length / 2)];
  if (one === undefined) throw new Error('no turns');
  return one;
}

/**
 * One write at a time to active extents, beside 32 that all miss and beside 32 that all hit: both leave it as little of the
 * processors, and only the first ones commit.
 */
async function beside({ report, seconds }: Measurement, uri: string, commitUs: number): Promise<void> {
  const hits = { uri, rw: 'randwrite', size: '64M', seconds } as const;
  const withLoad = async (size: string): Promise<FioResult> => {
    const load = fio({ ...hits, size, depth: 32, seconds: seconds + 2 });
    const result = await fio({ ...hits, depth: 1, more: ['--ramp_time=1'] });
    await load;
    return result;
  };
  const missing = await withLoad('1T');
  const hitting = await withLoad('64M');
  const boundUs = hitting.medianUs + commitUs / 2;
  const shown = (result: FioResult): string =>
    `median ${result.medianUs.toFixed(0)} us, p99 ${(result.p99Us / 1000).toFixed(1)} ms`;
  report.add({
    what: 'writes to active extents beside 32 misses, and beside 32 that hit',
    measured: `${shown(missing)}; ${shown(hitting)}`,
    bound: `median < ${boundUs.toFixed(0)} us, half a commit more`,
    met: missing.medianUs < boundUs,
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
  const loss =
    1 -
    percentile(
      few.map((iops, round) => (most[round] ?? 0) / iops),
      0.5,
    );
  run.report.add({
    what: 'writes within reach of the activity log: over 1000 extents instead of 16',
    measured: `${perSecond(percentile(most, 0.5))} of ${perSecond(percentile(few, 0.5))} (${(100 * loss).toFixed(1)} % less)`,
    bound: `< ${100 * lossMax} % less`,
    met: loss < lossMax,
  });
}
