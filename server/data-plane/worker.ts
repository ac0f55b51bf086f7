/** Entry of a data-plane thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { parts } from './parts.ts';
import { checkWorkerData } from './protocol.ts';
import { runWorker } from './run-worker.ts';

const data = checkWorkerData(workerData);
if (!parentPort || !data.ok) throw new Error('this file is the entry of a worker thread of the supervisor');
runWorker(parentPort, data.value, parts);
