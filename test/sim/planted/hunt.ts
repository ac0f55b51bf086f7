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
 * A history counts as caught when the core without the bug ends it well. Throws when the planted text does not even run:
 * nobody would have to catch that.
 */
export function hunt(name: string, makeCore: MakeCore, limits: HuntLimits): Hunt {
  const catches: Catch[] = [];
  let seed = 0;
  while (seed < limits.seedsMax && catches.length < limits.catchesMax) {
    const { failure } = runHistory(BigInt(++seed), { makeCore });
    if (failure === null) continue;
    const slip = /threw on .*: ((Reference|Syntax|Type)Error: .*)/.exec(failure.message)?.[1];
    if (slip !== undefined) throw new Error(`${name}: does not run: ${slip}`);
    if (realCoreFails(seed)) continue;
    catches.push({ seed, ...failure });
  }
  return { name, runs: seed, catches };
}

const known = new Map<number, boolean>();

function realCoreFails(seed: number): boolean {
  const before = known.get(seed);
  if (before !== undefined) return before;
  const fails = runHistory(BigInt(seed)).failure !== null;
  known.set(seed, fails);
  return fails;
}
