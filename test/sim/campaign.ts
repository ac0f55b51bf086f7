/**
 * Many histories, on as many workers as there are processors: seeds in small batches to whoever is idle, results in order of
 * the seeds. What a history does depends on its seed alone, so neither the number of workers nor their speed changes it.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { Coverage } from './coverage.ts';
import { runHistory } from './run.ts';
import type { Failure, HistoryResult } from './run.ts';

export interface CampaignOptions {
  readonly from: bigint;
  /** How many; Infinity with `untilMs`. */
  readonly count: number;
  /** No new batch is begun after this time of `performance.now`; Infinity for no such limit. */
  readonly untilMs?: number;
  /** 1 runs them here, without a worker. */
  readonly jobs?: number;
  /** As soon as it is known, in order of the seeds. */
  readonly onFailure?: (seed: bigint, failure: Failure) => void;
}

export interface CampaignResult {
  readonly histories: number;
  readonly requests: number;
  readonly simulatedMs: number;
  readonly failures: readonly { readonly seed: bigint; readonly failure: Failure }[];
  readonly coverage: Coverage;
}

/** What workers are asked for. */
export interface Batch {
  readonly from: bigint;
  readonly count: number;
}

/** Large enough to be worth a message, small enough for all to end at about the same time. */
const batchSize = 10;

export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const tally = new Tally(options);
  const next = batches(options);
  const jobs = Math.min(options.jobs ?? availableParallelism(), Math.ceil(options.count / batchSize));
  if (jobs <= 1) for (const { from, count } of next) tally.add(from, runBatch({ from, count }));
  else await Promise.all(Array.from({ length: jobs }, () => work(next, tally)));
  return tally.result();
}

export function runBatch({ from, count }: Batch): readonly HistoryResult[] {
  return Array.from({ length: count }, (_, index) => runHistory(from + BigInt(index)));
}

function* batches({ from, count, untilMs = Infinity }: CampaignOptions): Generator<Batch, void> {
  for (let begun = 0; begun < count && performance.now() < untilMs; begun += batchSize)
    yield { from: from + BigInt(begun), count: Math.min(batchSize, count - begun) };
}

/** One worker, until there is nothing left to begin. */
function work(next: Generator<Batch, void>, tally: Tally): Promise<void> {
  const worker = new Worker(new URL('./sim-worker.ts', import.meta.url));
  return new Promise<void>((resolve, reject) => {
    let batch: Batch | null = null;
    const begin = (): void => {
      batch = next.next().value ?? null;
      if (batch === null) resolve();
      else worker.postMessage(batch);
    };
    worker.on('message', (results: readonly HistoryResult[]) => {
      if (batch !== null) tally.add(batch.from, results);
      begin();
    });
    worker.on('error', reject);
    begin();
  }).finally(() => worker.terminate());
}

class Tally {
  readonly #onFailure: CampaignOptions['onFailure'];
  readonly #coverage = new Coverage();
  readonly #failures: { seed: bigint; failure: Failure }[] = [];
  /** By first seed: batches that came before an earlier one. */
  readonly #early = new Map<bigint, readonly HistoryResult[]>();
  #next: bigint;
  #histories = 0;
  #requests = 0;
  #simulatedMs = 0;

  constructor({ from, onFailure }: CampaignOptions) {
    this.#next = from;
    this.#onFailure = onFailure;
  }

  add(from: bigint, results: readonly HistoryResult[]): void {
    this.#early.set(from, results);
    for (;;) {
      const due = this.#early.get(this.#next);
      if (due === undefined) return;
      this.#early.delete(this.#next);
      this.#next += BigInt(due.length);
      for (const result of due) this.#count(result);
    }
  }

  #count({ seed, failure, requests, simulatedMs, coverage }: HistoryResult): void {
    this.#histories++;
    this.#requests += requests;
    this.#simulatedMs += simulatedMs;
    this.#coverage.add(coverage);
    if (failure === null) return;
    this.#failures.push({ seed, failure });
    this.#onFailure?.(seed, failure);
  }

  result(): CampaignResult {
    return {
      histories: this.#histories,
      requests: this.#requests,
      simulatedMs: this.#simulatedMs,
      failures: this.#failures,
      coverage: this.#coverage,
    };
  }
}
