/**
 * `lockstep bench`: our mirror beside qemu's, row by row, in alternating rounds on one machine. Prints each measurement
 * as it is made, then tables of medians and ratios; a complete run also renews the figures under docs/.
 */
import { lineup, type Lineup } from './bench/field.ts';
import { expectFio, fioArguments } from './bench/fio.ts';
import { Leftovers } from './bench/leftovers.ts';
import { describeMachine, mediumOf, versions } from './bench/machine.ts';
import { microTable, runMicro } from './bench/micro.ts';
import { OptionError, readOptions, type BenchOptions } from './bench/options.ts';
import { profileWrites } from './bench/profile.ts';
import { shellWords } from './bench/processes.ts';
import { publish } from './bench/report.ts';
import { summarise } from './bench/results.ts';
import { createDirectory, measureRows, startFilled } from './bench/rounds.ts';
import type { Row } from './bench/rows.ts';
import { resultTables } from './bench/tables.ts';

const leftovers = new Leftovers();
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // It may come twice, from the terminal and from the command that started this.
  process.on(signal, () => {
    interrupted = true;
    void leftovers.clear().finally(() => process.exit(1));
  });
}

try {
  await main(readOptions(process.argv.slice(2)));
} catch (error) {
  // What fails because everything is being ended is no news.
  if (!interrupted)
    console.error(`lockstep bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = error instanceof OptionError ? 2 : 1;
} finally {
  await leftovers.clear();
}

async function main(options: BenchOptions): Promise<void> {
  if (options.mode === 'micro') {
    const parts = runMicro();
    console.log(microTable(parts));
    if (parts.some(({ isSlower }) => isSlower)) process.exitCode = 1;
    return;
  }
  expectFio();
  if (options.mode === 'profile') {
    console.log(await profileWrites(options, leftovers));
    return;
  }
  const machine = describeMachine();
  const begun = new Date().toISOString();
  console.log(`${machine.processors} x ${machine.processor}, Linux ${machine.kernel}`);
  if (machine.loadAverage > 0.5) {
    console.log(
      `the machine has other work (load ${machine.loadAverage.toFixed(2)}): figures will suffer, ratios too`,
    );
  }
  const { rows, missing: missingRows } = possibleRows(options);
  const field = lineup(options.contenders);
  const absent = [...field.missing, ...missingRows];
  for (const sentence of absent) console.log(sentence);

  if (options.mode === 'hold') return hold(rows, options, field);
  const onMemory = await measureRows(
    rows.filter(({ medium }) => medium === 'memory'),
    options,
    field,
    leftovers,
  );
  const onDisk = await measureRows(
    rows.filter(({ medium }) => medium === 'disk'),
    options,
    field,
    leftovers,
  );
  const measurements = [...onMemory.measurements, ...onDisk.measurements];
  const missing = [...new Set([...absent, ...onMemory.missing, ...onDisk.missing])];
  const results = summarise(rows, measurements);
  console.log(`\n${resultTables(results)}`);
  for (const sentence of missing) console.log(sentence);
  if (options.out === null) return;
  const { rounds, seconds } = options;
  const commands = [...onMemory.commands, ...onDisk.commands];
  const sections = [
    { title: 'Where the time of one mirrored write goes', body: await profileWrites(options, leftovers) },
    { title: 'Parts by themselves', body: microTable(runMicro()) },
  ];
  const report = {
    begun,
    machine,
    versions: versions(),
    rounds,
    seconds,
    missing,
    commands,
    results,
    measurements,
  };
  for (const path of publish({ ...report, sections }, options.out)) console.log(`written: ${path}`);
}

/** Everybody stays up, for whoever wants to measure by hand; ended by a signal. */
async function hold(rows: readonly Row[], options: BenchOptions, field: Lineup): Promise<void> {
  const { parent, sizeBytes } = options.places.memory;
  const directory = createDirectory(parent, field.images * sizeBytes, leftovers);
  const { contenders } = await startFilled(field.present, { directory, sizeBytes }, leftovers, console.log);
  for (const row of rows) {
    console.log(`\n${row.title}`);
    for (const { uri } of contenders) {
      console.log(shellWords(['fio', ...fioArguments(row, { uri, seconds: options.seconds, sizeBytes })]));
    }
  }
  console.log('\nCtrl-C ends all of them');
  await new Promise<never>(() => setInterval(() => undefined, 3_600_000));
}

/** A flush into memory is none: rows that are about a disk want one. */
function possibleRows({ rows, places }: BenchOptions): Pick<BenchOptions, 'rows'> & { missing: string[] } {
  if (!rows.some(({ medium }) => medium === 'disk') || !mediumOf(places.disk.parent).inMemory) {
    return { rows, missing: [] };
  }
  const left = rows.filter(({ medium }) => medium === 'disk').map(({ name }) => name);
  return {
    rows: rows.filter(({ medium }) => medium !== 'disk'),
    missing: [
      `${left.join(', ')} left out: ${places.disk.parent} is no disk; --disk DIR names a directory on one`,
    ],
  };
}
