/**
 * The flags of scripts that measure and prove. Misuse ends the process with status 2 and says which flags there are, as
 * everywhere in the command line; `--help` says it with status 0.
 */
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';

export interface Flag {
  readonly type: 'string' | 'boolean';
  readonly default?: string | boolean;
  /** What it does, for `--help`. */
  readonly help: string;
}

/** The values of `flags` on this process's command line. `name` is the script's, as it is called. */
export function readFlags<Flags extends Record<string, Flag> & ParseArgsOptionsConfig>(
  name: string,
  flags: Flags,
) {
  if (process.argv.includes('--help')) {
    console.log(`${name}\n\n${helpOf(flags)}`);
    process.exit(0);
  }
  try {
    return parseArgs({ options: flags }).values;
  } catch (error) {
    return misuse(name, `${error instanceof Error ? error.message : String(error)}\n\n${helpOf(flags)}`);
  }
}

/** In decimal digits; anything else is misuse. */
export function wholeNumber(name: string, flag: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (/^[0-9]+$/.test(text) && value >= min && value <= max) return value;
  return misuse(name, `--${flag} "${text}" is not a whole number from ${min} to ${max}`);
}

export function misuse(name: string, message: string): never {
  console.error(`${name}: ${message}`);
  process.exit(2);
}

function helpOf(flags: Readonly<Record<string, Flag>>): string {
  const lines = Object.entries(flags).map(([flag, { type, default: usual, help }]) => {
    const value = type === 'string' ? ' VALUE' : '';
    return `  --${flag}${value}  ${help}${type === 'string' && usual !== undefined ? ` (default ${usual})` : ''}`;
  });
  return lines.join('\n');
}
