/** A sparse mirrored 16 TiB device of which little is written, everywhere: what its start, a look at it and memory cost. */
import { connectNbd } from '../../nbd/client.ts';
import { memoryOf } from '../../test/support/memory-use.ts';
import { isMirroring } from '../../test/support/status.ts';
import { fio } from './fio.ts';
import { defineMirrored, makeNode, socketOf, startPair, timed, uriOf } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { mebibytes, seconds } from './report.ts';

/** 16 TiB less what ext4 cannot have in a file. */
const deviceBytes = 16 * 1024 ** 4 - 4096;
/** As many extents of 4 MiB as 10 GiB have. */
const writtenExtents = 2560;
const scatteredWrites = 20_000;
const startMsMax = 1000;
const memoryBytesMax = 150 * 1024 ** 2;

export async function largeDevice(run: Measurement): Promise<void> {
  const { report } = run;
  const empty = makeNode(run, 'empty');
  report.add({
    what: 'start of a node without resources',
    measured: seconds(await timed(() => empty.start())),
    bound: '',
    met: null,
  });
  report.add({
    what: 'memory of a node without resources',
    measured: mebibytes(memoryOf(empty.pid).nowBytes),
    bound: '',
    met: null,
  });
  await empty.stop();

  const pair = await startPair(run);
  const [alpha, beta] = pair;
  await defineMirrored(pair, 'r0', String(deviceBytes));
  report.say('writing 64 KiB into each of 2560 extents, mirrored');
  const uri = uriOf(alpha, 'r0');
  await fio({
    uri,
    rw: 'randwrite',
    blockSize: '64k',
    depth: 16,
    size: String(deviceBytes),
    requests: writtenExtents,
  });
  report.say('and 20,000 blocks anywhere, without the peer');
  await beta.stop();
  await fio({ uri, rw: 'randwrite', depth: 32, size: String(deviceBytes), requests: scatteredWrites });
  report.add({
    what: '16 TiB: memory of the Primary, 22,560 extents written',
    ...memory(alpha.pid),
  });
  const look = await timed(() => alpha.status('r0'));
  report.add({ what: '16 TiB: status', ...time(look) });
  await alpha.kill9();
  const start = await timed(() => alpha.start());
  report.add({ what: '16 TiB: start after kill -9', ...time(start) });
  await beta.start();
  await alpha.waitFor('r0', (status) => isMirroring(status), 'the resync', 180_000);
  await alpha.call('POST', '/v1/resources/r0/promote');
  const attach = await timed(async () => {
    const client = await connectNbd({ address: { path: socketOf(alpha, 'r0') }, exportName: 'r0' });
    await client.read(0, 4096);
    await client.disconnect();
  });
  report.add({ what: '16 TiB: attach and first read', ...time(attach) });
  report.add({ what: '16 TiB: memory of the source after the resync', ...memory(alpha.pid) });
  report.add({ what: '16 TiB: memory of the target after the resync', ...memory(beta.pid) });
  await alpha.stop();
  report.add({ what: '16 TiB: start after a clean stop', ...time(await timed(() => alpha.start())) });
}

function time(ms: number): { measured: string; bound: string; met: boolean } {
  return { measured: seconds(ms), bound: `< ${seconds(startMsMax)}`, met: ms < startMsMax };
}

function memory(pid: number): { measured: string; bound: string; met: boolean } {
  const { nowBytes, mostBytes, anonymousBytes, proportionalBytes } = memoryOf(pid);
  return {
    measured: `${mebibytes(nowBytes)} (its own ${mebibytes(anonymousBytes)}, PSS ${mebibytes(proportionalBytes)}; at most ${mebibytes(mostBytes)})`,
    bound: `< ${mebibytes(memoryBytesMax)}`,
    met: nowBytes < memoryBytesMax,
  };
}
