/** A worker of a campaign: runs the batches it is given, one after the other. */
import { parentPort } from 'node:worker_threads';
import { runBatch } from './campaign.ts';
import type { Batch } from './campaign.ts';

parentPort?.on('message', (batch: Batch) => parentPort?.postMessage(runBatch(batch)));
