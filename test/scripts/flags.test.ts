/** What the scripts beside the command line say to flags they do not know. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import test from 'ava';

const scripts = join(import.meta.dirname, '../../scripts');

interface Answer {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function runScript(file: string, args: readonly string[]): Promise<Answer> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [join(scripts, file), ...args], (_error, stdout, stderr) =>
      resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

for (const [file, name, wrongNumber] of [
  ['sim.ts', 'lockstep sim', ['--seeds', 'x']],
  ['torture.ts', 'lockstep torture', ['--cycles', '0']],
  ['growth.ts', 'growth', ['--minutes', 'x']],
  ['resync-bench.ts', 'resync-bench', ['--rounds', '0']],
  ['measure.ts', 'measure', ['--seconds', '1.5']],
  ['sim-planted.ts', 'sim-planted', ['--threads', '0']],
] as const) {
  test(`${file}: an unknown flag is misuse, and the answer names those that there are`, async (t) => {
    const { status, stdout, stderr } = await runScript(file, ['--nonsense']);
    t.is(status, 2, stderr);
    t.is(stdout, '');
    t.true(stderr.startsWith(`${name}: `), stderr);
    t.regex(stderr, /unknown flag --nonsense/);
    t.true(stderr.includes(`\n  ${wrongNumber[0]} N  `), stderr);
    t.notRegex(stderr, /\n +at /, 'no stack trace');
  });

  test(`${file}: a number that is none is misuse`, async (t) => {
    const { status, stderr } = await runScript(file, wrongNumber);
    t.is(status, 2, stderr);
    t.notRegex(stderr, /\n +at /, 'no stack trace');
  });

  test(`${file}: --help lists its flags`, async (t) => {
    const { status, stdout, stderr } = await runScript(file, ['--help']);
    t.is(status, 0, stderr);
    t.true(stdout.includes(`\n  ${wrongNumber[0]} N  `), stdout);
  });
}
