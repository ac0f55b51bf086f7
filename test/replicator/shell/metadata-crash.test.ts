/** A process killed while it commits: what was reported durable is there, in order and whole. */
import { join } from 'node:path';
import test from 'ava';
import { openMetadataDatabase } from '../../../replicator/shell/metadata-database.ts';
import { startChild } from '../../support/child.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const script = new URL('../../support/metadata-writer.ts', import.meta.url);

// The kill comes whenever this process gets to it, which is a different point of some commit every time.
for (const killAfter of [1, 7, 50, 200]) {
  test(`a process killed after reporting ${killAfter} commits has kept all it reported, in order, none torn`, async (t) => {
    const path = join(temporaryDirectory(t), 'r0.sqlite');
    const child = startChild(t, script, [path]);
    const reported: number[] = [];
    while (reported.length < killAfter) {
      const line = await child.lines.next();
      if (line.done === true) throw new Error('the writer ended by itself');
      reported.push(Number(line.value));
    }
    await child.kill();
    for (let line = await child.lines.next(); line.done !== true; line = await child.lines.next()) {
      reported.push(Number(line.value));
    }
    t.deepEqual(
      reported,
      reported.map((_, index) => index + 1),
    );

    const opened = openMetadataDatabase({ path, resourceName: 'r0', nodeName: 'alpha' });
    if (!opened.ok) throw new Error(opened.refusal.reason);
    opened.database.close();
    const image = opened.content.recorded?.image;
    if (image === undefined) throw new Error('nothing was recorded');
    const last = image.superblock.sizeBytes;
    t.true(last >= reported.length, `${last} of ${reported.length}`);
    t.deepEqual(
      image.active.map((range) => range.first),
      Array.from({ length: last }, (_, index) => index + 1),
    );
    const newest = new Map<number, number>([[0, last]]);
    for (let n = 1; n <= last; n++) newest.set(1 + (n % 100), n);
    t.deepEqual(
      image.chunks.map((chunk) => [chunk.chunk, Number(Buffer.from(chunk.image).readBigUInt64LE())]),
      [...newest].sort(([a], [b]) => a - b),
    );
  });
}
