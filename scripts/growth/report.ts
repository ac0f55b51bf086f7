/** What a measurement says: a figure, the bound it is held against, and whether it is met. Printed as a table or as JSON. */

export interface Row {
  readonly what: string;
  readonly measured: string;
  readonly bound: string;
  /** Null: a figure that explains another one. */
  readonly met: boolean | null;
}

export interface Report {
  add(row: Row): void;
  /** What is done just now, for who waits. */
  say(text: string): void;
}

export class TableReport implements Report {
  readonly rows: Row[] = [];
  readonly #quiet: boolean;

  constructor(quiet: boolean) {
    this.#quiet = quiet;
  }

  add(row: Row): void {
    this.rows.push(row);
    this.say(`${row.what}: ${row.measured}`);
  }

  say(text: string): void {
    if (!this.#quiet) process.stderr.write(`  ${text}\n`);
  }

  get isMet(): boolean {
    return this.rows.every(({ met }) => met !== false);
  }

  table(): string {
    const all = this.#cells();
    const widths = [0, 1, 2].map((column) => Math.max(...all.map((line) => line[column]?.length ?? 0)));
    return all
      .map((line) =>
        line
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd(),
      )
      .join('\n');
  }

  markdown(): string {
    const [head = [], ...body] = this.#cells().map((line) => `| ${line.join(' | ')} |`);
    return [head, '| --- | --- | --- | --- |', ...body].join('\n');
  }

  #cells(): string[][] {
    const cells = this.rows.map((row) => [row.what, row.measured, row.bound, verdict(row)]);
    return [['what', 'measured', 'bound', ''], ...cells];
  }
}

function verdict({ met }: Row): string {
  if (met === null) return '';
  return met ? 'met' : 'NOT MET';
}

export function seconds(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(0)} MiB`;
}

export function perSecond(iops: number): string {
  return `${Math.round(iops)}/s`;
}

/** The middle one, and others, of some figures; 0 of none. `share` in [0, 1]. */
export function percentile(figures: readonly number[], share: number): number {
  const sorted = figures.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
