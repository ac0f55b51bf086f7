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
const values = readFlags(script, {
  only: { type: 'string', help: `some of ${[...measurements.keys()].join(',')}` },
  json: { type: 'boolean', default: false, help: 'rows for programs' },
  publish: { type: 'boolean', default: false, help: 'a whole run into docs/performance.md' },
  seconds: { type: 'string', default: '4', help: 'of one measurement' },
  minutes: { type: 'string', default: '2', help: 'of full load, for the memory' },
  dir: { type: 'string', default: tmpdir(), help: 'for metadata, and for what is about disks' },
  memory: { type: 'string', default: '/dev/shm', help: 'for images where software is measured' },
});
const seconds = wholeNumber(script, 'seconds', values.seconds, 1, 3_600);
const minutes = wholeNumber(script, 'minutes', values.minutes, 1, 10_080);
const names = values.only?.split(',') ?? [...measurements.keys()];
const unknown = names.find((name) => !measurements.has(name));
if (unknown !== undefined)
  misuse(script, `no measurement "${unknown}"; there are ${[...measurements.keys()].join(', ')}`);
if (values.publish && values.only !== undefined)
  misuse(script, 'what is published is a whole run; leave --only out');

const report = new TableReport(values.json);
for (const name of names) {
  report.say(`-- ${name}`);
  const [directory = '', memory = ''] = [values.dir, values.memory].map((place) =>
    mkdtempSync(join(place, 'lockstep-growth-')),
  );
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
console.log(values.json ? JSON.stringify(report.rows, null, 2) : report.table());
if (values.publish) console.log(`written: ${publishText('growth', report.markdown())}`);
process.exitCode = report.isMet ? 0 : 1;
