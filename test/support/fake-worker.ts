/** Entry of a data-plane thread with fake parts; the name of a resource says how it behaves. */
import { parentPort, workerData } from 'node:worker_threads';
import { runWorker } from '../../server/data-plane/run-worker.ts';
import { parseWorkerData } from '../../server/data-plane/worker-data.ts';
import { FakeParts, secondary } from './fake-parts.ts';

if (!parentPort) throw new Error('not a worker');
const port = parentPort;

const parts = new FakeParts();
const open = parts.openResourceNode.bind(parts);
parts.openResourceNode = async (options, hooks) => {
  const { resourceName } = options;
  if (resourceName === 'refused') {
    return { ok: false, refusal: { code: 'backing-missing', reason: 'no disk', nextStep: 'Add it.' } };
  }
  const opened = await open(options, hooks);
  if (!opened.ok) return opened;
  return {
    ok: true,
    node: {
      ...opened.node,
      stop: async () => {
        if (resourceName === 'lingers') {
          for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
        }
        await opened.node.stop();
        hooks.log('info', 'ended cleanly');
      },
      // Each command by name of the resource; "hung" never answers.
      command: (command) => {
        if (resourceName === 'panics') hooks.panic('a promise cannot be kept');
        if (resourceName === 'throws') throw new Error('a bug');
        if (resourceName === 'babbles') port.postMessage({ kind: 'nonsense' });
        if (resourceName === 'hung') return new Promise(() => undefined);
        if (command.kind === 'promote') {
          parts.status = { ...secondary, role: 'Primary' };
          hooks.statusChanged();
        }
        return opened.node.command(command);
      },
    },
  };
};
runWorker(port, parseWorkerData(workerData), parts);
