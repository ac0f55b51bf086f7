/** A disk that hangs, with many reads of a client: the control API, another resource and the writes beside it go on. */
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectNbd } from '../../nbd/client.ts';
import { backingOf, definePlain, makeNode, socketOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { percentile } from './report.ts';

const stuckReads = 200;
const looks = 200;
const requests = 2000;
const p99MsMax = 50;

export async function stuckDisk(run: Measurement): Promise<void> {
  const faultFile = join(run.directory, 'faults.json');
  const fifo = join(run.directory, 'stuck');
  spawnSync('mkfifo', [fifo]);
  const node = makeNode(run, 'alpha', { LOCKSTEP_TEST: '1', LOCKSTEP_TEST_FAULT_FILE: faultFile });
  await node.start();
  for (const resource of ['stuck', 'well']) await definePlain(node, resource, '256MiB');
  const attach = (resource: string) =>
    connectNbd({ address: { path: socketOf(node, resource) }, exportName: resource, timeoutMs: 600_000 });
  const stuck = await attach('stuck');
  const well = await attach('well');
  writeFileSync(faultFile, JSON.stringify({ stall: { backing: backingOf(node, 'stuck'), fifo } }));
  const reads = Array.from({ length: stuckReads }, (_, index) => stuck.read(index * 4096, 4096));
  for (const read of reads) read.catch(() => undefined);

  const took = await times(looks, () => node.call('GET', '/v1/resources'));
  const block = Buffer.alloc(4096, 1);
  const other = await times(requests, async (index) => {
    await well.write(index * 4096, block);
    if (index % 100 === 0) await well.flush();
  });
  const same = await attach('stuck');
  const beside = await times(requests, (index) => same.write(64 * 1024 ** 2 + index * 4096, block));
  const add = (what: string, figures: readonly number[]): void =>
    run.report.add({
      what: `${what}, beside ${stuckReads} reads that hang`,
      measured: `p99 ${percentile(figures, 0.99).toFixed(1)} ms of ${figures.length}`,
      bound: `p99 < ${p99MsMax} ms`,
      met: percentile(figures, 0.99) < p99MsMax,
    });
  add('GET /v1/resources', took);
  add('writes and flushes of another resource', other);
  add('writes of the same one', beside);
  rmSync(faultFile);
}

async function times(count: number, step: (index: number) => Promise<unknown>): Promise<number[]> {
  const took: number[] = [];
  for (let index = 0; index < count; index++) {
    const startMs = performance.now();
    await step(index);
    took.push(performance.now() - startMs);
  }
  return took;
}
