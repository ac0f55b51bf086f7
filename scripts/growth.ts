/**
 * `npm run growth`: what size, number and time cost, measured on real nodes of this checkout, each figure held against its
 * bound. `--only NAME` (several, with commas) runs a part; `--json` prints the rows for programs; `--publish` puts those of a whole
 * run into docs/performance.md. Machines are noisy: a figure
 * near its bound wants a second run. Ends with 1 when a bound is not met.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { publishText } from './bench/report.ts';
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

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    publish: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '4' },
    minutes: { type: 'string', default: '2' },
    dir: { type: 'string', default: tmpdir() },
    memory: { type: 'string', default: '/dev/shm' },
  },
});
const names = values.only?.split(',') ?? [...measurements.keys()];
const unknown = names.find((name) => !measurements.has(name));
if (unknown !== undefined) {
  process.stderr.write(
    `growth: no measurement "${unknown}"; there are ${[...measurements.keys()].join(', ')}\n`,
  );
  process.exit(2);
}

if (values.publish && values.only !== undefined) {
  process.stderr.write('growth: what is published is a whole run; leave --only out\n');
  process.exit(2);
}

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
    seconds: Number(values.seconds),
    minutes: Number(values.minutes),
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
