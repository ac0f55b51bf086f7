/**
 * Plants bugs in the replication core, one at a time, and sees whether the simulator notices (docs/planted-bugs.md).
 *   node scripts/sim-planted.ts                  every bug up to its bound; fails if one is not caught
 *   node scripts/sim-planted.ts --only NAME,...  some of them
 *   node scripts/sim-planted.ts --seeds 200      how many of the first 200 histories notice each bug
 *   node scripts/sim-planted.ts --write          puts the table into docs/planted-bugs.md
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { catalogue } from '../test/sim/planted/catalogue.ts';
import type { Row } from '../test/sim/planted/report.ts';
import { checkersOf, lineOf, markdown } from '../test/sim/planted/report.ts';
import { huntAll } from '../test/sim/planted/pool.ts';
import { readFlags, wholeNumber } from './flags.ts';

const script = 'sim-planted';
const flags = readFlags(script, {
  only: { type: 'text', help: 'NAME,...  some of the bugs' },
  seeds: { type: 'text', help: 'N  so many histories for each bug, and how many of them notice it' },
  threads: { type: 'text', help: 'N  so many at once (default: one per processor)' },
  write: { type: 'switch', help: 'the table into docs/planted-bugs.md' },
});
const seeds = flags.text('seeds');
const histories = seeds === undefined ? null : wholeNumber(script, 'seeds', seeds, 1, 1_000_000);

const names = flags.text('only')?.split(',');
const bugs = catalogue.filter(({ name }) => names?.includes(name) ?? true);
const threads = wholeNumber(
  script,
  'threads',
  flags.text('threads') ?? String(availableParallelism()),
  1,
  256,
);
const hunts = huntAll(
  bugs,
  histories === null ? { threads, catchesMax: 1 } : { threads, catchesMax: Infinity, seeds: histories },
);

const rows: Row[] = [];
let bad = 0;
for (const bug of bugs) {
  try {
    const hunt = await hunts.get(bug.name);
    if (hunt === undefined) throw new Error(`${bug.name} was not hunted`);
    rows.push({ bug, hunt });
    console.log(lineOf({ bug, hunt }));
    const [first] = hunt.catches;
    const unlisted = checkersOf(hunt).filter((checker) => !bug.checkers.includes(checker));
    if (unlisted.length > 0) console.log(`  the catalogue does not list ${unlisted.join(', ')} for it`);
    if (first === undefined ? hunt.runs >= bug.seedsMax : first.seed > bug.seedsMax) bad++;
  } catch (error) {
    bad++;
    console.log(error instanceof Error ? error.message : String(error));
  }
}
console.log(`${bugs.length} planted bugs, ${bugs.length - bad} caught within their bounds`);
if (bad > 0) process.exitCode = 1;
if (flags.has('write') && names === undefined) {
  const path = join(import.meta.dirname, '..', 'docs', 'planted-bugs.md');
  const [before, after] = readFileSync(path, 'utf8').split(/\n\| bug \|[^]*?\|\n(?!\|)/);
  writeFileSync(path, `${before}\n${markdown(rows)}\n${after ?? ''}`);
}
