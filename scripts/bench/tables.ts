/** Results as tables that read well in a terminal and as Markdown. */
import type { Figures, GoalResult, RowResult } from './results.ts';
import { contenderNames, labels, type ContenderName } from './rows.ts';

export function resultTables(results: readonly RowResult[]): string {
  const present = contenderNames.filter((name) => results.some(({ figures }) => figures[name]));
  const others = present.filter((name) => name !== 'mirrored' && present.includes('mirrored'));
  const perContender = (cell: (figures: Figures, result: RowResult) => string): string[][] => [
    ['', ...present.map((name) => labels[name])],
    ...results.map((result) => [
      result.row.title,
      ...present.map((name) => {
        const figures = result.figures[name];
        return figures ? cell(figures, result) : '-';
      }),
    ]),
  ];
  return [
    'Rate, median of the rounds (IOPS, or bytes per second from 64 KiB on):',
    table(perContender((figures, { row }) => rateText(row.blockBytes, figures))),
    'Our mirror as a multiple of the others, and what it should reach:',
    table([
      ['', ...others.map((name) => `to ${labels[name]}`), 'aim', 'reached'],
      ...results.map(({ row, ratios, goals }) => [
        row.title,
        ...others.map((name) => ratioText(ratios[name])),
        goals.map(goalText).join(', '),
        goals.map(({ reached }) => (reached ? 'yes' : 'no')).join(', '),
      ]),
    ]),
    'Latency in microseconds, median / 99th percentile (of the flush, where each write has one):',
    table(perContender(({ medianUs, p99Us }) => `${microseconds(medianUs)} / ${microseconds(p99Us)}`)),
    'CPU microseconds per request, all processes that serve the export together (of a mirror: both nodes):',
    table(perContender(({ cpuUsPerRequest }) => microseconds(cpuUsPerRequest))),
  ].join('\n\n');
}

/** 24.9k, or 1190 MB/s. */
export function rateText(blockBytes: number, figures: Pick<Figures, 'perSecond' | 'bytesPerSecond'>): string {
  if (blockBytes >= 64 * 1024) return `${(figures.bytesPerSecond / 1e6).toFixed(0)} MB/s`;
  const thousands = figures.perSecond / 1000;
  return thousands >= 100 ? `${thousands.toFixed(0)}k` : `${thousands.toFixed(thousands < 1 ? 2 : 1)}k`;
}

/** Rows of cells, the first one the head; columns aligned, numbers to the right. */
export function table(lines: readonly (readonly string[])[]): string {
  const [head = [], ...body] = lines;
  const widths = head.map((_, column) => Math.max(3, ...lines.map((line) => line[column]?.length ?? 0)));
  const text = (line: readonly string[]): string =>
    `| ${widths.map((width, column) => (column === 0 ? (line[column] ?? '').padEnd(width) : (line[column] ?? '').padStart(width))).join(' | ')} |`;
  const rule = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [text(head), rule, ...body.map(text)].join('\n');
}

const shortNames: Readonly<Record<ContenderName, string>> = {
  mirrored: 'mirrored',
  unmirrored: 'our one copy',
  quorum: 'quorum',
  single: 'single',
  gluster: 'gluster',
};

function goalText({ against, atLeast }: GoalResult): string {
  return `${atLeast} x ${shortNames[against]}`;
}

function ratioText(ratio: number | undefined): string {
  return ratio === undefined ? '-' : `${ratio.toFixed(2)} x`;
}

function microseconds(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}
