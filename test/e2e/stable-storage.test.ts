/**
 * What is acknowledged has been done before, as strace sees it on both nodes of a pair: the order of pwrite and
 * fdatasync of the backing files and of the NBD reply, for a plain write, a FLUSH and a FUA write.
 */
import { join } from 'node:path';
import test from 'ava';
import { ownBlock, startMirror } from '../support/mirror.ts';
import { attachTracer, exchangesOn, parseSystemCalls } from '../support/system-calls.ts';
import type { Exchange, SystemCall } from '../support/system-calls.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { requirePresent, requireTool } from '../support/tools.ts';

test.serial(
  'write, FLUSH, FUA write: done on the backing files of both nodes before the Primary replies',
  async (t) => {
    if (!requireTool(t, ['strace'])) return;
    const mirror = await startMirror(t);
    const { alpha, beta } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    // The first write begins a generation and activates the extent; these are the usual ones.
    await client.write(0, ownBlock(0));
    await client.flush();
    const tracer = await attachTracer(
      t,
      [alpha.node.pid, beta.node.pid],
      join(temporaryDirectory(t), 'trace'),
    );
    if (!requirePresent(t, tracer !== null, 'permission to trace processes') || tracer === null) return;
    await client.write(plainOffset, ownBlock(plainOffset / 4096));
    await client.flush();
    await client.write(fuaOffset, ownBlock(fuaOffset / 4096), { fua: true });
    const calls = await tracer.finish();

    const exchanges = exchangesOn(calls, alpha.nbdPort);
    t.is(exchanges.length, 3, 'one reply to each request');
    const [plain, flush, fua] = exchanges;
    if (plain === undefined || flush === undefined || fua === undefined) return;
    for (const peer of [alpha, beta]) {
      const disk = (await peer.status()).backing.path;
      const name = peer.node.name;
      t.not(
        written(calls, disk, plain, plainOffset),
        null,
        `${name}: the plain write was not written before the reply`,
      );
      t.true(
        flushed(calls, disk, flush, flush.requestAt),
        `${name}: FLUSH was answered before the fdatasync`,
      );
      const fuaWritten = written(calls, disk, fua, fuaOffset);
      t.not(fuaWritten, null, `${name}: the FUA write was not written before the reply`);
      t.true(
        flushed(calls, disk, fua, fuaWritten?.end ?? 0),
        `${name}: the FUA write was answered before an fdatasync that follows it`,
      );
    }
  },
);

test('calls of several threads are told apart, and those that did not end', (t) => {
  const text = [
    '101 fdatasync(7</d/data.img> <unfinished ...>',
    '102 write(9<TCP:[127.0.0.1:80->127.0.0.1:90]>, ""..., 16) = 16',
    '101 <... fdatasync resumed>)          = 0',
    '103 <... read resumed>""..., 10) = 1',
    '102 pwrite64(7</d/data.img>, ""..., 4096, 8192 <detached ...>',
    '101 +++ exited with 0 +++',
  ].join('\n');
  t.deepEqual(parseSystemCalls(text), [
    { name: 'fdatasync', args: '7</d/data.img>', begin: 0, end: 2, result: '0' },
    { name: 'write', args: '9<TCP:[127.0.0.1:80->127.0.0.1:90]>, ""..., 16', begin: 1, end: 1, result: '16' },
    { name: 'pwrite64', args: '7</d/data.img>, ""..., 4096, 8192', begin: 4, end: Infinity, result: null },
  ]);
});

const plainOffset = 8 * 4096;
const fuaOffset = 16 * 4096;

/** The write of the block at this offset, ended before the reply; null when there is none. */
function written(
  calls: readonly SystemCall[],
  disk: string,
  { requestAt, replyAt }: Exchange,
  offset: number,
): SystemCall | null {
  const found = calls.find(
    ({ name, args, begin, end, result }) =>
      name === 'pwrite64' &&
      args.includes(`<${disk}>`) &&
      args.endsWith(`, 4096, ${offset}`) &&
      result === '4096' &&
      begin > requestAt &&
      end < replyAt,
  );
  return found ?? null;
}

/** Whether the disk was flushed, beginning after the line `after` and ended before the reply. */
function flushed(calls: readonly SystemCall[], disk: string, { replyAt }: Exchange, after: number): boolean {
  return calls.some(
    ({ name, args, begin, end, result }) =>
      name === 'fdatasync' && args.includes(`<${disk}>`) && result === '0' && begin > after && end < replyAt,
  );
}
