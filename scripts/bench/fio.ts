/** fio: the command of a row, and what its answer says. It runs elsewhere (processes.ts). */
import { Type } from 'typebox';
import { checker } from '../../server/validation.ts';
import { findTool } from '../../test/support/find-tool.ts';
import type { Row } from './rows.ts';

export interface Sample {
  /** Finished requests. */
  readonly requests: number;
  readonly perSecond: number;
  readonly bytesPerSecond: number;
  /** From submission to completion, microseconds; of the flush, where each write is followed by one. */
  readonly medianUs: number;
  readonly p99Us: number;
}

export interface FioRun {
  readonly uri: string;
  readonly seconds: number;
  readonly sizeBytes: number;
}

/** Throws when it is not there. */
export function expectFio(find: (command: string) => string | null = findTool): void {
  if (find('fio') !== null) return;
  throw new Error(
    'fio is not installed, and everything is measured with it (scripts/install-test-tools.sh installs it)',
  );
}

/** What fio needs to know of a row. */
export type Work = Pick<Row, 'work' | 'blockBytes' | 'depth' | 'flushEach'> & { readonly name: string };

export function fioArguments(row: Work, { uri, seconds, sizeBytes }: FioRun): string[] {
  return [
    `--name=${row.name}`,
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${row.work}`,
    `--bs=${row.blockBytes / 1024}k`,
    `--iodepth=${row.depth}`,
    `--size=${sizeBytes / 1024 ** 2}m`,
    ...(row.flushEach ? ['--fsync=1'] : []),
    '--time_based',
    `--runtime=${seconds}`,
    '--output-format=json',
  ];
}

/** Every block is written once before anything is measured: pages exist, and reads find data, not holes. */
export function fillArguments({ uri, sizeBytes }: Pick<FioRun, 'uri' | 'sizeBytes'>): string[] {
  return [
    '--name=fill',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=write',
    '--bs=1m',
    '--iodepth=4',
    `--size=${sizeBytes / 1024 ** 2}m`,
    '--end_fsync=1',
    '--output-format=json',
  ];
}

const Percentiles = Type.Object({ percentile: Type.Optional(Type.Record(Type.String(), Type.Number())) });
const Direction = Type.Object({
  iops: Type.Number({ minimum: 0 }),
  bw_bytes: Type.Number({ minimum: 0 }),
  total_ios: Type.Number({ minimum: 0 }),
  clat_ns: Percentiles,
});
const checkFio = checker(
  Type.Object({
    jobs: Type.Array(
      Type.Object({
        error: Type.Integer(),
        read: Direction,
        write: Direction,
        sync: Type.Object({ lat_ns: Percentiles }),
      }),
      { minItems: 1, maxItems: 1 },
    ),
  }),
);

/** `output` is what fio printed: warnings may precede the JSON. Throws when it is not that, or no request has ended well. */
export function parseFio(row: Pick<Row, 'work' | 'flushEach'>, output: string): Sample {
  const job = readJob(output);
  if (job.error !== 0) throw new Error(`fio failed with error ${job.error}`);
  const direction = row.work.endsWith('write') ? job.write : job.read;
  if (direction.total_ios === 0) throw new Error('fio finished no request');
  const latencies = (row.flushEach ? job.sync.lat_ns : direction.clat_ns).percentile;
  return {
    requests: direction.total_ios,
    perSecond: direction.iops,
    bytesPerSecond: direction.bw_bytes,
    medianUs: microseconds(latencies, '50.000000'),
    p99Us: microseconds(latencies, '99.000000'),
  };
}

function readJob(output: string) {
  const start = output.indexOf('{');
  let value: unknown;
  try {
    value = JSON.parse(output.slice(Math.max(0, start)));
  } catch (error) {
    throw new Error(`fio printed no JSON: ${output.slice(0, 200)}`, { cause: error });
  }
  const checked = checkFio(value);
  const [job] = checked.ok ? checked.value.jobs : [];
  if (!checked.ok || !job) throw new Error('the JSON that fio printed has another form than expected');
  return job;
}

function microseconds(percentiles: Readonly<Record<string, number>> | undefined, percent: string): number {
  const nanoseconds = percentiles?.[percent];
  if (nanoseconds === undefined) throw new Error(`fio printed no percentile ${percent}`);
  return nanoseconds / 1000;
}
