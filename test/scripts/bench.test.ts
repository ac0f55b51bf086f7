/** What the benchmark does apart from measuring: reading answers, judging rounds, drawing tables, naming who is missing. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { chart } from '../../scripts/bench/chart.ts';
import { lineup } from '../../scripts/bench/field.ts';
import { expectFio, fioArguments, parseFio } from '../../scripts/bench/fio.ts';
import { OptionError, readOptions } from '../../scripts/bench/options.ts';
import { shellWords, statTicks } from '../../scripts/bench/processes.ts';
import { attribute } from '../../scripts/bench/profile.ts';
import { newestText, publish, withNewest, type Report } from '../../scripts/bench/report.ts';
import { median, summarise, type Measurement } from '../../scripts/bench/results.ts';
import { rows, type ContenderName } from '../../scripts/bench/rows.ts';
import { rateText, resultTables, table } from '../../scripts/bench/tables.ts';
import { cleanEnvironment, lockstep } from '../support/command-line.ts';
import { temporaryDirectory } from '../support/temporary.ts';

const write = { work: 'randwrite', flushEach: false } as const;

function direction(iops: number, medianNs: number): object {
  return {
    iops,
    bw_bytes: iops * 4096,
    total_ios: iops * 2,
    clat_ns: { percentile: { '50.000000': medianNs, '99.000000': medianNs * 3 } },
  };
}

function fioOutput(changes: object = {}): string {
  const sync = { lat_ns: { percentile: { '50.000000': 90_000, '99.000000': 120_000 } } };
  const idle = { iops: 0, bw_bytes: 0, total_ios: 0, clat_ns: {} };
  const job = { error: 0, read: idle, write: direction(5000, 40_000), sync, ...changes };
  return `fio: a warning\n${JSON.stringify({ 'fio version': 'fio-3.33', jobs: [job] })}`;
}

test('fio: rates and percentiles are those of the direction of the work', (t) => {
  t.deepEqual(parseFio(write, fioOutput()), {
    requests: 10_000,
    perSecond: 5000,
    bytesPerSecond: 20_480_000,
    medianUs: 40,
    p99Us: 120,
  });
  const read = parseFio({ work: 'read', flushEach: false }, fioOutput({ read: direction(70, 1000) }));
  t.is(read.perSecond, 70);
});

test('fio: where each write is followed by a flush, the latency is that of the flush', (t) => {
  const sample = parseFio({ work: 'randwrite', flushEach: true }, fioOutput());
  t.deepEqual([sample.perSecond, sample.medianUs, sample.p99Us], [5000, 90, 120]);
});

test('fio: a failed job, no request, no JSON and other JSON are errors', (t) => {
  t.throws(() => parseFio(write, fioOutput({ error: 5 })), { message: /error 5/ });
  t.throws(() => parseFio({ work: 'randread', flushEach: false }, fioOutput()), { message: /no request/ });
  t.throws(() => parseFio(write, 'fio: engine nbd not loadable'), { message: /engine nbd not loadable/ });
  t.throws(() => parseFio(write, '{"jobs":[]}'), { message: /another form/ });
});

test('fio: the command of each row names the export, the work and its depth', (t) => {
  for (const row of rows) {
    const command = fioArguments(row, { uri: 'nbd+unix:///x?socket=s', seconds: 2, sizeBytes: 2 ** 28 });
    t.true(command.includes('--uri=nbd+unix:///x?socket=s'), row.name);
    t.true(command.includes(`--iodepth=${row.depth}`) && command.includes(`--rw=${row.work}`), row.name);
    t.is(command.includes('--fsync=1'), row.flushEach, row.name);
  }
});

function measured(row: string, round: number, contender: ContenderName, perSecond: number): Measurement {
  const sample = {
    requests: 1000,
    perSecond,
    bytesPerSecond: perSecond * 4096,
    medianUs: 10,
    p99Us: 20,
  };
  return { row, round, contender, sample, cpuUsPerRequest: 7 };
}

/** The machine halves its speed from round to round; the ratio to quorum stays at 6, that to single varies. */
const drifting = [1, 2, 3].flatMap((round) => {
  const speed = 2 ** -round;
  return [
    measured('write-4k-q32', round, 'mirrored', 60_000 * speed),
    measured('write-4k-q32', round, 'quorum', 10_000 * speed),
    measured('write-4k-q32', round, 'single', 60_000 * speed * ([1, 0.5, 2][round - 1] ?? 0)),
  ];
});

test('results: a ratio is formed within each round, so that drift between rounds does not count', (t) => {
  const [result, ...others] = summarise(rows, drifting);
  t.is(others.length, 0);
  t.is(result?.ratios.quorum, 6);
  t.is(result?.ratios.single, 1);
  t.is(result?.ratios.mirrored, undefined);
  t.deepEqual(result?.figures.mirrored?.perSecondRange, [7_500, 30_000]);
  t.is(result?.figures.mirrored?.perSecond, 15_000);
});

test('results: an aim is judged where its contender took part, and left out where not', (t) => {
  const [result] = summarise(rows, drifting);
  t.deepEqual(
    result?.goals.map(({ against, reached }) => [against, reached]),
    [
      ['quorum', true],
      ['single', false],
    ],
  );
});

test('results: the median of an even number lies between the two in the middle', (t) => {
  t.is(median([4, 1, 3, 2]), 2.5);
  t.is(median([9, 1, 2]), 2);
  t.throws(() => median([]));
});

test('tables: columns are aligned, and numbers stand to the right', (t) => {
  t.is(
    table([
      ['', 'rate'],
      ['one', '5'],
    ]),
    ['|     | rate |', '| --- | ---: |', '| one |    5 |'].join('\n'),
  );
  t.is(rateText(4096, { perSecond: 24_940, bytesPerSecond: 0 }), '24.9k');
  t.is(rateText(4096, { perSecond: 410, bytesPerSecond: 0 }), '0.41k');
  t.is(rateText(65_536, { perSecond: 1, bytesPerSecond: 1.19e9 }), '1190 MB/s');
});

test('tables: who did not take part has no column, and rows are told by their titles', (t) => {
  const text = resultTables(summarise(rows, drifting));
  t.regex(text, /4k random write, queue 32 .* 6\.00 x/);
  t.regex(text, /5 x quorum, 1\.3 x single .* yes, no/);
  t.false(text.includes('GlusterFS'));
});

test('chart: it is well-formed, has a bar per figure, and the longest of a group fills its width', (t) => {
  const svg = chart(summarise(rows, drifting), 'a < b & c');
  t.true(svg.startsWith('<svg xmlns="http://www.w3.org/2000/svg"') && svg.endsWith('</svg>\n'));
  t.true(svg.includes('a &lt; b &amp; c'));
  const bars = [...svg.matchAll(/<rect x="300" y="\d+" width="([\d.]+)"/g)].map(([, width]) => Number(width));
  t.deepEqual(bars, [330, 55, 330]);
});

test('field: who lacks a program is named with it, and the others take part', (t) => {
  const { present, missing, images } = lineup(['mirrored', 'quorum', 'single', 'gluster'], (command) =>
    command === 'qemu-storage-daemon' ? '/usr/bin/qemu-storage-daemon' : null,
  );
  t.deepEqual(present, ['mirrored', 'quorum', 'single']);
  t.deepEqual(missing, [
    'GlusterFS replica 2 is left out: glusterd, gluster, ip, unshare, qemu-img not found',
  ]);
  t.is(images, 5);
  t.deepEqual(lineup(['unmirrored', 'single'], () => null).missing, [
    'qemu, one copy is left out: qemu-storage-daemon not found',
  ]);
});

test('options: only a complete run publishes, unless told where', (t) => {
  t.regex(readOptions([]).out ?? '', /docs$/);
  t.is(readOptions(['--quick']).out, null);
  t.is(readOptions(['--rows', 'q32']).out, null);
  t.is(readOptions(['--quick', '--out', 'there']).out, 'there');
  t.deepEqual(
    readOptions(['--rows', '^write-4k-q1']).rows.map(({ name }) => name),
    ['write-4k-q1', 'write-4k-q1-awake'],
  );
  t.false(readOptions([]).contenders.includes('gluster'));
  t.true(readOptions(['--gluster']).contenders.includes('gluster'));
});

for (const [args, message] of [
  [['--rows', 'nothing'], /matches none of write-4k-q1,/],
  [['--rows', '('], /no regular expression/],
  [['--rounds', '0'], /--rounds "0" is not a whole number from 1/],
  [['--only', 'drbd'], /"drbd" is none of mirrored,/],
  [['--slow'], /--slow/],
] as const) {
  test(`options: ${args.join(' ')} is misuse`, (t) => {
    t.throws(() => readOptions(args), { instanceOf: OptionError, message });
  });
}

test('bench: misuse is told by the command line with status 2', async (t) => {
  const environment = cleanEnvironment(temporaryDirectory(t));
  const { status, stderr } = await lockstep(['bench', '--rows', 'nothing'], environment);
  t.is(status, 2, stderr);
  t.regex(stderr, /lockstep bench: --rows "nothing" matches none/);
});

test('fio: that it is missing is told with where it comes from', (t) => {
  t.throws(() => expectFio(() => null), { message: /fio is not installed.*install-test-tools/ });
  t.notThrows(() => expectFio(() => '/usr/bin/fio'));
});

test('processes: processor time is read behind a name that holds brackets and spaces', (t) => {
  const fields = ['S', ...Array.from({ length: 10 }, (_, at) => String(at)), '120', '45', '6', '7'];
  t.is(statTicks(`4711 (a) b (c)) ${fields.join(' ')}`), 165);
  t.throws(() => statTicks('4711 (node) S'));
});

test('processes: a command is printed as a shell would read it', (t) => {
  t.is(
    shellWords(['fio', '--uri=nbd+unix:///r0?socket=/a', "it's"]),
    `fio '--uri=nbd+unix:///r0?socket=/a' 'it'\\''s'`,
  );
});

test('profile: a sample belongs to the innermost function of ours, within the stretch of time that was asked for', (t) => {
  const frame = (id: number, functionName: string, url: string, children: number[] = []) => ({
    id,
    callFrame: { functionName, url },
    children,
  });
  const ours = 'file:///checkout';
  const profile = {
    startTime: 1_000,
    nodes: [
      frame(1, '(root)', '', [2, 3, 4, 9]),
      frame(2, '(idle)', ''),
      frame(3, '(garbage collector)', ''),
      frame(4, 'onStreamRead', 'node:internal/stream_base_commons', [5]),
      frame(5, 'feed', `${ours}/replicator/wire/frame-decoder.ts`, [6, 7]),
      frame(6, 'crc32c', `${ours}/replicator/wire/crc32c.ts`),
      frame(7, 'onPacket', `${ours}/replicator/shell/driver.ts`, [8]),
      frame(8, 'writeSync', 'node:fs'),
      frame(9, 'flush', `${ours}/nbd/session.ts`, [10]),
      frame(10, 'writeBuffer', ''),
    ],
    samples: [2, 3, 6, 8, 10, 4, 6],
    timeDeltas: [100, 100, 100, 100, 100, 100, 10_000],
  };
  const found = attribute(profile, 1_000, 2_000);
  t.is(found['garbage collection'], 100);
  t.is(found['decode: packets, checksum'], 100);
  t.is(found['driver: events and effects'], 100);
  t.is(found['reply: to the client'], 100);
  t.is(found['streams: Node’s sockets and timers'], 100);
  t.is(
    Object.values(found).reduce((sum, each) => sum + each, 0),
    500,
  );
});

const report: Report = {
  begun: '2026-11-23T08:00:00.000Z',
  machine: { processor: 'Some CPU', processors: 2, memoryGiB: 8, kernel: '6.1', loadAverage: 0.1 },
  versions: { lockstep: '0.1.0', qemu: 'qemu-storage-daemon version 7.2' },
  rounds: 3,
  seconds: 2,
  missing: ['GlusterFS replica 2 is left out: glusterd not found'],
  commands: ['fio --name=x'],
  results: summarise(rows, drifting),
  measurements: drifting,
  sections: [{ title: 'Profile', body: 'a table' }],
};

test('report: machine, versions, who is missing and the commands are in it', (t) => {
  const text = newestText(report);
  for (const part of ['2 x Some CPU', 'version 7.2', 'glusterd not found', 'fio --name=x', '### Profile'])
    t.true(text.includes(part), part);
});

test('report: only what stands between the two marks of the page is replaced, and a page without them is refused', (t) => {
  const page = 'Method.\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nTried.\n';
  const next = withNewest(page, 'bench', 'new');
  t.is(next, 'Method.\n<!-- bench: begin -->\n\nnew\n\n<!-- bench: end -->\nTried.\n');
  t.is(withNewest(next, 'bench', 'new'), next);
  t.throws(() => withNewest('Method.', 'bench', 'new'), { message: /lacks the lines/ });
});

test('report: a run leaves JSON, chart and page', (t) => {
  const directory = temporaryDirectory(t);
  t.is(publish(report, directory).length, 3);
  t.deepEqual(readdirSync(directory).sort(), ['bench.json', 'bench.svg', 'performance.md']);
  const written: unknown = JSON.parse(readFileSync(join(directory, 'bench.json'), 'utf8'));
  t.deepEqual(written, JSON.parse(JSON.stringify(report)));
});

test('the page in docs has the place for the newest figures', (t) => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/performance.md'), 'utf8');
  t.notThrows(() => withNewest(page, 'bench', 'new'));
});
