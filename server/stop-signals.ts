/**
 * The signals that ask a process to stop. One Ctrl-C under npm arrives twice, from the terminal and passed on by npm,
 * in the same instant: only a later one means that the user has lost patience.
 */

export const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
export type StopSignal = (typeof stopSignals)[number];

/** A repetition within this time is the same wish, milliseconds. */
const sameWishMs = 500;

/**
 * `stop` is called once, `again` on every later wish. The handlers stay: without one, a signal would kill. Where signals
 * come from and the time are handed in for tests.
 */
export function onStopSignals(
  stop: (signal: StopSignal) => void,
  again: () => void,
  source: { on(signal: StopSignal, listener: () => void): unknown } = process,
  clockMs: () => number = () => performance.now(),
): void {
  let firstAtMs: number | null = null;
  for (const signal of stopSignals) {
    source.on(signal, () => {
      const nowMs = clockMs();
      if (firstAtMs === null) {
        firstAtMs = nowMs;
        stop(signal);
      } else if (nowMs - firstAtMs > sameWishMs) again();
    });
  }
}
