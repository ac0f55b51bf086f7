/**
 * Runs simulated histories of two nodes through the replication core; fails if one ends badly.
 *   npm run -s sim -- --seed 42                     one history, with a readable trace (--quiet: without)
 *   npm run -s sim -- --seed 42 --shrunk 'keep=3'   the shortened one that a run has named
 *   npm run -s sim -- --seeds 1000 --from 1         so many, on all processors (--jobs N: on so many)
 *   npm run -s sim -- --minutes 10                  as many as there is time for, from a seed drawn at random
 * A history that ends badly is shrunk to a shorter one (--no-shrink: not).
 */
import { randomBytes } from 'node:crypto';
import { runCampaign } from '../test/sim/campaign.ts';
import type { CampaignResult } from '../test/sim/campaign.ts';
import { coreStates } from '../test/sim/coverage.ts';
import { parseShortening, unshortened } from '../test/sim/plan.ts';
import { runHistory } from '../test/sim/run.ts';
import type { Failure } from '../test/sim/run.ts';
import { replayLine, shrink } from '../test/sim/shrink.ts';
import { handshakeRules } from '../replicator/core/handshake-rules.ts';
import { simulate } from '../server/cli/simulate.ts';
import { misuse, readFlags } from './flags.ts';

/** Failures that are shrunk; more of them tell no more. */
const shrunkMax = 5;

const name = 'lockstep sim';
const flags = readFlags(name, simulate.flags);
const shrunk = flags.text('shrunk') ?? '';

process.exitCode = await main();

async function main(): Promise<number> {
  const seed = toSeed(flags.text('seed'));
  const from = toSeed(flags.text('from'));
  const shortening = parseShortening(shrunk);
  const [seeds, minutes, jobs] = ['seeds', 'minutes', 'jobs'].map((flag) => toCount(flags.text(flag)));
  if ([seed, from, shortening, seeds, minutes, jobs].includes(null)) {
    misuse(name, 'seeds and counts are whole numbers above 0, --shrunk is as a run has printed it');
  }
  if (seed !== undefined && seed !== null) return runOne(seed);
  return runMany(
    from ?? (flags.text('minutes') === undefined ? 1n : randomBytes(6).readUIntBE(0, 6)),
    seeds ?? (flags.text('minutes') === undefined ? 100 : Infinity),
    minutes ?? Infinity,
    jobs ?? undefined,
  );
}

function runOne(seed: bigint): number {
  const trace = flags.has('quiet') ? {} : { trace: (line: string) => process.stdout.write(`${line}\n`) };
  const shortening = parseShortening(shrunk) ?? unshortened;
  const { failure, requests, simulatedMs, faults } = runHistory(seed, { ...trace, shortening });
  const length = `${requests} requests and ${faults.length} faults in ${Math.round(simulatedMs / 1000)} s`;
  if (failure === null) console.log(`seed ${seed}: fine (${length})`);
  else tell(seed, failure);
  if (failure !== null && !flags.has('no-shrink') && shrunk === '') tellShrunk(seed);
  return failure === null ? 0 : 1;
}

async function runMany(
  from: bigint | number,
  count: number,
  minutes: number,
  jobs?: number,
): Promise<number> {
  const startMs = performance.now();
  const result = await runCampaign({
    from: BigInt(from),
    count,
    untilMs: startMs + minutes * 60_000,
    ...(jobs === undefined ? {} : { jobs }),
    onFailure: tell,
  });
  if (!flags.has('no-shrink')) for (const { seed } of result.failures.slice(0, shrunkMax)) tellShrunk(seed);
  summarize(result, (performance.now() - startMs) / 1000);
  return result.failures.length === 0 ? 0 : 1;
}

function tell(seed: bigint, { checker, message }: Failure): void {
  console.log(`seed ${seed}: ${checker}: ${message}\n  ${replayLine(seed)}`);
}

function tellShrunk(seed: bigint): void {
  const shrunk = shrink(seed);
  if (shrunk === null) return;
  const { shortening, result, runs } = shrunk;
  const faults = result.faults.map(({ kind, atMs }) => `${kind} at ${atMs} ms`).join(', ');
  console.log(
    `seed ${seed}, shrunk in ${runs} runs to ${result.faults.length} faults (${faults}) and ${result.requests} requests:`,
  );
  console.log(`  ${result.failure?.message}\n  ${replayLine(seed, shortening)}`);
}

function summarize(
  { histories, requests, simulatedMs, failures, coverage }: CampaignResult,
  seconds: number,
): void {
  const { faults } = coverage.report();
  const kinds = Object.entries(faults).map(([kind, count]) => `${kind} ${count}`);
  const injected = Object.values(faults).reduce((sum, count) => sum + count, 0);
  const { missingRules, missingStates } = coverage;
  console.log(
    `${histories} histories in ${seconds.toFixed(1)} s (${(histories / seconds).toFixed(1)}/s), ` +
      `${Math.round(simulatedMs / 60_000)} simulated minutes, ${requests} client operations: ${failures.length} bad`,
  );
  console.log(`${injected} faults: ${kinds.join(', ')}`);
  console.log(reached('handshake rules', handshakeRules.length, missingRules));
  console.log(reached('core states', coreStates.length, missingStates));
}

function reached(what: string, all: number, missing: readonly string[]): string {
  return `${what} reached: ${all - missing.length}/${all}${missing.length === 0 ? '' : `, not: ${missing.join(', ')}`}`;
}

/** Null if it is none. */
function toSeed(text: string | undefined): bigint | null | undefined {
  if (text === undefined) return undefined;
  return /^\d{1,20}$/.test(text) && BigInt(text) < 2n ** 64n ? BigInt(text) : null;
}

function toCount(text: string | undefined): number | null | undefined {
  if (text === undefined) return undefined;
  const count = Number(text);
  return count > 0 && count < 1e9 ? count : null;
}
