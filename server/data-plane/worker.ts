/** Entry of a data-plane thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { parts } from './parts.ts';
import { runWorker } from './run-worker.ts';
import { parseWorkerData } from './worker-data.ts';

if (!parentPort) throw new Error('this file is the entry of a worker thread of the supervisor');
runWorker(parentPort, parseWorkerData(workerData), parts);
