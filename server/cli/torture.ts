/**
 * `torture` runs a script that belongs to the checkout and not to the package: it uses what the tests use to tell whether
 * a write was lost. This finds it and passes the flags on.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { StartError } from '../start-error.ts';
import type { Arguments, FlagSpec } from './arguments.ts';

export const tortureSummary = 'Kill, freeze and restart a pair under load, and look for lost writes';

export const tortureFlags: Readonly<Record<string, FlagSpec>> = {
  cycles: { type: 'text', help: 'N  how many faults, each followed by a full check (default 20)' },
  seed: {
    type: 'text',
    help: 'N  repeats what is done and written, not the speed of the machine (default: drawn)',
  },
  dir: {
    type: 'text',
    help: 'DIR  where the nodes are; kept after a failure (default: the system’s for temporary files)',
  },
};

/** Answers the exit status: 0 nothing lost, 1 something lost or stuck, 2 misuse. Throws StartError outside a checkout. */
export async function runTorture(args: Arguments): Promise<number> {
  const script = join(import.meta.dirname, '../../scripts/torture.ts');
  if (!existsSync(script)) {
    throw new StartError(
      'this needs a checkout of Lockstep, with its tests and development packages; there: npm run -s lockstep -- torture',
    );
  }
  const flags = Object.keys(tortureFlags).flatMap((flag) => {
    const value = args.text(flag);
    return value === undefined ? [] : [`--${flag}=${value}`];
  });
  const child = spawn(process.execPath, [script, ...flags], { stdio: 'inherit' });
  // It ends its nodes first. From a terminal both get the signal; from elsewhere perhaps only this process.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status) => resolve(status ?? 1));
  });
}
