/** A busy loop per processor at the lowest priority: no processor sleeps, and whoever has work gets it at once. */
import { availableParallelism } from 'node:os';
import { startServer } from './processes.ts';

export async function startSpinners(): Promise<{ stop(): Promise<void> }> {
  const loop = ['-n', '19', 'sh', '-c', 'while :; do :; done'];
  const spinners = await Promise.all(
    Array.from({ length: availableParallelism() }, () => startServer('nice', loop, null)),
  );
  return {
    stop: async () => {
      await Promise.all(spinners.map((spinner) => spinner.stop()));
    },
  };
}
