/** Load by fio's nbd engine: one job, its rate and its latencies. */
import { spawn } from 'node:child_process';
import { Type } from 'typebox';
import { checker } from '../../server/validation.ts';

export interface FioJob {
  readonly uri: string;
  readonly rw: 'randwrite' | 'randread' | 'write' | 'read';
  readonly depth: number;
  /** Connections, each with that depth. */
  readonly clients?: number;
  /** Seconds, unless it ends by itself after a number of requests. */
  readonly seconds?: number;
  readonly requests?: number;
  /** As fio spells sizes. */
  readonly blockSize?: string;
  /** The part of the device that is used, from its beginning. */
  readonly size: string;
  readonly more?: readonly string[];
}

export interface FioResult {
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly medianUs: number;
  readonly p99Us: number;
  readonly maxUs: number;
}

const Direction = Type.Object({
  iops: Type.Number(),
  bw_bytes: Type.Number(),
  total_ios: Type.Number(),
  clat_ns: Type.Object({
    max: Type.Number(),
    percentile: Type.Optional(Type.Record(Type.String(), Type.Number())),
  }),
});
const checkFio = checker(
  Type.Object({ jobs: Type.Array(Type.Object({ read: Direction, write: Direction })) }),
);

/** Throws when fio is missing or ends with an error. */
export async function fio(job: FioJob): Promise<FioResult> {
  const clients = job.clients ?? 1;
  const output = await run([
    '--name=job',
    '--ioengine=nbd',
    `--uri=${job.uri}`,
    `--rw=${job.rw}`,
    `--bs=${job.blockSize ?? '4k'}`,
    `--size=${job.size}`,
    `--iodepth=${job.depth}`,
    '--norandommap',
    '--randrepeat=0',
    ...(clients > 1 ? ['--thread', `--numjobs=${clients}`, '--group_reporting'] : []),
    ...(job.seconds === undefined ? [] : ['--time_based', `--runtime=${job.seconds}`]),
    ...(job.requests === undefined ? [] : [`--number_ios=${job.requests}`]),
    ...(job.more ?? []),
    '--output-format=json',
  ]);
  const checked = checkFio(JSON.parse(output.slice(output.indexOf('{'))));
  const [first] = checked.ok ? checked.value.jobs : [];
  if (first === undefined)
    throw new Error(`fio answered something else than expected:\n${output.slice(0, 500)}`);
  const direction = first.write.total_ios > 0 ? first.write : first.read;
  const us = (percent: string): number => (direction.clat_ns.percentile?.[percent] ?? 0) / 1000;
  return {
    iops: direction.iops,
    bytesPerSecond: direction.bw_bytes,
    medianUs: us('50.000000'),
    p99Us: us('99.000000'),
    maxUs: direction.clat_ns.max / 1000,
  };
}

function run(options: readonly string[]): Promise<string> {
  const child = spawn('fio', options, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  return new Promise((resolve, reject) => {
    child.on('error', (error) =>
      reject(new Error('fio cannot be run (scripts/install-test-tools.sh installs it)', { cause: error })),
    );
    child.on('close', (status) =>
      status === 0 ? resolve(output) : reject(new Error(`fio ended with status ${status}`)),
    );
  });
}
