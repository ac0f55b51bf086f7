/**
 * Bugs planted in the core, one at a time, have to be caught by the simulator's checkers within a stated number of histories:
 * what nobody notices there, nobody would notice in a real change either. The rare ones are left to scripts/sim-planted.ts.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { catalogue } from './planted/catalogue.ts';
import { plant } from './planted/planted-bug.ts';
import { huntAll } from './planted/pool.ts';

const core = join(import.meta.dirname, '..', '..', 'replicator', 'core');

test('planted bugs: each fits one place of the core as it is', (t) => {
  for (const bug of catalogue) {
    const text = readFileSync(join(core, bug.file), 'utf8');
    t.notThrows(() => plant(bug, text), bug.name);
    t.not(bug.find, bug.replace, bug.name);
  }
});

test('planted bugs: their names are their own, and there are enough of them', (t) => {
  t.is(new Set(catalogue.map(({ name }) => name)).size, catalogue.length);
  t.true(catalogue.length >= 30);
});

const quick = catalogue.filter(({ rare }) => rare !== true);
const hunts = huntAll(quick, { threads: 2, catchesMax: 1 });

for (const bug of quick) {
  test(`planted: ${bug.what}: caught within ${bug.seedsMax} histories`, async (t) => {
    const hunt = await hunts.get(bug.name);
    const [caught] = hunt?.catches ?? [];
    if (caught === undefined) return t.fail(`nobody noticed in ${hunt?.runs} histories`);
    // An exception is what a change of the core around the planted text would make of it.
    t.true(
      caught.checker !== 'crash' || bug.checkers.includes('crash'),
      `it crashes with seed ${caught.seed}: ${caught.message}`,
    );
  });
}
