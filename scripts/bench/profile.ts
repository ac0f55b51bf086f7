/**
 * Where the time of one mirrored write goes: both data planes are sampled by V8's own profiler while fio writes, and each
 * sample is given to a step by the innermost function of ours on its stack. What the kernel spends while no JavaScript
 * runs (reading sockets, waking up) is not sampled; it is the rest of the thread's processor time.
 */
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Type, type Static } from 'typebox';
import { checker } from '../../server/validation.ts';
import { fillArguments, fioArguments, parseFio } from './fio.ts';
import type { Leftovers } from './leftovers.ts';
import { startPair } from './lockstep.ts';
import type { BenchOptions } from './options.ts';
import { run, statTicks, usPerTick } from './processes.ts';
import { createDirectory } from './rounds.ts';
import { rows, type Row } from './rows.ts';
import { table } from './tables.ts';

/** In the order of a write's way. */
export const steps = [
  'parse: NBD request in',
  'core: decide',
  'driver: events and effects',
  'pwrite: local disk',
  'encode: packets, checksum',
  'send: to the other node',
  'decode: packets, checksum',
  'reply: to the client',
  'streams: Node’s sockets and timers',
  'garbage collection',
  'other native code',
] as const;
export type Step = (typeof steps)[number];

/** The rest of the time, which no sample shows. */
const unsampled = 'kernel: reading sockets, waking up';
const v8Threads = 'V8’s threads: garbage collection, compiling';
const otherThreads = 'other threads of the process';

/** Microseconds per write. */
export interface NodeProfile {
  readonly steps: Readonly<Record<Step, number>>;
  /** Processor time of the data plane's thread that no sample accounts for. */
  readonly unsampledUs: number;
  readonly v8ThreadsUs: number;
  readonly otherThreadsUs: number;
}

const profiled = ['write-4k-q32', 'write-4k-q1'];

/** A table per profiled row. */
export async function profileWrites(options: BenchOptions, leftovers: Leftovers): Promise<string> {
  const parts: string[] = [];
  for (const row of rows.filter(({ name }) => profiled.includes(name))) {
    const nodes = await profileRow(row, options, leftovers);
    parts.push(`${row.title}, microseconds of processor time per write, with the profiler at work:`);
    parts.push(profileTable(nodes));
  }
  return parts.join('\n\n');
}

export function profileTable(nodes: readonly NodeProfile[]): string {
  const line = (name: string, of: (node: NodeProfile) => number): string[] => [
    name,
    ...nodes.map((node) => of(node).toFixed(2)),
  ];
  const total = (node: NodeProfile): number =>
    steps.reduce(
      (sum, step) => sum + node.steps[step],
      node.unsampledUs + node.v8ThreadsUs + node.otherThreadsUs,
    );
  return table([
    ['', 'Primary', 'Secondary'],
    ...steps.map((step) => line(step, (node) => node.steps[step])),
    line(unsampled, ({ unsampledUs }) => unsampledUs),
    line(v8Threads, ({ v8ThreadsUs }) => v8ThreadsUs),
    line(otherThreads, ({ otherThreadsUs }) => otherThreadsUs),
    line('together', total),
  ]);
}

async function profileRow(row: Row, options: BenchOptions, leftovers: Leftovers): Promise<NodeProfile[]> {
  const { parent, sizeBytes } = options.places.memory;
  const directory = createDirectory(parent, 2 * sizeBytes, leftovers);
  const profiles = join(directory, 'profiles');
  mkdirSync(profiles);
  const pair = await startPair({
    directory,
    sizeBytes,
    nodeFlags: ['--cpu-prof', `--cpu-prof-dir=${profiles}`, `--cpu-prof-interval=${samplingIntervalUs}`],
  });
  let stopped = false;
  const stop = async (): Promise<void> => {
    if (!stopped) await pair.stop();
    stopped = true;
  };
  leftovers.add(stop);
  const { uri } = pair;
  await run('fio', fillArguments({ uri, sizeBytes }));
  await run('fio', fioArguments(row, { uri, seconds: options.warmUpSeconds, sizeBytes }));
  const before = pair.pids.map(threadTimes);
  const fromUs = nowUs();
  const { requests } = parseFio(
    row,
    await run('fio', fioArguments(row, { uri, seconds: options.seconds, sizeBytes })),
  );
  const untilUs = nowUs();
  const after = pair.pids.map(threadTimes);
  // The profiles are written as the processes end.
  await stop();
  const result = pair.pids.map((pid, index) => {
    const spent = spentUs(before[index], after[index]);
    const sampled = attribute(dataPlaneProfile(profiles, pid), fromUs, untilUs);
    const active = steps.reduce((sum, step) => sum + sampled[step], 0);
    // Samples count the time on the clock. Where the thread had to wait for a processor, that is more than it has used.
    const share = Math.min(1, spent.dataPlane / active);
    return {
      steps: mapSteps((step) => (sampled[step] * share) / requests),
      unsampledUs: Math.max(0, spent.dataPlane - active) / requests,
      v8ThreadsUs: spent.v8 / requests,
      otherThreadsUs: spent.others / requests,
    };
  });
  await leftovers.clear();
  return result;
}

const samplingIntervalUs = 500;

const Profile = Type.Object({
  nodes: Type.Array(
    Type.Object({
      id: Type.Integer(),
      callFrame: Type.Object({ functionName: Type.String(), url: Type.String() }),
      children: Type.Optional(Type.Array(Type.Integer())),
    }),
  ),
  /** Microseconds of the monotonic clock. */
  startTime: Type.Number(),
  samples: Type.Array(Type.Integer()),
  /** From the sample before; the first from `startTime`. */
  timeDeltas: Type.Array(Type.Number()),
});
export type Profile = Static<typeof Profile>;
const checkProfile = checker(Profile);

/** Each thread writes a profile of its own, with the process in its name; the data plane's is the one with our driver in it. */
function dataPlaneProfile(directory: string, pid: number): Profile {
  for (const name of readdirSync(directory).filter((each) => each.includes(`.${pid}.`))) {
    const checked = checkProfile(JSON.parse(readFileSync(join(directory, name), 'utf8')));
    if (checked.ok && checked.value.nodes.some(({ callFrame }) => callFrame.url.endsWith('/shell/driver.ts')))
      return checked.value;
  }
  throw new Error(`process ${pid} has left no profile of its data plane`);
}

/** Microseconds per step of the samples that were taken within a stretch of the monotonic clock; idle ones are no step. */
export function attribute(profile: Profile, fromUs: number, untilUs: number): Record<Step, number> {
  const stepOf = stepFinder(profile);
  const total = mapSteps(() => 0);
  let atUs = profile.startTime;
  for (const [index, delta] of profile.timeDeltas.entries()) {
    atUs += delta;
    if (atUs < fromUs || atUs > untilUs) continue;
    const step = stepOf(profile.samples[index] ?? 0);
    // V8 may hand samples out of order; a step back would count time twice.
    if (step !== null) total[step] += Math.max(0, delta);
  }
  return total;
}

function stepFinder({ nodes }: Profile): (id: number) => Step | null {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const found = new Map<number, Step | null>();
  return (id) => {
    const known = found.get(id);
    if (known !== undefined) return known;
    const stack: Profile['nodes'][number]['callFrame'][] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const frame = frames.get(at);
      if (frame) stack.push(frame);
    }
    const step = stepOfStack(stack);
    found.set(id, step);
    return step;
  };
}

/** `stack` has the innermost function first. */
function stepOfStack(stack: Profile['nodes'][number]['callFrame'][]): Step | null {
  const innermost = stack[0]?.functionName;
  if (innermost === '(idle)') return null;
  if (innermost === '(garbage collector)') return 'garbage collection';
  for (const { functionName, url } of stack) {
    const [, file] = /\/((?:nbd|replicator|server)\/[^?]+)$/.exec(url) ?? [];
    if (file === undefined || url.includes('/node_modules/')) continue;
    if (file.startsWith('nbd/session') || file.startsWith('nbd/reply-buffer')) {
      return /flush|write|reply/i.test(functionName) ? 'reply: to the client' : 'parse: NBD request in';
    }
    if (file.startsWith('nbd/')) return 'parse: NBD request in';
    if (file.startsWith('replicator/core/')) return 'core: decide';
    if (file.startsWith('replicator/wire/')) {
      // Checksum and field helpers serve both directions: who called them decides.
      const decoding = stack.some((frame) => frame.url.endsWith('/wire/frame-decoder.ts'));
      return decoding ? 'decode: packets, checksum' : 'encode: packets, checksum';
    }
    if (/^replicator\/shell\/(file-io|backing-store|quick-path|local-io)/.test(file))
      return 'pwrite: local disk';
    if (file.startsWith('replicator/shell/link-connection')) return 'send: to the other node';
    return 'driver: events and effects';
  }
  return stack.some(({ url }) => url.startsWith('node:'))
    ? 'streams: Node’s sockets and timers'
    : 'other native code';
}

function mapSteps(value: (step: Step) => number): Record<Step, number> {
  return {
    'parse: NBD request in': value('parse: NBD request in'),
    'core: decide': value('core: decide'),
    'driver: events and effects': value('driver: events and effects'),
    'pwrite: local disk': value('pwrite: local disk'),
    'encode: packets, checksum': value('encode: packets, checksum'),
    'send: to the other node': value('send: to the other node'),
    'decode: packets, checksum': value('decode: packets, checksum'),
    'reply: to the client': value('reply: to the client'),
    'streams: Node’s sockets and timers': value('streams: Node’s sockets and timers'),
    'garbage collection': value('garbage collection'),
    'other native code': value('other native code'),
  };
}

/** The clock of the profiles. */
function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

interface ThreadTime {
  readonly name: string;
  readonly ticks: number;
}

/** Thread id -> processor time so far, less the threads of the profiler itself. */
function threadTimes(pid: number): Map<string, ThreadTime> {
  const times = new Map<string, ThreadTime>();
  for (const id of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${id}/stat`, 'utf8');
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    if (!name.startsWith('v8:Prof')) times.set(id, { name, ticks: statTicks(stat) });
  }
  return times;
}

/** Microseconds between two looks. The data plane is the thread that was busiest. */
function spentUs(
  before: ReadonlyMap<string, ThreadTime> = new Map(),
  after: ReadonlyMap<string, ThreadTime> = new Map(),
): { readonly dataPlane: number; readonly v8: number; readonly others: number } {
  const spent = [...after].map(([id, { name, ticks }]) => ({
    name,
    us: (ticks - (before.get(id)?.ticks ?? 0)) * usPerTick,
  }));
  const [dataPlane, ...rest] = spent.toSorted((one, other) => other.us - one.us);
  const sum = (threads: typeof rest): number => threads.reduce((total, { us }) => total + us, 0);
  return {
    dataPlane: dataPlane?.us ?? 0,
    v8: sum(rest.filter(({ name }) => name.includes('V8'))),
    others: sum(rest.filter(({ name }) => !name.includes('V8'))),
  };
}
