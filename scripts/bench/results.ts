/**
 * From single measurements to what is reported. A machine drifts by tens of per cent within minutes, so contenders take
 * turns, a ratio is formed within each round, and the median of the rounds counts.
 */
import type { Sample } from './fio.ts';
import { contenderNames, type ContenderName, type Goal, type Row } from './rows.ts';

export interface Measurement {
  readonly row: string;
  readonly round: number;
  readonly contender: ContenderName;
  readonly sample: Sample;
  /** Processor time of all processes that serve the export, per finished request. */
  readonly cpuUsPerRequest: number;
}

/** Medians over the rounds. */
export interface Figures {
  readonly perSecond: number;
  readonly bytesPerSecond: number;
  readonly medianUs: number;
  readonly p99Us: number;
  readonly cpuUsPerRequest: number;
  /** Lowest and highest rate of any round. */
  readonly perSecondRange: readonly [number, number];
}

export interface GoalResult extends Goal {
  readonly ratio: number;
  readonly reached: boolean;
}

export interface RowResult {
  readonly row: Row;
  readonly figures: Partial<Record<ContenderName, Figures>>;
  /** Rate of our mirror divided by that of the other: median of the rounds. */
  readonly ratios: Partial<Record<ContenderName, number>>;
  /** Those whose contender took part. */
  readonly goals: readonly GoalResult[];
}

/** Rows without any measurement are left out. */
export function summarise(rows: readonly Row[], measurements: readonly Measurement[]): RowResult[] {
  return rows.flatMap((row) => {
    const own = measurements.filter((each) => each.row === row.name);
    return own.length === 0 ? [] : [resultOf(row, own)];
  });
}

/** Of an even number of values the mean of the two in the middle. Throws when there are none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  if (low === undefined || high === undefined) throw new Error('the median of nothing');
  return (low + high) / 2;
}

function resultOf(row: Row, measurements: readonly Measurement[]): RowResult {
  const of = (name: ContenderName): Measurement[] =>
    measurements.filter(({ contender }) => contender === name);
  const figures: Partial<Record<ContenderName, Figures>> = {};
  const ratios: Partial<Record<ContenderName, number>> = {};
  const ours = new Map(of('mirrored').map(({ round, sample }) => [round, sample.perSecond]));
  for (const name of contenderNames) {
    const theirs = of(name);
    if (theirs.length === 0) continue;
    figures[name] = figuresOf(theirs);
    const perRound = theirs.flatMap(({ round, sample }) => {
      const rate = ours.get(round);
      return rate === undefined ? [] : [rate / sample.perSecond];
    });
    if (name !== 'mirrored' && perRound.length > 0) ratios[name] = median(perRound);
  }
  const goals = row.goals.flatMap((goal) => {
    const ratio = ratios[goal.against];
    return ratio === undefined ? [] : [{ ...goal, ratio, reached: ratio >= goal.atLeast }];
  });
  return { row, figures, ratios, goals };
}

function figuresOf(measurements: readonly Measurement[]): Figures {
  const samples = measurements.map(({ sample }) => sample);
  const rates = samples.map(({ perSecond }) => perSecond);
  return {
    perSecond: median(rates),
    bytesPerSecond: median(samples.map(({ bytesPerSecond }) => bytesPerSecond)),
    medianUs: median(samples.map(({ medianUs }) => medianUs)),
    p99Us: median(samples.map(({ p99Us }) => p99Us)),
    cpuUsPerRequest: median(measurements.map(({ cpuUsPerRequest }) => cpuUsPerRequest)),
    perSecondRange: [Math.min(...rates), Math.max(...rates)],
  };
}
