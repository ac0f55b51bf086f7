/** Reads that miss the page cache: they scale with the queue's depth, and hold up neither writes nor cached reads. */
import { spawnSync } from 'node:child_process';
import { fio } from './fio.ts';
import { backingOf, definePlain, makeNode, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { perSecond } from './report.ts';

const filled = '2G';
const scaleMin = 3;

export async function coldReads(run: Measurement): Promise<void> {
  const { report } = run;
  const node = makeNode(run, 'alpha');
  await node.start();
  await definePlain(node, 'cold', '4GiB');
  const uri = uriOf(node, 'cold');
  report.say('filling 2 GiB');
  await fio({ uri, rw: 'write', blockSize: '1m', depth: 4, size: filled, more: ['--end_fsync=1'] });
  const backing = backingOf(node, 'cold');
  const read = { uri, rw: 'randread', size: filled, seconds: run.seconds } as const;
  const rates = new Map<number, number>();
  for (const depth of [1, 4, 32]) {
    forget(backing);
    const { iops, medianUs } = await fio({ ...read, depth });
    rates.set(depth, iops);
    const scale = iops / (rates.get(1) ?? iops);
    report.add({
      what: `cold 4k reads, queue ${depth}`,
      measured: `${perSecond(iops)}, median ${medianUs.toFixed(0)} us (${scale.toFixed(1)} times)`,
      bound: depth === 32 ? `>= ${scaleMin} times queue 1` : '',
      met: depth === 32 ? scale >= scaleMin : null,
    });
  }
  const write = { uri, rw: 'randwrite', size: '64M', depth: 1, seconds: run.seconds } as const;
  const alone = await fio({ ...write, more: ['--offset=3g'] });
  forget(backing);
  const reading = fio({ ...read, depth: 32, seconds: run.seconds + 2 });
  const beside = await fio({ ...write, more: ['--offset=3g', '--ramp_time=1'] });
  await reading;
  report.add({
    what: 'writes beside cold reads at queue 32, and alone',
    measured: `p99 ${beside.p99Us.toFixed(0)} us, alone ${alone.p99Us.toFixed(0)} us; median ${beside.medianUs.toFixed(0)} us, ${alone.medianUs.toFixed(0)} us`,
    bound: 'p99 < 5 ms',
    met: beside.p99Us < 5000,
  });
}

/** Drops the file's clean pages from the page cache. */
function forget(path: string): void {
  const dropped = spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
  if (dropped.status !== 0) throw new Error('dd cannot drop the page cache of the backing');
}
