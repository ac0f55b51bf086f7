/**
 * Runs simulated histories of two nodes through the replication core.
 *   node scripts/sim.ts --seed 42        one history, with a readable trace; fails if it ends badly
 *   node scripts/sim.ts --seeds 1000     as many histories, from --from (default: 1); the seeds of bad ones are printed
 */
import { parseArgs } from 'node:util';
import { runHistory } from '../test/sim/run.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    quiet: { type: 'boolean', default: false },
  },
});

process.exitCode =
  values.seed !== undefined ? runOne(BigInt(values.seed)) : runMany(Number(values.seeds ?? '100'));

function runOne(seed: bigint): number {
  const trace = values.quiet ? {} : { trace: (line: string) => process.stdout.write(`${line}\n`) };
  const { failure, requests, simulatedMs } = runHistory(seed, trace);
  console.log(
    `seed ${seed}: ${failure ?? 'fine'} (${requests} requests in ${Math.round(simulatedMs / 1000)} s)`,
  );
  return failure === null ? 0 : 1;
}

function runMany(count: number): number {
  const startMs = performance.now();
  let bad = 0;
  let simulatedMs = 0;
  const from = BigInt(values.from);
  for (let seed = from; seed < from + BigInt(count); seed++) {
    const result = runHistory(seed);
    simulatedMs += result.simulatedMs;
    if (result.failure === null) continue;
    bad++;
    console.log(`seed ${seed}: ${result.failure}`);
  }
  const seconds = (performance.now() - startMs) / 1000;
  const minutes = Math.round(simulatedMs / 60_000);
  console.log(`${count} histories (${minutes} simulated minutes) in ${seconds.toFixed(1)} s, ${bad} bad`);
  return bad === 0 ? 0 : 1;
}
