/**
 * `lockstep torture`: kills, freezes and cuts off the nodes of a real pair under load, again and again, and holds the
 * result against every write that was acknowledged. The seed repeats what is done and written, not the speed of the machine.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NbdClient } from '../nbd/client.ts';
import { torture as verb } from '../server/cli/torture.ts';
import { StampedLoad, seededRandom } from '../test/support/stamped-load.ts';
import { readFlags, wholeNumber } from './flags.ts';
import { linkFaults } from './torture/link-faults.ts';
import { TorturePair, mebibyte } from './torture/pair.ts';
import { processFaults } from './torture/process-faults.ts';
import type { Torture } from './torture/steps.ts';

const name = 'lockstep torture';
const flags = readFlags(name, verb.flags);
const parent = flags.text('dir') ?? tmpdir();
const cycles = wholeNumber(name, 'cycles', flags.text('cycles') ?? '20', 1, 1_000_000);
const seed = wholeNumber(name, 'seed', flags.text('seed') ?? String(Date.now() % 2 ** 31), 0, 2 ** 32 - 1);

mkdirSync(parent, { recursive: true });
const directory = mkdtempSync(join(parent, 'lockstep-torture-'));
const pair = await TorturePair.start(directory);
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // It may come twice, from the terminal and from the command that started this.
  process.on(signal, () => {
    interrupted = true;
    void pair.end().then(() => {
      rmSync(directory, { recursive: true, force: true });
      process.exit(1);
    });
  });
}
const load = new StampedLoad({ sizeBytes: 16 * mebibyte, seed, queueDepth: 16, flushEvery: 64 });
const random = seededRandom(seed ^ 0x5bd1e995);
const torture: Torture = { pair, load, draw: (count) => Math.floor(random() * count), verify };
const startedMs = performance.now();
console.log(`torture: ${cycles} cycles, seed ${seed}, in ${directory}`);

const faults = [...processFaults, ...linkFaults];

let cycle = 1;
try {
  for (; cycle <= cycles; cycle++) {
    const cycleMs = performance.now();
    const before = load.acknowledged;
    const fault = faults[torture.draw(faults.length)] ?? faults[0];
    const done = await fault?.(torture);
    await check();
    const seconds = ((performance.now() - cycleMs) / 1000).toFixed(1);
    console.log(
      `cycle ${cycle}: ${done}; ${load.acknowledged - before} writes acknowledged, ${seconds} s, all there`,
    );
  }
  await pair.end();
  rmSync(directory, { recursive: true, force: true });
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  console.log(`${cycles} cycles in ${seconds} s, ${load.acknowledged} writes acknowledged, none lost`);
} catch (error) {
  await pair.end(!interrupted);
  if (!interrupted) {
    console.error(error);
    console.error(`torture: failed in cycle ${cycle} of seed ${seed}; the nodes are kept in ${directory}`);
  }
  process.exitCode = 1;
}

/** Both copies are UpToDate and nothing is in flight: each acknowledged write is there, on both. */
async function check(): Promise<void> {
  await pair.mirroring();
  const client = await pair.primary.attach();
  await verify(client);
  await client.flush();
  await pair.primary.detach(client);
  const difference = await pair.difference();
  if (difference !== null) throw new Error(difference);
}

async function verify(client: NbdClient): Promise<void> {
  const violations = await load.verify((offset, length) => client.read(offset, length));
  if (violations.length === 0) return;
  const shown = violations.slice(0, 10).map(({ kind, detail }) => `${kind}: ${detail}`);
  throw new Error(`${violations.length} blocks are wrong\n${shown.join('\n')}`);
}
