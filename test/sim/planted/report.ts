/** What hunts have come to: a line each, and the table of docs/planted-bugs.md. */
import type { Hunt } from './hunt.ts';
import type { Checker } from '../world.ts';
import type { PlantedBug } from './planted-bug.ts';

export interface Row {
  readonly bug: PlantedBug;
  readonly hunt: Hunt;
}

/** Which checkers were the first to notice, those that did so most often first. */
export function checkersOf({ catches }: Hunt): readonly Checker[] {
  const counts = new Map<Checker, number>();
  for (const { checker } of catches) counts.set(checker, (counts.get(checker) ?? 0) + 1);
  return [...counts].toSorted(([, a], [, b]) => b - a).map(([checker]) => checker);
}

/** One line for a terminal. */
export function lineOf({ bug, hunt }: Row): string {
  const [first] = hunt.catches;
  if (first === undefined) return `${bug.name}: not caught in ${hunt.runs} histories`;
  return (
    `${bug.name}: seed ${first.seed} (bound ${bug.seedsMax}), ` +
    `${hunt.catches.length} of ${hunt.runs}: ${checkersOf(hunt).join(', ')}: ${first.message.split('\n')[0]}`
  );
}

export function markdown(rows: readonly Row[]): string {
  const cells = rows.map(({ bug, hunt }) => [
    `\`${bug.name}\``,
    bug.what,
    bug.breaks,
    bug.checkers.join(', '),
    String(hunt.catches[0]?.seed ?? 'not caught'),
    `${bug.seedsMax}${bug.rare === true ? ' (long run)' : ''}`,
  ]);
  const heading = ['bug', 'what the core does', 'breaks', 'noticed by', 'first seed', 'bound'];
  const line = (columns: readonly string[]): string => `| ${columns.join(' | ')} |`;
  return [line(heading), line(heading.map(() => '---')), ...cells.map(line)].join('\n');
}
