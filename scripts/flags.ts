/**
 * The flags of scripts that measure and prove, read as the command line reads those of its verbs. Misuse ends the process with
 * status 2 and says which flags there are; `--help` says it with status 0.
 */
import { flagLines, readArguments, type Arguments, type FlagSpec } from '../server/cli/arguments.ts';
import { UsageError } from '../server/config.ts';

/** Those of this process's command line. `name` is the script's, as it is called. */
export function readFlags(name: string, flags: Readonly<Record<string, FlagSpec>>): Arguments {
  const help = flagLines(flags);
  try {
    const given = readArguments(name, process.argv.slice(2), {
      ...flags,
      help: { type: 'switch', help: '' },
    });
    if (given.has('help')) {
      console.log([name, '', ...help].join('\n'));
      process.exit(0);
    }
    const [word] = given.words;
    if (word !== undefined) throw new UsageError(`${name}: unknown word ${word}`);
    return given;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error([error.message, '', ...help].join('\n'));
    process.exit(2);
  }
}

/** In decimal digits; null for anything else. */
export function wholeNumberIn(text: string, min: number, max: number): number | null {
  const value = Number(text);
  return /^[0-9]+$/.test(text) && value >= min && value <= max ? value : null;
}

/** The same for a flag of `name`; anything else is misuse. */
export function wholeNumber(name: string, flag: string, text: string, min: number, max: number): number {
  const value = wholeNumberIn(text, min, max);
  return value ?? misuse(name, `--${flag} "${text}" is not a whole number from ${min} to ${max}`);
}

export function misuse(name: string, message: string): never {
  console.error(`${name}: ${message}`);
  process.exit(2);
}
