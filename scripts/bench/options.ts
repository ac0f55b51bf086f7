/** The flags of `lockstep bench`. Misuse ends the process with status 2, as everywhere in the command line. */
import { parseArgs } from 'node:util';
import { contenderNames, rows, type ContenderName, type Row } from './rows.ts';

const MiB = 1024 ** 2;

export interface BenchOptions {
  readonly rows: readonly Row[];
  readonly contenders: readonly ContenderName[];
  readonly rounds: number;
  /** Of one measurement. */
  readonly seconds: number;
  /** Before the first round of a row, with each contender. */
  readonly warmUpSeconds: number;
  readonly places: Readonly<Record<Row['medium'], { readonly parent: string; readonly sizeBytes: number }>>;
}

export function readOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      rows: { type: 'string', default: '' },
      only: { type: 'string', default: '' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      memory: { type: 'string', default: '/dev/shm' },
      disk: { type: 'string', default: '/var/tmp' },
      gluster: { type: 'boolean', default: false },
    },
  });
  const quick = values.quick;
  return {
    rows: chosenRows(values.rows),
    contenders: chosenContenders(values.only, values.gluster),
    rounds: wholeNumber('rounds', values.rounds ?? (quick ? '1' : '3'), 99),
    seconds: wholeNumber('seconds', values.seconds ?? (quick ? '1' : '3'), 3600),
    warmUpSeconds: 1,
    places: {
      memory: { parent: values.memory, sizeBytes: (quick ? 256 : 512) * MiB },
      disk: { parent: values.disk, sizeBytes: 128 * MiB },
    },
  };
}

function chosenRows(pattern: string): Row[] {
  const expression = regularExpression(pattern);
  const chosen = rows.filter(({ name }) => expression.test(name));
  if (chosen.length > 0) return chosen;
  return misuse(`--rows "${pattern}" matches none of ${rows.map(({ name }) => name).join(', ')}`);
}

function chosenContenders(list: string, gluster: boolean): ContenderName[] {
  if (list === '') return contenderNames.filter((name) => name !== 'gluster' || gluster);
  const wanted = list.split(',');
  const unknown = wanted.find((word) => !contenderNames.some((name) => name === word));
  if (unknown !== undefined) misuse(`--only: "${unknown}" is none of ${contenderNames.join(', ')}`);
  return contenderNames.filter((name) => wanted.includes(name));
}

function regularExpression(pattern: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch {
    return misuse(`--rows "${pattern}" is no regular expression`);
  }
}

function wholeNumber(flag: string, text: string, max: number): number {
  const value = Number(text);
  if (/^[0-9]+$/.test(text) && value >= 1 && value <= max) return value;
  return misuse(`--${flag} "${text}" is not a whole number from 1 to ${max}`);
}

function misuse(what: string): never {
  console.error(`lockstep bench: ${what}`);
  process.exit(2);
}
