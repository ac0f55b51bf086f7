/** fio with its nbd engine, run to its end, and the figures of it. */
import { spawn } from 'node:child_process';
import { Type } from 'typebox';
import { expectBody } from '../../server/cli/api-client.ts';
import { checker } from '../../server/validation.ts';

const checkFio = checker(
  Type.Object({
    jobs: Type.Array(
      Type.Object({
        write: Type.Object({
          iops: Type.Number(),
          bw_bytes: Type.Number(),
          clat_ns: Type.Object({ percentile: Type.Optional(Type.Record(Type.String(), Type.Number())) }),
        }),
      }),
    ),
  }),
);

export interface Written {
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly medianUs: number;
  readonly p99Us: number;
}

/** Writes as `options` say (fio's own, without `--`); the rest is the same for all. */
export async function fio(uri: string, options: Readonly<Record<string, string | number>>): Promise<Written> {
  const given = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const output = await run('fio', [
    ...['--name=w', '--ioengine=nbd', `--uri=${uri}`, '--output-format=json'],
    ...given,
  ]);
  const job = expectBody(checkFio(JSON.parse(output.slice(output.indexOf('{'))))).jobs[0]?.write;
  const us = (percent: string): number => (job?.clat_ns.percentile?.[percent] ?? 0) / 1000;
  return {
    iops: job?.iops ?? 0,
    bytesPerSecond: job?.bw_bytes ?? 0,
    medianUs: us('50.000000'),
    p99Us: us('99.000000'),
  };
}

function run(command: string, options: readonly string[]): Promise<string> {
  const child = spawn(command, options, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', (error) =>
      reject(
        new Error(`${command} cannot be run (scripts/install-test-tools.sh installs it)`, { cause: error }),
      ),
    );
    child.on('close', (status) =>
      status === 0 ? resolve(output) : reject(new Error(`${command} ended with status ${status}`)),
    );
  });
}
