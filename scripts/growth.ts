/**
 * `npm run growth`: what size, number and time cost, measured on real nodes of this checkout, each figure held against its
 * bound. `--only NAME` (several, with commas) runs a part; `--json` prints the rows for programs; `--publish` puts those of a whole
 * run into docs/performance.md. Machines are noisy: a figure
 * near its bound wants a second run. Ends with 1 when a bound is not met.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { publishText } from './bench/report.ts';
import { misuse, readFlags, wholeNumber } from './flags.ts';
import { activityLog } from './growth/activity-log.ts';
import { apiLatency } from './growth/api-latency.ts';
import { coldReads } from './growth/cold-reads.ts';
import { largeDevice } from './growth/large-device.ts';
import { manyClients } from './growth/many-clients.ts';
import { manyResources } from './growth/many-resources.ts';
import { memoryOverTime } from './growth/memory-over-time.ts';
import type { Measurement } from './growth/nodes.ts';
import { TableReport } from './growth/report.ts';
import { stuckDisk } from './growth/stuck-disk.ts';

const measurements = new Map<string, (run: Measurement) => Promise<void>>([
  ['large-device', largeDevice],
  ['many-resources', manyResources],
  ['many-clients', manyClients],
  ['activity-log', activityLog],
  ['cold-reads', coldReads],
  ['stuck-disk', stuckDisk],
  ['api-latency', apiLatency],
  ['memory', memoryOverTime],
]);

const script = 'growth';
const flags = readFlags(script, {
  only: { type: 'text', help: `NAME,...  some of ${[...measurements.keys()].join(', ')}` },
  json: { type: 'switch', help: 'rows for programs' },
  publish: { type: 'switch', help: 'a whole run into docs/performance.md' },
  seconds: { type: 'text', help: 'N  of one measurement (default 4)' },
  minutes: { type: 'text', help: 'N  of full load, for the memory (default 2)' },
  dir: { type: 'text', help: 'DIR  for metadata and disks (default: the system’s for temporary files)' },
  memory: { type: 'text', help: 'DIR  for images where software is measured (default /dev/shm)' },
});
const [asJson, isPublished] = [flags.has('json'), flags.has('publish')];
const only = flags.text('only')?.split(',');
const places = [flags.text('dir') ?? tmpdir(), flags.text('memory') ?? '/dev/shm'];
const seconds = wholeNumber(script, 'seconds', flags.text('seconds') ?? '4', 1, 3_600);
const minutes = wholeNumber(script, 'minutes', flags.text('minutes') ?? '2', 1, 10_080);
const names = only ?? [...measurements.keys()];
const unknown = names.find((name) => !measurements.has(name));
if (unknown !== undefined)
  misuse(script, `no measurement "${unknown}"; there are ${[...measurements.keys()].join(', ')}`);
if (isPublished && only !== undefined) misuse(script, 'what is published is a whole run; leave --only out');

const report = new TableReport(asJson);
for (const name of names) {
  report.say(`-- ${name}`);
  const [directory = '', memory = ''] = places.map((place) => mkdtempSync(join(place, 'lockstep-growth-')));
  const run: Measurement = {
    directory,
    memory,
    report,
    seconds,
    minutes,
    nodes: [],
  };
  try {
    await measurements.get(name)?.(run);
  } catch (error) {
    for (const node of run.nodes) report.say(`output of ${node.name}:\n${node.output}`);
    throw error;
  } finally {
    await Promise.all(run.nodes.map((node) => node.kill9()));
    for (const place of [directory, memory]) rmSync(place, { recursive: true, force: true });
  }
}
console.log(asJson ? JSON.stringify(report.rows, null, 2) : report.table());
if (isPublished) console.log(`written: ${publishText('growth', report.markdown())}`);
process.exitCode = report.isMet ? 0 : 1;
