/**
 * The threads that metadata is kept in. A few serve all resources of a data plane: a thread of its own costs each
 * resource some twenty megabytes and a good part of a second at its start. Each database has a port to its thread; a
 * thread ends with its last database.
 */
import { extname } from 'node:path';
import { MessageChannel, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import type { MetadataLocation } from './metadata-database.ts';
import type { MetadataThreadOrder } from './metadata-worker.ts';

/** A commit waits for those of other resources in its thread, each one sync of the disk; more threads would share it. */
const defaultThreadsMax = 2;

/** Of a thread's heap: what it holds is short-lived and small, and what a larger one would gain is memory only. */
const maxYoungGenerationSizeMb = 3;

export interface MetadataPort {
  readonly port: MessagePort;
  /** The database is given up: the thread may end. Harmless when repeated. */
  release(): void;
}

export class MetadataThreads {
  readonly #threadsMax: number;
  readonly #threads = new Set<MetadataThread>();

  constructor(threadsMax = defaultThreadsMax) {
    this.#threadsMax = threadsMax;
  }

  /** Databases of each thread. */
  loads(): readonly number[] {
    return Array.from(this.#threads, (thread) => thread.load);
  }

  /** Has a thread open the database and speak about it on the port: an idle one, else a new one, else the least loaded. */
  open(location: MetadataLocation, onLost: (why: string) => void): MetadataPort {
    let least: MetadataThread | null = null;
    for (const thread of this.#threads) if (least === null || thread.load < least.load) least = thread;
    const thread = least !== null && this.#threads.size >= this.#threadsMax ? least : this.#begin();
    return thread.open(location, onLost);
  }

  #begin(): MetadataThread {
    const thread: MetadataThread = new MetadataThread(() => this.#threads.delete(thread));
    this.#threads.add(thread);
    return thread;
  }
}

/** Those of this data plane. */
export const metadataThreads = new MetadataThreads();

class MetadataThread {
  readonly #worker: Worker;
  readonly #onUnused: () => void;
  readonly #lost = new Set<(why: string) => void>();

  constructor(onUnused: () => void) {
    this.#onUnused = onUnused;
    // Beside this file, and with its extension: stripped sources in a checkout, JavaScript in a package.
    this.#worker = new Worker(new URL(`./metadata-worker${extname(import.meta.url)}`, import.meta.url), {
      name: 'metadata',
      resourceLimits: { maxYoungGenerationSizeMb },
    });
    this.#worker.on('error', (error) => this.#end(`the metadata thread failed: ${String(error)}`));
    this.#worker.on('exit', (code) => this.#end(`the metadata thread ended with code ${code}`));
  }

  get load(): number {
    return this.#lost.size;
  }

  open(location: MetadataLocation, onLost: (why: string) => void): MetadataPort {
    const { port1, port2 } = new MessageChannel();
    const lost = (why: string): void => onLost(why);
    this.#lost.add(lost);
    const order: MetadataThreadOrder = { kind: 'open', location, port: port2 };
    this.#worker.postMessage(order, [port2]);
    return { port: port1, release: () => this.#release(lost) };
  }

  #release(lost: (why: string) => void): void {
    if (!this.#lost.delete(lost) || this.#lost.size > 0) return;
    this.#onUnused();
    const order: MetadataThreadOrder = { kind: 'end' };
    this.#worker.postMessage(order);
  }

  #end(why: string): void {
    const lost = [...this.#lost];
    this.#lost.clear();
    this.#onUnused();
    for (const tell of lost) tell(why);
  }
}
