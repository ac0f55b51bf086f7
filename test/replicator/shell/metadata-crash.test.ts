/** A process killed while it commits: what was reported durable is there, in order and whole. */
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { openMetadataDatabase } from '../../../replicator/shell/metadata-database.ts';
import { startChild } from '../../support/child.ts';
import { contentOf } from '../../support/metadata.ts';
import { comparable, imageAfter, metadataHistory } from '../../support/metadata-history.ts';
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

const player = new URL('../../support/metadata-player.ts', import.meta.url);

/** The commits of the player: one that creates the database, one that initialises, those of the history (see there). */
const sharedCommits = metadataHistory.filter(({ commit }) => commit.length > 1).length;
const playedCommits = 2 + metadataHistory.length + sharedCommits;

test('a process killed between any two commits leaves what was committed by then, to the last byte', async (t) => {
  // Nothing, then what each commit leaves; an empty one precedes those that are shared by several transactions.
  const recorded: (number | null)[] = [null, null, 0];
  for (const [index, { commit }] of metadataHistory.entries()) {
    if (commit.length > 1) recorded.push(index);
    recorded.push(index + 1);
  }
  t.is(recorded.length, playedCommits + 1);
  // After one is before the next.
  const after = Array.from({ length: playedCommits }, (_, index) => ({ commit: index + 1, moment: 'after' }));
  const points = [{ commit: 1, moment: 'before' }, ...after];
  const crashAndLook = async ({ commit, moment }: (typeof points)[number]): Promise<void> => {
    const what = `killed ${moment} commit ${commit}`;
    const path = join(temporaryDirectory(t), 'r0.sqlite');
    const said = await play(t, path, `${commit}:${moment}`);
    t.false(said.includes('closed'), what);
    const { identity, recorded: found } = contentOf(path);
    t.regex(identity, /^[0-9a-f]{32}$/, what);
    const expected = recorded[moment === 'before' ? commit - 1 : commit] ?? null;
    t.deepEqual(
      comparable(found?.image ?? null),
      expected === null ? null : comparable(imageAfter(expected)),
      what,
    );
    const reported = said.findLast((line) => /^[0-9]+$/.test(line));
    if (reported !== undefined) t.true(expected !== null && Number(reported) <= expected, what);
  };
  // Two at a time: a process that starts waits for the disk as often as for the processor.
  const workers = Array.from({ length: 2 }, async () => {
    for (let point = points.shift(); point !== undefined; point = points.shift()) await crashAndLook(point);
  });
  await Promise.all(workers);

  const path = join(temporaryDirectory(t), 'r0.sqlite');
  t.is((await play(t, path, `${playedCommits + 1}:before`)).at(-1), 'closed', 'there is no other commit');
  t.deepEqual(
    comparable(contentOf(path).recorded?.image ?? null),
    comparable(imageAfter(metadataHistory.length)),
  );
});

/** Plays the history up to the crash point; answers what was said until the end of the process. */
async function play(t: ExecutionContext, path: string, crashPoint: string): Promise<string[]> {
  const env = { LOCKSTEP_TEST: '1', LOCKSTEP_TEST_CRASH_COMMIT: crashPoint };
  const child = startChild(t, player, [path], env);
  const said: string[] = [];
  for (let line = await child.lines.next(); line.done !== true; line = await child.lines.next())
    said.push(line.value);
  await child.kill();
  return said;
}
