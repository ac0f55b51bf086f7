/** Results as an SVG bar chart: a group of bars per row, each group scaled to its longest bar, the rate beside each bar. */
import type { RowResult } from './results.ts';
import { contenderNames, labels, type ContenderName } from './rows.ts';
import { rateText } from './tables.ts';

const colours: Readonly<Record<ContenderName, string>> = {
  mirrored: '#0b6e4f',
  unmirrored: '#7fc8a9',
  quorum: '#c8553d',
  single: '#e8a598',
  gluster: '#8d86c9',
};

const width = 760;
const titleWidth = 300;
const barWidthMax = 330;
const barHeight = 14;
const groupGap = 14;
const margin = 16;

export function chart(results: readonly RowResult[], caption: string): string {
  const present = contenderNames.filter((name) => results.some(({ figures }) => figures[name]));
  const parts: string[] = [];
  let y = margin + 12;
  parts.push(text(margin, y, caption, 'class="caption"'));
  y += 14;
  let x = margin;
  for (const name of present) {
    parts.push(`<rect x="${x}" y="${y}" width="10" height="10" fill="${colours[name]}"/>`);
    parts.push(text(x + 14, y + 9, labels[name]));
    x += 24 + labels[name].length * 7;
  }
  y += 28;
  for (const { row, figures } of results) {
    const bars = present.flatMap((name) => {
      const found = figures[name];
      return found ? [{ name, found }] : [];
    });
    const longest = Math.max(...bars.map(({ found }) => found.perSecond));
    parts.push(text(margin, y + (bars.length * barHeight) / 2 + 4, row.title));
    for (const { name, found } of bars) {
      const length = Math.max(1, (found.perSecond / longest) * barWidthMax);
      parts.push(
        `<rect x="${titleWidth}" y="${y}" width="${length.toFixed(1)}" height="${barHeight - 2}" fill="${colours[name]}"/>`,
      );
      parts.push(text(titleWidth + length + 6, y + barHeight - 4, rateText(row.blockBytes, found)));
      y += barHeight;
    }
    y += groupGap;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}" role="img">`,
    `<title>${escape(caption)}</title>`,
    '<style>text { font: 12px sans-serif; fill: #222 } .caption { font-weight: bold }</style>',
    `<rect width="${width}" height="${y}" fill="#fff"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${attributes === '' ? '' : ` ${attributes}`}>${escape(content)}</text>`;
}

function escape(content: string): string {
  return content
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
