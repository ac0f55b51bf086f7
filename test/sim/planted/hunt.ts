/** Runs histories of a core with a planted bug until the checkers have noticed it, or for as long as is asked. */
import { runHistory } from '../run.ts';
import type { MakeCore } from '../sim-node.ts';
import type { Checker } from '../world.ts';

export interface Catch {
  readonly seed: number;
  readonly checker: Checker;
  readonly message: string;
}

export interface Hunt {
  readonly name: string;
  /** Histories run. */
  readonly runs: number;
  /** In order of their seeds. */
  readonly catches: readonly Catch[];
}

export interface HuntLimits {
  /** Histories from seed 1 to this one. */
  readonly seedsMax: number;
  /** It ends with so many that were noticed. */
  readonly catchesMax: number;
}

/**
 * Throws when the text that was planted does not even run (that nobody would have to catch), and when the core without the
 * bug fails in one of the histories that caught it.
 */
export function hunt(name: string, makeCore: MakeCore, limits: HuntLimits): Hunt {
  const catches: Catch[] = [];
  let seed = 0;
  while (seed < limits.seedsMax && catches.length < limits.catchesMax) {
    const { failure } = runHistory(BigInt(++seed), { makeCore });
    if (failure === null) continue;
    const slip = /threw on .*: ((Reference|Syntax|Type)Error: .*)/.exec(failure.message)?.[1];
    if (slip !== undefined) throw new Error(`${name}: does not run: ${slip}`);
    const sound = failureOfRealCore(seed);
    if (sound !== null) throw new Error(`the core without a planted bug fails with seed ${seed}: ${sound}`);
    catches.push({ seed, ...failure });
  }
  return { name, runs: seed, catches };
}

const known = new Map<number, string | null>();

function failureOfRealCore(seed: number): string | null {
  const before = known.get(seed);
  if (before !== undefined) return before;
  const failure = runHistory(BigInt(seed)).failure?.message ?? null;
  known.set(seed, failure);
  return failure;
}
