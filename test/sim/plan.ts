/**
 * What a history is made of, drawn from its seed: sizes and speeds, options of both nodes, and which faults may happen. Each
 * history has some faults and not others, so that rare ones get room. A shrunk one overrides some of it.
 */
import {
  afterSb0priWords,
  afterSb1priWords,
  afterSb2priWords,
  alwaysDisconnect,
} from '../../replicator/core/after-split-brain.ts';
import type { CoreOptions } from '../../replicator/core/options.ts';
import type { ClusterOptions, FirstData, NodeCoreOptions } from './cluster.ts';
import { actions } from './fate.ts';
import type { Action, FateOptions } from './fate.ts';
import { Prng } from './prng.ts';
import { extentBytes } from '../../replicator/core/vocabulary.ts';

export interface Plan {
  /** `mismatch`: definitions that do not fit together. Nothing is expected but their refusal. */
  readonly kind: 'pair' | 'mismatch';
  /** Faults happen for so long, in simulated milliseconds. */
  readonly faultsMs: number;
  readonly cluster: ClusterOptions;
  readonly fate: FateOptions;
}

/** How a shorter history differs from the one that its seed makes; null leaves that as it is. */
export interface Shortening {
  /** Indices of the faults to keep. */
  readonly keep: readonly number[] | null;
  readonly faultsMs: number | null;
  readonly workers: number | null;
}

export const unshortened: Shortening = { keep: null, faultsMs: null, workers: null };

type Policies = Pick<CoreOptions, 'after-sb-0pri' | 'after-sb-1pri' | 'after-sb-2pri'>;

const mebibyte = 1024 * 1024;
/** How often an action is among those of a history, unless said otherwise. */
const usualChance = 0.35;
const chances: Partial<Record<Action, number>> = {
  split: 0.12,
  // What a disk puts in the wrong place nobody promises to survive: for tests of verify.
  misdirect: 0,
  'new-disk': 0.06,
  'foreign-disk': 0.05,
  'old-disk': 0.1,
  'claim-primary': 0.02,
  'detach-both': 0.06,
  'power-both': 0.2,
  'lose-probes': 0.15,
};

const drawnApart: ReadonlySet<Action> = new Set(['grow', 'disk-both', 'die-answering']);

export function planHistory(seed: bigint, shortening: Shortening = unshortened): Plan {
  const prng = new Prng(seed ^ 0x5eedn);
  const kind = prng.chance(0.01) ? 'mismatch' : 'pair';
  const some = actions.filter(
    (action) => !drawnApart.has(action) && prng.chance(chances[action] ?? usualChance),
  );
  // Drawn apart, so that histories without these stay what they were.
  const grows = kind === 'pair' && new Prng(seed ^ 0x6702n).chance(0.25);
  const losesBoth = kind === 'pair' && new Prng(seed ^ 0xd15cn).chance(0.08);
  const diesAnswering = kind === 'pair' && new Prng(seed ^ 0xdead7n).chance(0.08);
  const networkDelayMs = prng.pick([0.2, 2, 20]);
  const diskLatencyMs = prng.pick([0.5, 5, 30]);
  const metadataDelayMs = prng.pick([1, 10, 60]);
  const workers = prng.between(1, 6);
  const thinkMs = prng.pick([10, 40, 120]);
  const operations = prng.between(800, 1200);
  // One request after the other, each as long as its slowest part, with time to think between them.
  const requestMs = thinkMs / 2 + diskLatencyMs / 2 + networkDelayMs;
  const faultsMs = Math.min(40_000, Math.max(5_000, Math.round((operations * requestMs * 1.4) / workers)));
  const cores = planCores(kind, prng);
  const dice = prng.int(1000);
  const plan: Plan = {
    kind,
    faultsMs,
    cluster: {
      sizeBytes: planSize(cores, prng),
      roomBytes: grows ? 8 * mebibyte : 0,
      extraBytes: kind === 'mismatch' && cores[0].protocol === cores[1].protocol ? mebibyte : 0,
      firstData: kind === 'mismatch' ? 'both-empty' : planFirstData(dice),
      ...{ networkDelayMs, diskLatencyMs, metadataDelayMs },
      cores,
      clockSpeeds: [prng.pick([1, 1, 1, 1, 2, 0.5]), prng.pick([1, 1, 1, 1, 2, 0.5])],
      wire: prng.chance(0.25) ? 'bytes' : 'values',
      client: { workers, thinkMs, hotSpots: prng.between(1, 8), hugeTrims: prng.chance(0.3) },
    },
    fate: {
      actions: [
        ...some,
        ...(grows ? (['grow'] as const) : []),
        ...(losesBoth ? (['disk-both'] as const) : []),
        ...(diesAnswering ? (['die-answering'] as const) : []),
      ],
      intervalMs: Math.round(faultsMs / prng.pick([5, 15, 40])),
      repairMs: prng.pick([300, 2000, 6000]),
      keep: null,
    },
  };
  return shortened(plan, shortening);
}

/**
 * In extents of the activity log: two, three, or, where a node has the smallest of logs, more than that has room for. The
 * last extent is half a megabyte only: what is not there need not be copied by every resync.
 */
function planSize(cores: readonly NodeCoreOptions[], prng: Prng): number {
  const isEvicting = cores.some(({ activityLogExtents }) => activityLogExtents < 8);
  const extents = prng.pick(isEvicting ? [1, 1, 2, 8] : [1, 1, 2]);
  return extents * extentBytes + mebibyte / 2;
}

function planFirstData(dice: number): FirstData {
  if (dice < 40) return 'one-has-data';
  if (dice < 60) return 'both-have-data';
  if (dice < 67) return 'neither-whole';
  return dice < 74 ? 'parted-long-ago' : 'both-empty';
}

function planCores(kind: Plan['kind'], prng: Prng): readonly [NodeCoreOptions, NodeCoreOptions] {
  const protocol = prng.pick(['A', 'B', 'C', 'C', 'C', 'C', 'C', 'C'] as const);
  const onPeerLoss = prng.chance(0.15) ? 'suspend' : 'continue';
  const core: NodeCoreOptions = {
    protocol,
    activityLogExtents: prng.pick([7, 10, 1237]),
    onPeerLoss,
    ...planPolicies(prng),
    noDataTimeoutMs: 3_000,
    pingIntervalMs: 200,
    peerTimeoutMs: 1_000,
    ackTimeoutMs: 5_000,
    handshakeTimeoutMs: 2_000,
    resyncWindowBytes: prng.pick([512 * 1024, 4 * mebibyte]),
    resyncWindowBusyBytes: prng.pick([128 * 1024, 512 * 1024, 512 * 1024]),
    // Small devices and impatient tests: the least that a resync takes is more than it would be elsewhere.
    resyncRateMin: prng.pick([4, 16]) * mebibyte,
    resyncRateMax: prng.pick([0, 0, 8 * mebibyte]),
    resyncStallMs: 3_000,
    checksumResync: prng.pick(['always', 'after-crash', 'never']),
  };
  if (kind === 'mismatch' && prng.chance(0.5))
    return [core, { ...core, protocol: protocol === 'C' ? 'B' : 'C' }];
  if (prng.chance(0.7)) return [core, core];
  // What need not be the same on both sides.
  const other: NodeCoreOptions = {
    ...core,
    ...(prng.chance(0.1) ? planPolicies(prng) : {}),
    activityLogExtents: prng.pick([7, 40, 1237]),
    onPeerLoss: prng.chance(0.5) ? 'suspend' : 'continue',
    peerTimeoutMs: prng.pick([1_000, 1_500, 3_000]),
    resyncWindowBytes: prng.pick([512 * 1024, 8 * mebibyte]),
    resyncWindowBusyBytes: prng.pick([64 * 1024, 512 * 1024]),
  };
  return [core, other];
}

/** In some histories a split brain is settled by policy. */
function planPolicies(prng: Prng): Policies {
  if (!prng.chance(0.2)) return alwaysDisconnect;
  return {
    'after-sb-0pri': prng.pick([...afterSb0priWords, 'discard-node-alpha', 'discard-node-beta'] as const),
    'after-sb-1pri': prng.pick(afterSb1priWords),
    'after-sb-2pri': prng.pick(afterSb2priWords),
  };
}

function shortened(plan: Plan, { keep, faultsMs, workers }: Shortening): Plan {
  const { cluster, fate } = plan;
  return {
    ...plan,
    faultsMs: faultsMs ?? plan.faultsMs,
    cluster: { ...cluster, client: { ...cluster.client, workers: workers ?? cluster.client.workers } },
    fate: { ...fate, keep: keep === null ? fate.keep : new Set(keep) },
  };
}

/** As one word for a command line: `keep=3,7;ms=9000;workers=1`. */
export function formatShortening({ keep, faultsMs, workers }: Shortening): string {
  return [
    ...(keep === null ? [] : [`keep=${keep.join(',')}`]),
    ...(faultsMs === null ? [] : [`ms=${faultsMs}`]),
    ...(workers === null ? [] : [`workers=${workers}`]),
  ].join(';');
}

/** Null if the text is none. */
export function parseShortening(text: string): Shortening | null {
  const fields: { keep: number[] | null; faultsMs: number | null; workers: number | null } = {
    ...unshortened,
    keep: null,
  };
  for (const part of text.split(';').filter((one) => one !== '')) {
    const [name, value] = part.split('=');
    if (value === undefined) return null;
    const numbers = value
      .split(',')
      .filter((one) => one !== '')
      .map(Number);
    if (numbers.some((number) => !Number.isInteger(number) || number < 0)) return null;
    const [only] = numbers;
    if (name === 'keep') fields.keep = numbers;
    else if (name === 'ms' && only !== undefined) fields.faultsMs = only;
    else if (name === 'workers' && only !== undefined) fields.workers = only;
    else return null;
  }
  return fields;
}
