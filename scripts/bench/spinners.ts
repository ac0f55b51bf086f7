/** A busy loop per processor at the lowest priority: no processor sleeps, and whoever has work gets it at once. */
import { availableParallelism } from 'node:os';
import { shellWords, startServer } from './processes.ts';

export interface Spinners {
  /** Of one of them. */
  readonly command: string;
  stop(): Promise<void>;
}

export async function startSpinners(): Promise<Spinners> {
  const loop = ['-n', '19', 'sh', '-c', 'while :; do :; done'];
  const spinners = await Promise.all(
    Array.from({ length: availableParallelism() }, () => startServer('nice', loop, null)),
  );
  return {
    command: shellWords(['nice', ...loop]),
    stop: async () => {
      await Promise.all(spinners.map((spinner) => spinner.stop()));
    },
  };
}
