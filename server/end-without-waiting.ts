/**
 * The end of a node waits for no disk. At its exit the runtime waits for the threads of its pool, and one of them may be in a
 * system call that a stuck disk never answers: the process would stay for good, with its ports and locks, and deaf to
 * signals. Whatever has to be on record is by then, as in a crash.
 */
import { endProcess } from '../replicator/shell/libc.ts';

/** From now on. Output is written synchronously (pino, and the pipes and files of this platform). */
export function endWithoutWaiting(): void {
  process.on('exit', (status) => endProcess(status));
}
