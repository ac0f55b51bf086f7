/**
 * The metadata of one resource, as the driver of the core uses it: changes go to another thread and come back
 * when they are durable, in order. One commit is under way at a time; what arrives meanwhile shares the next, so
 * that many changes cost one sync of the disk.
 */
import type { Superblock, Transaction } from '../core/metadata.ts';
import type { Refusal } from '../core/refusal.ts';
import type { Binding } from './backing-identity.ts';
import type { MetadataChange, MetadataContent, MetadataLocation } from './metadata-database.ts';
import { metadataThreads } from './metadata-threads.ts';
import type { MetadataPort } from './metadata-threads.ts';
import type { MetadataAnswer, MetadataOrder } from './metadata-worker.ts';

export interface MetadataOptions extends MetadataLocation {
  /**
   * Changes can no longer be made durable: the process must end without acknowledging anything more. Called at most
   * once; no `done` is called after it.
   */
  readonly onFatal: (message: string) => void;
}

export type MetadataOpened =
  | {
      readonly ok: true;
      readonly store: MetadataStore;
      /**
       * What was recorded. `recorded` is null for metadata that is new, or whose creation a crash cut short: then the
       * backing is to be claimed under `identity`, and `initialise` comes before any `commit`.
       */
      readonly content: MetadataContent;
    }
  | { readonly ok: false; readonly refusal: Refusal };

export async function openMetadata(options: MetadataOptions): Promise<MetadataOpened> {
  const { path, resourceName, nodeName } = options;
  const thread = new ThreadEnd();
  const port = metadataThreads.open({ path, resourceName, nodeName }, (why) => thread.lost(why));
  const answer = await firstAnswer(port, thread);
  if (answer.kind !== 'opened') {
    port.port.close();
    port.release();
  }
  switch (answer.kind) {
    case 'opened':
      return { ok: true, store: new MetadataStore(port, thread, options.onFatal), content: answer.content };
    case 'refused':
      return { ok: false, refusal: answer.refusal };
    case 'failed':
    case 'committed':
    case 'closed': {
      const why = answer.kind === 'failed' ? answer.message : `unexpected answer ${answer.kind}`;
      return {
        ok: false,
        refusal: {
          code: 'metadata-failed',
          reason: `The metadata thread for ${path} did not start: ${why}.`,
          nextStep: 'Check that the installation is complete.',
        },
      };
    }
  }
}

type State = 'open' | 'closing' | 'closed' | 'fatal';

export class MetadataStore {
  readonly #port: MetadataPort;
  readonly #onFatal: (message: string) => void;
  readonly #ended: Promise<void>;
  #state: State = 'open';
  #committing: readonly Queued[] = [];
  #queue: Queued[] = [];

  constructor(port: MetadataPort, thread: ThreadEnd, onFatal: (message: string) => void) {
    this.#port = port;
    this.#onFatal = onFatal;
    this.#ended = new Promise((resolve) => {
      port.port.on('close', () => {
        port.release();
        if (this.#state !== 'closed') this.#fatal('the metadata thread has given the database up');
        resolve();
      });
    });
    port.port.on('message', (answer: MetadataAnswer) => this.#handle(answer));
    thread.listener = (why) => this.#fatal(why);
  }

  /** The first change of new metadata: the superblock, and the backing it belongs to. */
  initialise(superblock: Superblock, binding: Binding, done: () => void): void {
    this.#put({ change: { transaction: { superblock }, binding }, done });
  }

  /**
   * `done` is called, in the order of the calls and never before this returns, once the transaction and all before
   * it are durable; until then the images must not be changed. Throws after `close`.
   */
  commit(transaction: Transaction, done: () => void): void {
    this.#put({ change: { transaction, binding: null }, done });
  }

  /** Ends after everything committed so far is durable and its `done` has been called. */
  async close(): Promise<void> {
    if (this.#state === 'open') {
      this.#state = 'closing';
      this.#next();
    }
    await this.#ended;
  }

  #put(queued: Queued): void {
    if (this.#state === 'fatal') return;
    if (this.#state !== 'open') throw new Error('the metadata store is closed');
    this.#queue.push(queued);
    if (this.#committing.length === 0) this.#next();
  }

  #next(): void {
    if (this.#committing.length > 0) return;
    if (this.#queue.length > 0) {
      this.#committing = this.#queue;
      this.#queue = [];
      this.#order({ kind: 'commit', changes: this.#committing.map((queued) => queued.change) });
    } else if (this.#state === 'closing') this.#order({ kind: 'close' });
  }

  #handle(answer: MetadataAnswer): void {
    if (this.#state === 'fatal') return;
    switch (answer.kind) {
      case 'committed': {
        const committed = this.#committing;
        this.#committing = [];
        // Those that came meanwhile set out before the callbacks run: the disk need not wait for them.
        this.#next();
        for (const queued of committed) queued.done();
        return;
      }
      case 'failed':
        this.#fatal(`the metadata cannot be committed: ${answer.message}`);
        return;
      case 'closed':
        this.#state = 'closed';
        return;
      case 'opened':
      case 'refused':
        this.#fatal(`unexpected answer of the metadata thread: ${answer.kind}`);
        return;
    }
  }

  #order(order: MetadataOrder): void {
    this.#port.port.postMessage(order);
  }

  #fatal(message: string): void {
    if (this.#state === 'fatal' || this.#state === 'closed') return;
    this.#state = 'fatal';
    this.#committing = [];
    this.#queue = [];
    this.#port.port.close();
    this.#onFatal(message);
  }
}

interface Queued {
  readonly change: MetadataChange;
  readonly done: () => void;
}

/** Who is told that the thread has ended; the first answer and then the store. */
class ThreadEnd {
  listener: (why: string) => void = () => undefined;

  lost(why: string): void {
    this.listener(why);
  }
}

/** What the thread says first; `failed` when it ended before it could say anything. */
function firstAnswer({ port }: MetadataPort, thread: ThreadEnd): Promise<MetadataAnswer> {
  return new Promise((resolve) => {
    const settle = (answer: MetadataAnswer): void => {
      port.off('message', settle);
      resolve(answer);
    };
    thread.listener = (message) => settle({ kind: 'failed', message });
    port.on('message', settle);
  });
}
