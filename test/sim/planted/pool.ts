/** Hunts on several threads: each takes the next bug of the catalogue when it is done with one. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { catalogue } from './catalogue.ts';
import type { Hunt } from './hunt.ts';
import { hunt } from './hunt.ts';
import { loadPlanted } from './loader.ts';
import type { PlantedBug } from './planted-bug.ts';

export interface PoolOptions {
  readonly threads: number;
  readonly catchesMax: number;
  /** Histories for each bug, instead of its own bound. */
  readonly seeds?: number;
}

interface Work {
  readonly names: readonly string[];
  readonly options: PoolOptions;
  /** How many of `names` have been taken. */
  readonly taken: SharedArrayBuffer;
}

type Report = { readonly hunt: Hunt } | { readonly name: string; readonly error: string };

/** By name, what became of each; rejected when the hunt itself fails. */
export function huntAll(
  bugs: readonly PlantedBug[],
  options: PoolOptions,
): ReadonlyMap<string, Promise<Hunt>> {
  const pending = new Map(bugs.map((bug) => [bug.name, Promise.withResolvers<Hunt>()] as const));
  const names = [...pending.keys()];
  const work: Work = { names, options, taken: new SharedArrayBuffer(4) };
  for (let thread = 0; thread < options.threads; thread++) {
    const worker = new Worker(new URL('./pool.ts', import.meta.url), { workerData: work });
    worker.on('message', (report: Report) => {
      if ('hunt' in report) pending.get(report.hunt.name)?.resolve(report.hunt);
      else pending.get(report.name)?.reject(new Error(report.error));
    });
    worker.on('error', (error) => {
      for (const { reject } of pending.values()) reject(error);
    });
  }
  return new Map([...pending].map(([name, { promise }]) => [name, promise]));
}

async function work({ names, options, taken }: Work): Promise<void> {
  const count = new Int32Array(taken);
  for (;;) {
    const name = names[Atomics.add(count, 0, 1)];
    if (name === undefined) return;
    parentPort?.postMessage(await report(name, options));
  }
}

async function report(name: string, options: PoolOptions): Promise<Report> {
  try {
    const bug = catalogue.find((one) => one.name === name);
    if (bug === undefined) throw new Error(`there is no planted bug ${name}`);
    const limits = { seedsMax: options.seeds ?? bug.seedsMax, catchesMax: options.catchesMax };
    return { hunt: hunt(name, await loadPlanted(bug), limits) };
  } catch (error) {
    return { name, error: error instanceof Error ? error.message : String(error) };
  }
}

function isWork(data: unknown): data is Work {
  return typeof data === 'object' && data !== null && 'taken' in data && 'names' in data;
}

if (!isMainThread && isWork(workerData)) await work(workerData);
