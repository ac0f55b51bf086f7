/**
 * What is acknowledged has been done before, as strace sees it on both nodes of a pair: the order of pwrite and
 * fdatasync of the backing files and of the NBD reply, for a plain write, a FLUSH and a FUA write.
 */
import { join } from 'node:path';
import test from 'ava';
import { ownBlock, startMirror } from '../support/mirror.ts';
import { attachTracer, exchangesOn, parseSystemCalls } from '../support/system-calls.ts';
import type { Exchange, SystemCall, Tracer } from '../support/system-calls.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { requirePresent, requireTool } from '../support/tools.ts';

for (const slow of ['alpha', 'beta']) {
  test.serial(
    `write, FLUSH, FUA write: done on the disks of both nodes before the Primary replies; the disk of ${slow} is slow`,
    async (t) => {
      if (!requireTool(t, ['strace'])) return;
      const mirror = await startMirror(t);
      const { alpha, beta } = mirror;
      await alpha.order('promote');
      const client = await mirror.attach(alpha);
      // The first write begins a generation and activates the extent; these are the usual ones.
      await client.write(0, ownBlock(0));
      await client.flush();
      const tracers: Tracer[] = [];
      for (const { node } of [alpha, beta]) {
        const output = join(temporaryDirectory(t), 'trace');
        const flushDelayMs = node.name === slow ? 300 : 0;
        const tracer = await attachTracer(t, { pid: node.pid, output, flushDelayMs });
        if (!requirePresent(t, tracer !== null, 'permission to trace processes') || tracer === null) return;
        tracers.push(tracer);
      }
      await client.write(plainOffset, ownBlock(plainOffset / 4096));
      await client.flush();
      await client.write(fuaOffset, ownBlock(fuaOffset / 4096), { fua: true });
      const calls = (await Promise.all(tracers.map((tracer) => tracer.finish()))).flat();

      const exchanges = exchangesOn(calls, alpha.nbdPort);
      t.is(exchanges.length, 3, 'one reply to each request');
      const [plain, flush, fua] = exchanges;
      if (plain === undefined || flush === undefined || fua === undefined) return;
      for (const peer of [alpha, beta]) {
        const disk = (await peer.status()).backing.path;
        const { name } = peer.node;
        t.not(
          written(calls, disk, plain, plainOffset),
          null,
          `${name}: the write was not done before the reply`,
        );
        t.true(
          flushed(calls, disk, flush, flush.requestUs),
          `${name}: FLUSH was answered before the fdatasync`,
        );
        const fuaWritten = written(calls, disk, fua, fuaOffset);
        t.not(fuaWritten, null, `${name}: the FUA write was not done before the reply`);
        t.true(
          flushed(calls, disk, fua, fuaWritten?.endUs ?? Infinity),
          `${name}: the FUA write was answered before an fdatasync that follows it`,
        );
      }
    },
  );
}

test('calls of several threads are told apart, and those that did not end', (t) => {
  const text = [
    '101 5.000100 fdatasync(7</d/data.img> <unfinished ...>',
    '102 5.000200 write(9<TCP:[127.0.0.1:80->127.0.0.1:90]>, ""..., 16) = 16 <0.000030>',
    '101 5.000300 <... fdatasync resumed>)  = 0 <0.000200>',
    '103 5.000400 <... read resumed>""..., 10) = 1 <9.000100>',
    '102 5.000500 pwrite64(7</d/data.img>, ""..., 4096, 8192 <detached ...>',
    '101 5.000600 +++ exited with 0 +++',
    '102 5.000700 fdatasync(7</d/data.img>) = -1 EIO (Input/output error) (DELAYED) <0.000001>',
  ].join('\n');
  const disk = '7</d/data.img>';
  const socket = '9<TCP:[127.0.0.1:80->127.0.0.1:90]>';
  t.deepEqual(parseSystemCalls(text), [
    { name: 'fdatasync', args: disk, beginUs: 5_000_100, endUs: 5_000_300, result: '0' },
    { name: 'write', args: `${socket}, ""..., 16`, beginUs: 5_000_200, endUs: 5_000_230, result: '16' },
    {
      name: 'pwrite64',
      args: `${disk}, ""..., 4096, 8192`,
      beginUs: 5_000_500,
      endUs: Infinity,
      result: null,
    },
    { name: 'fdatasync', args: disk, beginUs: 5_000_700, endUs: 5_000_701, result: '-1' },
  ]);
});

const plainOffset = 8 * 4096;
const fuaOffset = 16 * 4096;

/** The write of the block at this offset, ended before the reply; null when there is none. */
function written(
  calls: readonly SystemCall[],
  disk: string,
  { requestUs, replyUs }: Exchange,
  offset: number,
): SystemCall | null {
  const found = calls.find(
    ({ name, args, beginUs, endUs, result }) =>
      name === 'pwrite64' &&
      args.includes(`<${disk}>`) &&
      args.endsWith(`, 4096, ${offset}`) &&
      result === '4096' &&
      beginUs > requestUs &&
      endUs < replyUs,
  );
  return found ?? null;
}

/** Whether the disk was flushed, beginning after `afterUs` and ended before the reply. */
function flushed(
  calls: readonly SystemCall[],
  disk: string,
  { replyUs }: Exchange,
  afterUs: number,
): boolean {
  return calls.some(
    ({ name, args, beginUs, endUs, result }) =>
      name === 'fdatasync' &&
      args.includes(`<${disk}>`) &&
      result === '0' &&
      beginUs > afterUs &&
      endUs < replyUs,
  );
}
