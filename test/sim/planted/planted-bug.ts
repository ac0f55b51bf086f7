/** What a planted bug is: one change of one place in the text of the core, and what is to come of it. */
import type { Checker } from '../world.ts';

/** Promises of the design that a planted bug may break (ARCHITECTURE.md names the mechanisms behind them). */
export type Promised = `W${1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 12 | 13}` | 'progress';

export interface PlantedBug {
  readonly name: string;
  /** What the core does wrong with it, as a fact. */
  readonly what: string;
  readonly breaks: Promised;
  /** Under replicator/core. */
  readonly file: string;
  /** Occurs exactly once in that file. */
  readonly find: string;
  readonly replace: string;
  /** Caught by one of the histories from seed 1 to this one. */
  readonly seedsMax: number;
  /** The checkers that were the first to notice in some history of a long run, most often first. */
  readonly checkers: readonly Checker[];
  /** Seldom comes to anything: left to the long run. */
  readonly rare?: true;
}

/** The text with the bug in it; throws when the bug no longer fits the text. */
export function plant(bug: PlantedBug, text: string): string {
  const parts = text.split(bug.find);
  if (parts.length !== 2) {
    throw new Error(`${bug.name}: its text occurs ${parts.length - 1} times in ${bug.file}, not once`);
  }
  return parts.join(bug.replace);
}
