/** The flags of `lockstep bench`. Misuse ends the process with status 2, as everywhere in the command line. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { wholeNumberIn } from '../flags.ts';
import { contenderNames, rows, type ContenderName, type Row } from './rows.ts';

const MiB = 1024 ** 2;

export interface BenchOptions {
  readonly mode: 'measure' | 'profile' | 'micro' | 'hold';
  readonly rows: readonly Row[];
  readonly contenders: readonly ContenderName[];
  readonly rounds: number;
  /** Of one measurement. */
  readonly seconds: number;
  /** Before the first round of a row, with each contender. */
  readonly warmUpSeconds: number;
  readonly places: Readonly<Record<Row['medium'], { readonly parent: string; readonly sizeBytes: number }>>;
  /** Where results are published; null: only on standard output. */
  readonly out: string | null;
}

/** Throws OptionError. */
export function readOptions(args: readonly string[]): BenchOptions {
  const values = parse(args);
  const { quick } = values;
  const complete = !quick && values.rows === '' && values.only === '';
  const docs = join(import.meta.dirname, '../../docs');
  return {
    mode: values.profile ? 'profile' : values.micro ? 'micro' : values.hold ? 'hold' : 'measure',
    rows: chosenRows(values.rows),
    contenders: chosenContenders(values.only, values.gluster),
    rounds: wholeNumber('rounds', values.rounds ?? (quick ? '1' : '3'), 99),
    seconds: wholeNumber('seconds', values.seconds ?? (quick ? '1' : '3'), 3600),
    warmUpSeconds: quick ? 1 : 2,
    places: {
      memory: { parent: values.memory, sizeBytes: (quick ? 256 : 512) * MiB },
      disk: { parent: values.disk, sizeBytes: 128 * MiB },
    },
    out: values.out ?? (complete ? docs : null),
  };
}

export class OptionError extends Error {}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean', default: false },
        rows: { type: 'string', default: '' },
        only: { type: 'string', default: '' },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        memory: { type: 'string', default: '/dev/shm' },
        disk: { type: 'string', default: '/var/tmp' },
        out: { type: 'string' },
        gluster: { type: 'boolean', default: false },
        profile: { type: 'boolean', default: false },
        micro: { type: 'boolean', default: false },
        hold: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new OptionError(error instanceof Error ? error.message : String(error));
  }
}

function chosenRows(pattern: string): Row[] {
  const expression = regularExpression(pattern);
  const chosen = rows.filter(({ name }) => expression.test(name));
  if (chosen.length > 0) return chosen;
  throw new OptionError(`--rows "${pattern}" matches none of ${rows.map(({ name }) => name).join(', ')}`);
}

function chosenContenders(list: string, gluster: boolean): ContenderName[] {
  if (list === '') return contenderNames.filter((name) => name !== 'gluster' || gluster);
  const wanted = list.split(',');
  const unknown = wanted.find((word) => !contenderNames.some((name) => name === word));
  if (unknown !== undefined)
    throw new OptionError(`--only: "${unknown}" is none of ${contenderNames.join(', ')}`);
  return contenderNames.filter((name) => wanted.includes(name));
}

function regularExpression(pattern: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch {
    throw new OptionError(`--rows "${pattern}" is no regular expression`);
  }
}

function wholeNumber(flag: string, text: string, max: number): number {
  const value = wholeNumberIn(text, 1, max);
  if (value !== null) return value;
  throw new OptionError(`--${flag} "${text}" is not a whole number from 1 to ${max}`);
}
