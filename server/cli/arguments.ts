/** Reads the arguments of a verb: the flags it knows, and its positional words by name. */
import { parseArgs } from 'node:util';
import { UsageError } from '../config.ts';
import { didYouMean } from '../nearest.ts';

export interface FlagSpec {
  /** `switch` takes no value; `list` may be repeated. */
  readonly type: 'switch' | 'text' | 'list';
  readonly help: string;
}

export interface Arguments {
  readonly words: readonly string[];
  has(flag: string): boolean;
  text(flag: string): string | undefined;
  list(flag: string): readonly string[];
}

export const commonFlags: Readonly<Record<string, FlagSpec>> = {
  api: { type: 'text', help: 'URL  the node to ask (also LOCKSTEP_API); found by itself when one runs here' },
  token: {
    type: 'text',
    help: 'TOKEN  its token (also LOCKSTEP_TOKEN); found by itself on the same machine',
  },
  'data-dir': { type: 'text', help: 'DIR  the data directory of the node (also LOCKSTEP_DATA_DIR)' },
  json: { type: 'switch', help: 'print the answer of the API' },
  help: { type: 'switch', help: 'print this' },
};

/** For help: a line each. */
export function flagLines(flags: Readonly<Record<string, FlagSpec>>): string[] {
  return Object.entries(flags).map(
    ([flag, { type, help }]) => `  --${flag} ${type === 'switch' ? ' ' : ''}${help}`,
  );
}

/** Throws UsageError for what is not known or lacks its value. */
export function readArguments(
  verb: string,
  args: readonly string[],
  flags: Readonly<Record<string, FlagSpec>>,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Arguments {
  const { tokens } = parseArgs({
    args: [...args],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: Object.fromEntries(
      Object.entries(flags).map(([name, { type }]) => [
        name,
        { type: type === 'switch' ? ('boolean' as const) : ('string' as const) },
      ]),
    ),
  });
  const words: string[] = [];
  const values = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value);
    if (token.kind !== 'option') continue;
    const spec = Object.hasOwn(flags, token.name) ? flags[token.name] : undefined;
    if (!spec) {
      throw new UsageError(
        `${verb}: unknown flag ${token.rawName}${didYouMean(token.name, Object.keys(flags))}`,
      );
    }
    if (spec.type === 'switch') {
      if (token.value !== undefined) throw new UsageError(`${verb}: ${token.rawName} takes no value`);
      values.set(token.name, ['true']);
      continue;
    }
    if (!token.value || (!token.inlineValue && token.value.startsWith('--'))) {
      throw new UsageError(`${verb}: ${token.rawName} needs a value`);
    }
    const before = spec.type === 'list' ? (values.get(token.name) ?? []) : [];
    values.set(token.name, [...before, token.value]);
  }
  const fromEnvironment = (flag: string) => {
    const value = Object.hasOwn(commonFlags, flag)
      ? environment[`LOCKSTEP_${flag.toUpperCase().replaceAll('-', '_')}`]
      : undefined;
    return value === '' ? undefined : value;
  };
  return {
    words,
    has: (flag) => values.has(flag),
    text: (flag) =>
      values.get(flag)?.at(-1) ?? (flags[flag]?.type === 'text' ? fromEnvironment(flag) : undefined),
    list: (flag) => values.get(flag) ?? [],
  };
}
