/** The measuring itself: contenders are started side by side on one medium, filled, and take turns row by row. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Contender } from './contender.ts';
import { startField, type Field, type Lineup } from './field.ts';
import { fillArguments, fioArguments, parseFio, type Work } from './fio.ts';
import type { Leftovers } from './leftovers.ts';
import { mediumOf } from './machine.ts';
import type { BenchOptions } from './options.ts';
import { cpuMicroseconds, run, shellWords } from './processes.ts';
import type { Measurement } from './results.ts';
import { labels, type Row } from './rows.ts';
import { startSpinners } from './spinners.ts';
import { rateText } from './tables.ts';

export interface Measured {
  readonly measurements: readonly Measurement[];
  /** With `$DIR` for the directory, which is gone afterwards. */
  readonly commands: readonly string[];
  /** A sentence for each contender that did not start. */
  readonly missing: readonly string[];
}

/** All rows on one medium. */
export async function measureRows(
  rows: readonly Row[],
  options: BenchOptions,
  { present, images }: Lineup,
  leftovers: Leftovers,
): Promise<Measured> {
  const [first] = rows;
  if (!first) return { measurements: [], commands: [], missing: [] };
  const { parent, sizeBytes } = options.places[first.medium];
  const directory = createDirectory(parent, images * sizeBytes, leftovers);
  const commands: string[] = [];
  const note = (command: string): void => {
    console.log(`  ${command}`);
    // Between single quotes a shell would leave the name as it is.
    commands.push(command.replaceAll(directory, '$DIR').replace(/'([^']*\$DIR[^']*)'/g, '"$1"'));
  };
  console.log(`\nimages of ${sizeBytes / 1024 ** 2} MiB, ${first.medium}, in ${directory}`);
  const { contenders: field, missing } = await startFilled(
    present,
    { directory, sizeBytes },
    leftovers,
    note,
  );
  const measurements: Measurement[] = [];
  for (const row of rows) {
    console.log(`\n${row.name}: ${row.title}`);
    measurements.push(...(await measureRow(row, field, options, note)));
  }
  await leftovers.clear();
  return { measurements, commands, missing };
}

/** A directory of the run's own. Throws when there is no room for what will be in it. */
export function createDirectory(parent: string, neededBytes: number, leftovers: Leftovers): string {
  const { freeBytes } = mediumOf(parent);
  const MiB = 1024 ** 2;
  // Journals, metadata and logs want a little too.
  if (freeBytes < neededBytes * 1.1 + 64 * MiB) {
    throw new Error(
      `${parent} has ${Math.round(freeBytes / MiB)} MiB free; the images need ${Math.round(neededBytes / MiB)}`,
    );
  }
  const directory = mkdtempSync(join(parent, 'ls-bench-'));
  leftovers.add(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}

/**
 * So many requests that whoever is compiled while running has been: at queue 1 the seconds of a row are too few for that, and
 * its first rounds would be slower than all that follow.
 */
const toBeCompiled: Work = {
  name: 'warm-up',
  work: 'randwrite',
  blockBytes: 4096,
  depth: 32,
  flushEach: false,
};
const toBeCompiledSeconds = 3;

export async function startFilled(
  present: Lineup['present'],
  place: { readonly directory: string; readonly sizeBytes: number },
  leftovers: Leftovers,
  note: (command: string) => void,
): Promise<Field> {
  const field = await startField(place, present, (contender) => {
    leftovers.add(() => contender.stop());
    note(`# ${labels[contender.name]}`);
    contender.commands.forEach(note);
  });
  field.missing.forEach((sentence) => console.log(sentence));
  const { sizeBytes } = place;
  for (const { uri } of field.contenders) {
    await run('fio', fillArguments({ uri, sizeBytes }));
    await run('fio', fioArguments(toBeCompiled, { uri, seconds: toBeCompiledSeconds, sizeBytes }));
  }
  return field;
}

async function measureRow(
  row: Row,
  field: readonly Contender[],
  options: BenchOptions,
  note: (command: string) => void,
): Promise<Measurement[]> {
  const { sizeBytes } = options.places[row.medium];
  const measurements: Measurement[] = [];
  const spinners = row.awake ? await startSpinners() : null;
  if (spinners) note(`# with one "${spinners.command}" per processor`);
  try {
    // The code of this row is compiled by then too, and caches are as this row leaves them.
    for (const { uri } of field) {
      await run('fio', fioArguments(row, { uri, seconds: options.warmUpSeconds, sizeBytes }));
    }
    for (let round = 1; round <= options.rounds; round++) {
      for (const contender of inTurn(field, round - 1)) {
        const fio = fioArguments(row, { uri: contender.uri, seconds: options.seconds, sizeBytes });
        if (round === 1) note(shellWords(['fio', ...fio]));
        const before = cpuMicroseconds(contender.pids);
        const sample = parseFio(row, await run('fio', fio));
        const cpuUsPerRequest = (cpuMicroseconds(contender.pids) - before) / sample.requests;
        measurements.push({ row: row.name, round, contender: contender.name, sample, cpuUsPerRequest });
        console.log(
          `    ${labels[contender.name].padEnd(20)} ${rateText(row.blockBytes, sample).padStart(9)}  median ${sample.medianUs.toFixed(1)} us, ` +
            `p99 ${sample.p99Us.toFixed(1)} us, ${cpuUsPerRequest.toFixed(1)} CPU us per request`,
        );
      }
    }
  } finally {
    await spinners?.stop();
  }
  return measurements;
}

/** Each round begins with another one, so that nobody always follows the same neighbour. */
function inTurn<T>(all: readonly T[], by: number): readonly T[] {
  const at = by % Math.max(1, all.length);
  return [...all.slice(at), ...all.slice(0, at)];
}
