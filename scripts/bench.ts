/**
 * `lockstep bench`: our mirror beside qemu's, row by row, in alternating rounds on one machine. Prints each measurement
 * as it is made, then tables of medians and ratios.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readOptions, type BenchOptions } from './bench/options.ts';
import type { Contender } from './bench/contender.ts';
import { fillArguments, fioArguments, parseFio } from './bench/fio.ts';
import { cpuMicroseconds, run, shellWords } from './bench/processes.ts';
import { startField } from './bench/field.ts';
import { summarise, type Measurement } from './bench/results.ts';
import { labels, type Row } from './bench/rows.ts';
import { startSpinners } from './bench/spinners.ts';
import { rateText, resultTables } from './bench/tables.ts';

const options = readOptions(process.argv.slice(2));
/** What has to be ended and removed, the newest last. */
const leftovers: (() => Promise<void> | void)[] = [];
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void tidy().finally(() => process.exit(1)));
}

const measurements: Measurement[] = [];
try {
  for (const medium of ['memory', 'disk'] as const) {
    const rows = options.rows.filter((row) => row.medium === medium);
    if (rows.length > 0) await measureOn(options.places[medium], rows);
  }
  console.log(`\n${resultTables(summarise(options.rows, measurements))}`);
} catch (error) {
  console.error(`lockstep bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  await tidy();
}

async function measureOn(
  { parent, sizeBytes }: BenchOptions['places']['memory'],
  rows: readonly Row[],
): Promise<void> {
  const directory = mkdtempSync(join(parent, 'ls-bench-'));
  leftovers.push(() => rmSync(directory, { recursive: true, force: true }));
  console.log(`images of ${sizeBytes / 1024 ** 2} MiB in ${directory}`);
  const field = await startField({ directory, sizeBytes }, options, (contender) =>
    leftovers.push(() => contender.stop()),
  );
  for (const contender of field) {
    for (const command of contender.commands) console.log(`  ${contender.name}: ${command}`);
    await run('fio', fillArguments({ uri: contender.uri, sizeBytes }));
  }
  for (const row of rows) await measureRow(row, field, sizeBytes);
  await tidy();
}

async function measureRow(row: Row, field: readonly Contender[], sizeBytes: number): Promise<void> {
  console.log(`\n${row.name}: ${row.title}`);
  const spinners = row.awake ? await startSpinners() : null;
  try {
    for (const contender of field) await warmUp(row, contender, sizeBytes);
    for (let round = 1; round <= options.rounds; round++) {
      for (const contender of inTurn(field, round - 1)) {
        const fio = fioArguments(row, { uri: contender.uri, seconds: options.seconds, sizeBytes });
        if (round === 1) console.log(`  ${shellWords(['fio', ...fio])}`);
        const before = cpuMicroseconds(contender.pids);
        const sample = parseFio(row, await run('fio', fio));
        const cpuUsPerRequest = (cpuMicroseconds(contender.pids) - before) / sample.requests;
        measurements.push({ row: row.name, round, contender: contender.name, sample, cpuUsPerRequest });
        console.log(
          `  ${labels[contender.name].padEnd(20)} ${rateText(row.blockBytes, sample).padStart(9)}  median ${sample.medianUs.toFixed(1)} us, ` +
            `p99 ${sample.p99Us.toFixed(1)} us, ${cpuUsPerRequest.toFixed(1)} CPU us per request`,
        );
      }
    }
  } finally {
    await spinners?.stop();
  }
}

/** What is compiled while it runs is measured as it is after a while, and caches are as this row leaves them. */
async function warmUp(row: Row, { uri }: Contender, sizeBytes: number): Promise<void> {
  await run('fio', fioArguments(row, { uri, seconds: options.warmUpSeconds, sizeBytes }));
}

/** Each round begins with another one, so that nobody always follows the same neighbour. */
function inTurn<T>(all: readonly T[], by: number): readonly T[] {
  const at = by % Math.max(1, all.length);
  return [...all.slice(at), ...all.slice(0, at)];
}

async function tidy(): Promise<void> {
  for (let next = leftovers.pop(); next; next = leftovers.pop()) await next();
}
