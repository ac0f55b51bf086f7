/** `lockstep torture`, as its users call it. */
import { readdirSync } from 'node:fs';
import test from 'ava';
import { cleanEnvironment, lockstep } from '../support/command-line.ts';
import { temporaryDirectory } from '../support/temporary.ts';

test.serial(
  'torture: two cycles lose nothing, are reported one by one, and leave nothing behind',
  async (t) => {
    const directory = temporaryDirectory(t);
    const { status, stdout, stderr } = await lockstep(
      ['torture', '--cycles', '2', '--seed', '3', '--dir', directory],
      cleanEnvironment(directory),
    );
    t.is(status, 0, stdout + stderr);
    t.deepEqual(stdout.match(/^cycle [0-9]+|none lost$/gm), ['cycle 1', 'cycle 2', 'none lost'], stdout);
    t.deepEqual(readdirSync(directory), []);
  },
);

test('torture: a flag that is no number, or not known, is misuse', async (t) => {
  const environment = cleanEnvironment(temporaryDirectory(t));
  const [noNumber, unknown] = await Promise.all([
    lockstep(['torture', '--cycles', 'many'], environment),
    lockstep(['torture', '--cycle', '3'], environment),
  ]);
  t.deepEqual([noNumber.status, unknown.status], [2, 2]);
  t.regex(noNumber.stderr, /--cycles "many" is not a whole number/);
  t.regex(unknown.stderr, /unknown flag --cycle /);
});
