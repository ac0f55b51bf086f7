/**
 * The end of the process at a chosen commit, for tests of what a crash leaves behind. Only with LOCKSTEP_TEST=1 in the
 * environment at start, and LOCKSTEP_TEST_CRASH_COMMIT such as "7:before" or "7:after": the process kills itself
 * right before, or right after, commit 7 of a metadata thread. The first is the one that opens, or creates, the database.
 */

const crashAt =
  process.env['LOCKSTEP_TEST'] === '1' ? parse(process.env['LOCKSTEP_TEST_CRASH_COMMIT'] ?? null) : null;
let commits = 0;

/** Runs `commit`, which is one commit of the database. */
export function countedCommit<Result>(commit: () => Result): Result {
  if (crashAt === null) return commit();
  commits += 1;
  if (commits === crashAt.commit && crashAt.moment === 'before') die();
  const result = commit();
  if (commits === crashAt.commit && crashAt.moment === 'after') die();
  return result;
}

interface CrashPoint {
  readonly commit: number;
  readonly moment: 'before' | 'after';
}

function parse(text: string | null): CrashPoint | null {
  if (text === null) return null;
  const match = /^([1-9][0-9]*):(before|after)$/.exec(text);
  if (match === null) throw new TypeError(`LOCKSTEP_TEST_CRASH_COMMIT: "${text}" is not N:before or N:after`);
  return { commit: Number(match[1]), moment: match[2] === 'before' ? 'before' : 'after' };
}

function die(): never {
  process.kill(process.pid, 'SIGKILL');
  // Nothing of this thread may happen any more, however long the other threads take to hear of the signal.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
