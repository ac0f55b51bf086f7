/**
 * Verbs that run a script of the checkout and not of the package: it uses what the tests use. This finds the script and
 * passes the flags on.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { StartError } from '../start-error.ts';
import type { Arguments, FlagSpec } from './arguments.ts';

export interface CheckoutScript {
  readonly verb: string;
  readonly summary: string;
  readonly flags: Readonly<Record<string, FlagSpec>>;
}

/** Answers the exit status: 0 all is well, 1 not, 2 misuse. Throws StartError outside a checkout. */
export async function runCheckoutScript({ verb, flags }: CheckoutScript, args: Arguments): Promise<number> {
  const script = join(import.meta.dirname, `../../scripts/${verb}.ts`);
  if (!existsSync(script)) {
    throw new StartError(
      `this needs a checkout of Lockstep, with its tests and development packages; there: npm run -s lockstep -- ${verb}`,
    );
  }
  const given = Object.entries(flags).flatMap(([flag, { type }]) => {
    if (type === 'switch') return args.has(flag) ? [`--${flag}`] : [];
    const value = args.text(flag);
    return value === undefined ? [] : [`--${flag}=${value}`];
  });
  const child = spawn(process.execPath, [script, ...given], { stdio: 'inherit' });
  // It puts its own things in order first. From a terminal both get the signal; from elsewhere perhaps only this process.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status) => resolve(status ?? 1));
  });
}
