/** A hundred mirrored resources on one node: how long its start takes and what they cost. */
import { memoryOf } from '../../test/support/memory-use.ts';
import { isMirroring } from '../../test/support/status.ts';
import { defineMirrored, startPair, timed } from './nodes.ts';
import type { Measurement } from './nodes.ts';
import { mebibytes, seconds } from './report.ts';

const count = 100;
const startMsMax = 5000;

export async function manyResources(run: Measurement): Promise<void> {
  const { report } = run;
  const pair = await startPair(run);
  const [alpha] = pair;
  report.say(`defining ${count} resources`);
  for (let index = 0; index < count; index++) await defineMirrored(pair, `r${index}`, '1GiB');
  await alpha.stop();
  const started = await timed(() => alpha.start());
  report.add({
    what: `${count} mirrored resources: start of a node`,
    measured: seconds(started),
    bound: `< ${seconds(startMsMax)}`,
    met: started < startMsMax,
  });
  const connected = await timed(async () => {
    for (let index = 0; index < count; index++) await alpha.waitFor(`r${index}`, isMirroring, 'mirroring');
  });
  report.add({
    what: `${count} mirrored resources: from then on until all mirror`,
    measured: seconds(connected),
    bound: '',
    met: null,
  });
  report.add({
    what: `${count} mirrored resources: memory of a node`,
    measured: mebibytes(memoryOf(alpha.pid).nowBytes),
    bound: '',
    met: null,
  });
}
