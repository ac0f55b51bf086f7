/** Recorded and fresh seeds through the simulator: the production core under faults, with its checkers on. */
import test from 'ava';
import { runCampaign } from './campaign.ts';
import { runHistory } from './run.ts';
import { replayLine } from './shrink.ts';

/** Each of these once ended badly; what was wrong is told by the commit that mended it. */
const foundSeeds = [
  22, 28, 48, 64, 68, 76, 113, 137, 213, 219, 259, 295, 314, 317, 324, 356, 375, 415, 432, 460, 568, 576, 582,
  587, 618, 675, 687, 2061, 2224, 2327, 5209, 5879, 6170, 10257, 10356, 21063, 40633, 50764, 820063, 820074,
  102748, 830280, 830488, 850410, 850962, 850972, 851534, 852023, 900901, 901135, 903270, 910012, 910324,
  1001034, 1001637, 1100263, 1108233, 71027, 771093, 4000325, 1204080, 1209134, 5200819, 5201284, 20002781,
  20008443, 20018702, 20022132, 20033067, 20033972, 20035207, 20043538, 20057372, 20058747, 20064700,
  20070239, 20071551, 20073516, 30015721, 30037681, 30085332, 50021259, 5400554, 100740, 102097, 102799,
  100968, 30073044, 50010680, 50002927, 50010444, 60018379, 70076050, 70089817, 95018237, 95001182,
];

/** About two minutes of both processors of a small machine. */
const freshSeeds = 4000;

test('simulation: histories from seeds that once ended badly end well', (t) => {
  const bad = foundSeeds.map((seed) => runHistory(BigInt(seed))).filter(({ failure }) => failure !== null);
  t.deepEqual(
    bad.map(({ seed, failure }) => `${replayLine(seed)}: ${failure?.message}`),
    [],
  );
});

test(`simulation: histories from ${freshSeeds} other seeds end well, and reach every rule and state`, async (t) => {
  const { failures, coverage, histories } = await runCampaign({ from: 100_000n, count: freshSeeds });
  t.deepEqual(
    failures.map(({ seed, failure }) => `${replayLine(seed)}: ${failure.message}`),
    [],
  );
  t.is(histories, freshSeeds);
  t.deepEqual(coverage.missingStates, []);
  t.deepEqual(coverage.missingRules, []);
});

test('simulation: the same seed makes the same history', (t) => {
  const traced = (seed: bigint): string[] => {
    const lines: string[] = [];
    runHistory(seed, { trace: (line) => lines.push(line) });
    return lines;
  };
  const once = traced(7n);
  t.true(once.length > 1000);
  t.true(once.every((line, at, all) => at === 0 || line.slice(0, 11) >= (all[at - 1] ?? '').slice(0, 11)));
  t.is(once.join('\n'), traced(7n).join('\n'));
  t.not(once.join('\n'), traced(8n).join('\n'));
});

test('simulation: what a campaign finds does not depend on the number of its workers', async (t) => {
  const [one, two] = [
    await runCampaign({ from: 200n, count: 30, jobs: 1 }),
    await runCampaign({ from: 200n, count: 30, jobs: 2 }),
  ];
  const told = ({ requests, simulatedMs, failures, coverage }: typeof one): unknown => [
    ...[requests, simulatedMs, failures, coverage.report()],
  ];
  t.deepEqual(told(one), told(two));
});
