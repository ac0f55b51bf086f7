/** What the C library keeps: in a process of its own, since an allocator's history decides what it can give back. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import test from 'ava';

const run = promisify(execFile);

/** Pieces too small to be mapped by themselves, all freed but the last: what lies below it cannot shrink away on its own. */
const program = `
  import { giveBackFreed } from ${JSON.stringify(new URL('../../server/malloc.ts', import.meta.url).href)};
  const pieces = 1024, bytes = 64 * 1024;
  let kept = Array.from({ length: pieces }, () => Buffer.from(new ArrayBuffer(bytes)).fill(1));
  kept = [kept.at(-1)];
  gc();
  const before = process.memoryUsage.rss();
  await giveBackFreed();
  console.log(JSON.stringify({ returned: before - process.memoryUsage.rss(), freed: (pieces - 1) * bytes, kept: kept.length }));
`;

test('freed memory goes back to the kernel', async (t) => {
  const { stdout } = await run(process.execPath, ['--expose-gc', '--input-type=module', '-e', program]);
  const [returned, freed] = [/"returned":(-?\d+)/, /"freed":(\d+)/].map((field) =>
    Number(field.exec(stdout)?.[1]),
  );
  t.true((returned ?? 0) > (freed ?? Infinity) / 2, stdout);
});
