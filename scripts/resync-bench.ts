/**
 * `npm run resync-bench`: what resync and verify of a pair give on this machine, beside its mirrored sequential writes: full,
 * scattered, sparse and checksum resyncs, a verify, and a client's latency without and beside a resync. Processor time counts
 * both nodes; machines are noisy, so compare within one run. `--only full,scattered` runs some of the rows; `--publish` puts those of
 * a whole run into docs/performance.md.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { connectNbd } from '../nbd/client.ts';
import { publishText } from './bench/report.ts';
import { misuse, readFlags, wholeNumber } from './flags.ts';
import { BenchPair, type Usage } from './resync-bench/bench-pair.ts';
import { fio, type Written } from './resync-bench/fio.ts';

const mebibyte = 1024 * 1024;
const blockBytes = 4096;
const script = 'resync-bench';
const flags = readFlags(script, {
  dir: { type: 'text', help: 'DIR  where the nodes are (default: the system’s for temporary files)' },
  ports: { type: 'text', help: 'N  the first of those that the nodes use (default 18780)' },
  mebibytes: { type: 'text', help: 'N  of the device, all of it written (default 2048)' },
  scattered: { type: 'text', help: 'N  MiB in which every second block is marked (default 512)' },
  seconds: { type: 'text', help: 'N  of one measurement of latency (default 3)' },
  rounds: { type: 'text', help: 'N  of those without and beside a resync (default 3)' },
  only: { type: 'text', help: 'NAME,...  some of the rows' },
  publish: { type: 'switch', help: 'a whole run into docs/performance.md' },
});
const parent = flags.text('dir') ?? tmpdir();
const only = flags.text('only')?.split(',');
const isPublished = flags.has('publish');
if (isPublished && only !== undefined) misuse(script, 'what is published is a whole run; leave --only out');
const size = wholeNumber(script, 'mebibytes', flags.text('mebibytes') ?? '2048', 64, 1_048_576);
const scattered = wholeNumber(script, 'scattered', flags.text('scattered') ?? '512', 1, size);
const roundCount = wholeNumber(script, 'rounds', flags.text('rounds') ?? '3', 1, 99);
const seconds = wholeNumber(script, 'seconds', flags.text('seconds') ?? '3', 1, 3_600);
const firstPort = wholeNumber(script, 'ports', flags.text('ports') ?? '18780', 1, 65_000);

const directory = await mkdtemp(join(parent, 'lockstep-resync-'));
const pair = await BenchPair.start(directory, `${size}MiB`, firstPort).catch(async (error: unknown) => {
  await rm(directory, { recursive: true, force: true });
  throw error;
});
let mirrored = 0;
const said: string[] = [];
const rows: Readonly<Record<string, () => Promise<void>>> = {
  sequential,
  full,
  scattered: scatteredMarks,
  checksum,
  verify,
  beside,
  sparse,
};
try {
  say(`pair on loopback, ${size} MiB, data under ${parent}`);
  await fill();
  for (const name of only ?? Object.keys(rows)) {
    const row = rows[name];
    if (row === undefined) throw new Error(`--only: ${name} is none of ${Object.keys(rows).join(', ')}`);
    await row();
  }
  if (isPublished) {
    console.log(`written: ${publishText('resync-bench', said.map((line) => `- ${line}`).join('\n'))}`);
  }
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await pair.stop();
  await rm(directory, { recursive: true, force: true });
}

async function fill(): Promise<void> {
  const written = { rw: 'write', bs: '1M', iodepth: 4, size: `${size}M`, end_fsync: 1, refill_buffers: 1 };
  await fio(pair.uri, written);
}

async function sequential(): Promise<void> {
  let written: Written | null = null;
  const usage = await pair.using(async () => {
    written = await fio(pair.uri, { rw: 'write', bs: '1M', iodepth: 4, size: `${size}M` });
  });
  mirrored = ((written as Written | null)?.bytesPerSecond ?? 0) / mebibyte;
  print('sequential mirrored writes of 1 MiB, queue 4', size, { ...usage, seconds: size / mirrored });
}

async function full(): Promise<void> {
  await clientsIdle();
  const usage = await pair.using(invalidate);
  print('full resync', size, usage, await requests(size));
}

async function scatteredMarks(): Promise<void> {
  await pair.ask('beta', 'POST', '/disconnect');
  await pair.until('alpha', ({ peers }) => peers[0]?.connection !== 'Connected');
  const client = await connectNbd({ address: { path: pair.socketPath }, exportName: 'r0' });
  const block = Buffer.alloc(blockBytes, 7);
  let next = 0;
  const writer = async (): Promise<void> => {
    while (next < (scattered * mebibyte) / blockBytes) {
      const at = next;
      next += 2;
      await client.write(at * blockBytes, block);
    }
  };
  await Promise.all(Array.from({ length: 16 }, writer));
  await client.flush();
  await client.disconnect();
  await pair.policies({ checksumResync: 'never' });
  await clientsIdle();
  const usage = await pair.using(async () => {
    await pair.ask('beta', 'POST', '/connect');
    await pair.until('beta', ({ peers }) => peers[0]?.connection === 'Connected');
    await pair.settled();
  });
  const marked = scattered / 2;
  print(`resync of every second block of ${scattered} MiB`, marked, usage, await requests(marked));
}

async function checksum(): Promise<void> {
  await pair.policies({ checksumResync: 'always' });
  await clientsIdle();
  const usage = await pair.using(invalidate);
  await pair.policies({ checksumResync: 'after-crash' });
  print('checksum resync of equal copies', size, usage, await requests(size));
}

async function verify(): Promise<void> {
  const usage = await pair.using(async () => {
    await pair.ask('alpha', 'POST', '/verify', { action: 'start' });
    await pair.until('alpha', ({ peers }) => peers[0]?.verify?.state === 'finished');
  });
  print('verify', size, usage);
}

/** Of a device with 64 MiB of data in it, and holes around them. */
async function sparse(): Promise<void> {
  const client = await connectNbd({ address: { path: pair.socketPath }, exportName: 'r0' });
  for (let at = 0; at < size; at += 16) await client.trim(at * mebibyte, 16 * mebibyte);
  for (let at = 0; at < size; at += size / 64) await client.write(at * mebibyte, Buffer.alloc(mebibyte, 5));
  await client.disconnect();
  const usage = await pair.using(invalidate);
  const { payloadBytes = NaN } = await pair.lastResync();
  const allocated = (await pair.allocatedBytes()) / mebibyte;
  print(
    'full resync with 64 MiB of data',
    size,
    usage,
    `${payloadBytes / mebibyte} MiB sent, ${allocated.toFixed(0)} MiB allocated on the target`,
  );
}

/** In turns, and a ratio for each round: machines drift. A round whose resync was over too early does not count. */
async function beside(): Promise<void> {
  for (const queue of [1, 8]) {
    const rounds: { without: Written; besides: Written; mebibytesPerSecond: number }[] = [];
    for (let round = 0; round < roundCount; round++) {
      const without = await client(queue);
      const before = performance.now();
      await pair.ask('beta', 'POST', '/resync', { action: 'invalidate' });
      const besides = await client(queue);
      const sync = (await pair.status('beta')).peers[0]?.sync;
      const seconds = (performance.now() - before) / 1000;
      if (sync) rounds.push({ without, besides, mebibytesPerSecond: sync.doneBytes / mebibyte / seconds });
      await pair.settled();
    }
    const of = (pick: (round: (typeof rounds)[number]) => number): number => median(rounds.map(pick));
    say(
      `4k random writes, queue ${queue}: p99 ${of((r) => r.without.p99Us).toFixed(0)} us, beside a resync ` +
        `${of((r) => r.besides.p99Us).toFixed(0)} us (x ${of((r) => r.besides.p99Us / r.without.p99Us).toFixed(2)}); median x ` +
        `${of((r) => r.besides.medianUs / r.without.medianUs).toFixed(2)}; the resync: ` +
        `${of((r) => r.mebibytesPerSecond).toFixed(0)} MiB/s; ${rounds.length} rounds of ${roundCount} count`,
    );
  }
}

function client(queue: number): Promise<Written> {
  const work = { rw: 'randwrite', bs: '4k', iodepth: queue, size: `${Math.min(512, size)}M` };
  return fio(pair.uri, { ...work, time_based: 1, ramp_time: 3, runtime: seconds });
}

/** A resync stands back for clients that were there a moment ago (two seconds); these rows are of one that has all to itself. */
async function clientsIdle(): Promise<void> {
  await setTimeout(3_000);
}

async function invalidate(): Promise<void> {
  await pair.ask('beta', 'POST', '/resync', { action: 'invalidate' });
  await pair.settled();
}

async function requests(mebibytes: number): Promise<string> {
  const { requests = NaN } = await pair.lastResync();
  return `${(requests / mebibytes).toFixed(2)} requests a MiB`;
}

function say(line: string): void {
  said.push(line);
  console.log(line);
}

function print(what: string, mebibytes: number, { seconds, cpuSeconds }: Usage, more = ''): void {
  const rate = mebibytes / seconds;
  const share = mirrored > 0 ? ` (${((100 * rate) / mirrored).toFixed(0)} % of mirrored writes)` : '';
  const cpu = ((1000 * cpuSeconds) / mebibytes).toFixed(2);
  say(`${what}: ${rate.toFixed(0)} MiB/s${share}, ${cpu} ms of CPU a MiB${more && `, ${more}`}`);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}
