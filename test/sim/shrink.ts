/**
 * From a history that ends badly to a shorter one that ends badly in the same way: faults are left out by delta debugging
 * over the list of those that were injected, then the time and the clients are cut down. Deterministic: so many runs at most.
 */
import { formatShortening, unshortened } from './plan.ts';
import type { Shortening } from './plan.ts';
import { runHistory } from './run.ts';
import type { HistoryOptions, HistoryResult } from './run.ts';

export interface Shrunk {
  readonly shortening: Shortening;
  /** Of the shortest history found, which fails by the same checker. */
  readonly result: HistoryResult;
  readonly runs: number;
}

const maxRuns = 150;

/** Null if the seed's history ends well. */
export function shrink(seed: bigint, options: HistoryOptions = {}): Shrunk | null {
  const full = runHistory(seed, options);
  const checker = full.failure?.checker;
  if (checker === undefined) return null;
  let best: { shortening: Shortening; result: HistoryResult } = { shortening: unshortened, result: full };
  let runs = 1;
  const isTried = (change: Partial<Shortening>): boolean => {
    if (runs >= maxRuns) return false;
    runs++;
    const shortening = { ...best.shortening, ...change };
    const result = runHistory(seed, { ...options, shortening });
    if (result.failure?.checker !== checker) return false;
    best = { shortening, result };
    return true;
  };
  const indices = (): readonly number[] => best.result.faults.map(({ index }) => index);
  // As a list first: what was not injected before the violation is left out by that already.
  isTried({ keep: indices() });
  reduce(indices(), (keep) => (isTried({ keep }) ? indices() : null));
  for (const workers of [1, 2, 3]) if (isTried({ workers })) break;
  for (const share of [0.25, 0.5, 0.75]) {
    const lastFaultMs = best.result.faults.at(-1)?.atMs ?? 0;
    if (isTried({ faultsMs: Math.round(lastFaultMs + (best.result.simulatedMs - lastFaultMs) * share) }))
      break;
  }
  reduce(indices(), (keep) => (isTried({ keep }) ? indices() : null));
  return { ...best, runs };
}

/**
 * Delta debugging (Zeller's ddmin, by complements): leaves out pieces, from halves down to single ones. `attempt` answers
 * what is left if the history without the piece still fails, else null.
 */
function reduce(
  all: readonly number[],
  attempt: (keep: readonly number[]) => readonly number[] | null,
): void {
  let list = all;
  let pieces = 2;
  while (list.length > 0) {
    const size = Math.ceil(list.length / pieces);
    let isShorter = false;
    for (let from = 0; from < list.length; from += size) {
      const left = attempt([...list.slice(0, from), ...list.slice(from + size)]);
      if (left === null || left.length >= list.length) continue;
      list = left;
      isShorter = true;
      break;
    }
    if (isShorter) pieces = Math.max(2, pieces - 1);
    else if (size === 1) return;
    else pieces = Math.min(list.length, pieces * 2);
  }
}

export function replayLine(seed: bigint, shortening: Shortening = unshortened): string {
  const how = formatShortening(shortening);
  return `npm run -s sim -- --seed ${seed}${how === '' ? '' : ` --shrunk '${how}'`}`;
}
