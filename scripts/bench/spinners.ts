/**
 * A busy loop per processor at the lowest priority: no processor sleeps, and whoever has work gets it at once. Where the kernel
 * groups processes by session (sched(7), "The autogroup feature"), `nice` ranks only those of one session: so the loops get one of
 * their own, as low as they are. Otherwise they would have half of a processor's time beside a server with a session of its own,
 * and hardly any beside one that shares theirs.
 */
import { availableParallelism } from 'node:os';
import { shellWords, startServer } from './processes.ts';

export interface Spinners {
  /** Of one of them. */
  readonly command: string;
  stop(): Promise<void>;
}

export async function startSpinners(): Promise<Spinners> {
  // Who is not root may do that ten times a second, all together; where there are no such groups nothing is to be done.
  const rank = 'for try in 1 2 3 4 5; do echo 19 2>/dev/null >/proc/self/autogroup && break; sleep 0.2; done';
  const script = `[ ! -w /proc/self/autogroup ] || ${rank}; while :; do :; done`;
  const loop = ['nice', '-n', '19', 'sh', '-c', script];
  const spinners = await Promise.all(
    Array.from({ length: availableParallelism() }, () => startServer('setsid', loop, null)),
  );
  return {
    command: shellWords(['setsid', ...loop]),
    stop: async () => {
      await Promise.all(spinners.map((spinner) => spinner.stop()));
    },
  };
}
