/** What a run leaves behind: bench.json, bench.svg, and the newest table in performance.md, between its two markers. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chart } from './chart.ts';
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

const beginMark = '<!-- bench: begin -->';
const endMark = '<!-- bench: end -->';

/** Names the files it wrote. */
export function publish(report: Report, directory: string): string[] {
  mkdirSync(directory, { recursive: true });
  const path = (name: string): string => join(directory, name);
  const page = path('performance.md');
  const before = existsSync(page)
    ? readFileSync(page, 'utf8')
    : `# Performance\n\n${beginMark}\n${endMark}\n`;
  writeFileSync(path('bench.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(path('bench.svg'), chart(report.results, 'Rate; each group scaled to its longest bar'));
  writeFileSync(page, withNewest(before, newestText(report)));
  return ['bench.json', 'bench.svg', 'performance.md'].map(path);
}

/** Replaces what stands between the markers. Throws when they are not there: nothing else of the page may be lost. */
export function withNewest(page: string, newest: string): string {
  const [begin, end] = [page.indexOf(beginMark), page.indexOf(endMark)];
  if (begin < 0 || end < begin) throw new Error(`performance.md lacks the lines ${beginMark} and ${endMark}`);
  return `${page.slice(0, begin + beginMark.length)}\n\n${newest}\n\n${page.slice(end)}`;
}

/** The part of performance.md that each complete run replaces. */
export function newestText(report: Report): string {
  const { machine } = report;
  return [
    `Run of ${report.begun.slice(0, 10)}: ${machine.processors} x ${machine.processor}, ${machine.memoryGiB} GiB, Linux ` +
      `${machine.kernel}, load ${machine.loadAverage.toFixed(2)} at the start; ${report.rounds} rounds of ${report.seconds} s a row. ` +
      `${Object.entries(report.versions)
        .map(([name, version]) => (version.startsWith(name) ? version : `${name} ${version}`))
        .join('; ')}.`,
    ...report.missing.map((sentence) => `${sentence}.`),
    '![bar chart](bench.svg)',
    resultTables(report.results),
    ...report.sections.map(({ title, body }) => `### ${title}\n\n${body}`),
    '### Commands',
    ['```sh', ...report.commands, '```'].join('\n'),
  ].join('\n\n');
}
