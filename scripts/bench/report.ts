/** What a run leaves behind: bench.json, bench.svg, and the newest table in performance.md, between its two markers. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chart } from './chart.ts';
import { describeMachine, versions } from './machine.ts';
import type { Machine } from './machine.ts';
import type { Measurement, RowResult } from './results.ts';
import { resultTables } from './tables.ts';

export interface Report {
  /** ISO 8601. */
  readonly begun: string;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly seconds: number;
  /** Who was asked for and did not take part, and rows that were left out, each with the reason. */
  readonly missing: readonly string[];
  /** How everything was started and measured; `$DIR` stands for the directory of the run. */
  readonly commands: readonly string[];
  readonly results: readonly RowResult[];
  readonly measurements: readonly Measurement[];
  /** Further sections of the text, ready made. */
  readonly sections: readonly { readonly title: string; readonly body: string }[];
}

/** What prints a part of performance.md that each complete run of it replaces. */
export type Publisher = 'bench' | 'growth' | 'resync-bench';

function marksOf(publisher: Publisher): readonly [string, string] {
  return [`<!-- ${publisher}: begin -->`, `<!-- ${publisher}: end -->`];
}

/** Names the files it wrote. */
export function publish(report: Report, directory: string): string[] {
  mkdirSync(directory, { recursive: true });
  const path = (name: string): string => join(directory, name);
  const page = path('performance.md');
  const before = existsSync(page)
    ? readFileSync(page, 'utf8')
    : `# Performance\n\n${marksOf('bench').join('\n')}\n`;
  writeFileSync(path('bench.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(path('bench.svg'), chart(report.results, 'Rate; each group scaled to its longest bar'));
  writeFileSync(page, withNewest(before, 'bench', newestText(report)));
  return ['bench.json', 'bench.svg', 'performance.md'].map(path);
}

/** The same for a part that is text alone, in docs/; names the file it wrote. */
export function publishText(publisher: Publisher, text: string): string {
  const page = join(import.meta.dirname, '../../docs/performance.md');
  const newest = [runLine(new Date().toISOString(), describeMachine(), versions()), text].join('\n\n');
  writeFileSync(page, withNewest(readFileSync(page, 'utf8'), publisher, newest));
  return page;
}

/** Replaces what stands between the markers. Throws when they are not there: nothing else of the page may be lost. */
export function withNewest(page: string, publisher: Publisher, newest: string): string {
  const [beginMark, endMark] = marksOf(publisher);
  const [begin, end] = [page.indexOf(beginMark), page.indexOf(endMark)];
  if (begin < 0 || end < begin) throw new Error(`performance.md lacks the lines ${beginMark} and ${endMark}`);
  return `${page.slice(0, begin + beginMark.length)}\n\n${newest}\n\n${page.slice(end)}`;
}

/** The part of performance.md that each complete run replaces. */
export function newestText(report: Report): string {
  return [
    runLine(
      report.begun,
      report.machine,
      report.versions,
      `; ${report.rounds} rounds of ${report.seconds} s a row`,
    ),
    ...report.missing.map((sentence) => `${sentence}.`),
    '![bar chart](bench.svg)',
    resultTables(report.results),
    ...report.sections.map(({ title, body }) => `### ${title}\n\n${body}`),
    '### Commands',
    ['```sh', ...report.commands, '```'].join('\n'),
  ].join('\n\n');
}

function runLine(begun: string, machine: Machine, found: Readonly<Record<string, string>>, how = ''): string {
  const { processors, processor, memoryGiB, kernel, loadAverage } = machine;
  const names = Object.entries(found).map(([name, version]) =>
    version.startsWith(name) ? version : `${name} ${version}`,
  );
  return (
    `Run of ${begun.slice(0, 10)}: ${processors} x ${processor}, ${memoryGiB} GiB, Linux ${kernel}, ` +
    `load ${loadAverage.toFixed(2)} at the start${how}. ${names.join('; ')}.`
  );
}
