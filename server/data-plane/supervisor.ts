/**
 * The main thread's side of the data planes: which resource is in which worker, requests and their answers, and
 * the last status of each resource. A worker that dies takes acknowledged state with it in ways the others
 * cannot judge, so it ends the process; starting again is the recovery, and it is the tested one.
 */
import { Worker } from 'node:worker_threads';
import type { FastifyBaseLogger } from 'fastify';
import type { Command } from '../../replicator/core/command.ts';
import { refuse, type CommandResult } from '../../replicator/core/refusal.ts';
import type { ResourceDefinition } from '../schemas/resource-definition.ts';
import { dataPlaneYoungMebibytes } from '../young-generation.ts';
import type { DecisionRecord, ResourceStatus } from '../schemas/status.ts';
import { beingStopped, CommandTimeout, type DataPlane, type StartResult } from './data-plane.ts';
import { checkFromWorker, checkToWorker, type Answer, type FromWorker, type ToWorker } from './protocol.ts';
import { offlineStatus } from './status-report.ts';
import type { WorkerData } from './worker-data.ts';

export interface SupervisorOptions {
  readonly nodeName: string;
  readonly dataDirectory: string;
  /** Workers at most; one is begun per resource until then, and later ones join the least loaded. */
  readonly dataPlanesMax: number;
  readonly log: FastifyBaseLogger;
  /** Must end the process. */
  readonly fatal: (message: string) => void;
  /** The entry of the workers. */
  readonly entry?: URL;
  readonly commandTimeoutMs?: number;
  readonly refreshTimeoutMs?: number;
}

/** Commands have deadlines of their own in the replicator, shorter than this. */
const defaultCommandTimeoutMs = 90_000;
/** A data plane that is busy with a slow disk must not hold up a look at its status. */
const defaultRefreshTimeoutMs = 500;

/** A request without its number, each kind by itself. */
type Request = { [K in ToWorker['kind']]: Omit<Extract<ToWorker, { kind: K }>, 'id'> }[ToWorker['kind']];

interface Plane {
  readonly worker: Worker;
  readonly resources: Set<string>;
  readonly pending: Map<number, (answer: Answer) => void>;
}

export class Supervisor implements DataPlane {
  readonly #options: SupervisorOptions;
  readonly #planes: Plane[] = [];
  readonly #planeOf = new Map<string, Plane>();
  readonly #statuses = new Map<string, ResourceStatus>();
  readonly #listeners = new Set<(name: string, status: ResourceStatus | null) => void>();
  #lastId = 0;
  #closing = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  async start(definition: ResourceDefinition): Promise<StartResult> {
    if (this.#closing) {
      return {
        ok: false,
        refusal: { code: 'shutting-down', reason: 'the node is stopping', nextStep: 'Start it again.' },
      };
    }
    const { name } = definition;
    const plane = this.#planeOf.get(name) ?? this.#assign(name);
    this.#publish(name, offlineStatus(definition, this.#options.dataDirectory, 'Attaching', null));
    const answer = await this.#ask(plane, { kind: 'start', definition }, null);
    if (answer?.kind !== 'started') throw unfit(answer);
    return answer.refusal === null ? { ok: true } : { ok: false, refusal: answer.refusal };
  }

  async stop(name: string): Promise<void> {
    const plane = this.#planeOf.get(name);
    if (!plane) return;
    const answer = await this.#ask(plane, { kind: 'stop', name }, null);
    if (answer?.kind !== 'stopped') throw unfit(answer);
    plane.resources.delete(name);
    this.#planeOf.delete(name);
    this.#statuses.delete(name);
    for (const listener of this.#listeners) listener(name, null);
  }

  async configure(definition: ResourceDefinition): Promise<'applied' | 'next-start'> {
    const plane = this.#planeOf.get(definition.name);
    if (!plane) return 'next-start';
    const answer = await this.#ask(plane, { kind: 'configure', definition }, null);
    if (answer?.kind !== 'configured') throw unfit(answer);
    return answer.applied;
  }

  async command(name: string, command: Command): Promise<CommandResult> {
    if (this.#closing || command.kind === 'stop') {
      return refuse('shutting-down', 'the node is stopping', 'Start it again.');
    }
    const plane = this.#planeOf.get(name);
    if (!plane) return beingStopped(name);
    const timeoutMs = this.#options.commandTimeoutMs ?? defaultCommandTimeoutMs;
    const answer = await this.#ask(plane, { kind: 'command', name, command }, timeoutMs);
    if (answer === null) {
      throw new CommandTimeout(
        `the data plane of "${name}" did not answer ${command.kind} within ${timeoutMs} ms`,
      );
    }
    if (answer.kind !== 'commandDone') throw unfit(answer);
    return answer.result;
  }

  status(name: string): ResourceStatus | null {
    return this.#statuses.get(name) ?? null;
  }

  async refresh(name: string, patienceMs?: number): Promise<ResourceStatus | null> {
    const plane = this.#planeOf.get(name);
    if (!plane) return null;
    const timeoutMs = patienceMs ?? this.#options.refreshTimeoutMs ?? defaultRefreshTimeoutMs;
    const answer = await this.#ask(plane, { kind: 'status', name }, timeoutMs);
    if (answer === null) return this.status(name);
    if (answer.kind !== 'statusIs') throw unfit(answer);
    return answer.status ?? this.status(name);
  }

  async decisions(name: string): Promise<readonly DecisionRecord[]> {
    const plane = this.#planeOf.get(name);
    if (!plane) return [];
    const answer = await this.#ask(plane, { kind: 'decisions', name }, null);
    if (answer?.kind !== 'decisionsAre') throw unfit(answer);
    return answer.decisions;
  }

  onStatus(listener: (name: string, status: ResourceStatus | null) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#planeOf.keys()].map((name) => this.stop(name)));
    await this.terminate();
  }

  /** Ends the workers as they are, as a crash would. */
  async terminate(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#planes.map(({ worker }) => worker.terminate()));
  }

  /** Resources of each worker. */
  loads(): readonly number[] {
    return this.#planes.map((plane) => plane.resources.size);
  }

  /** An idle worker, else a new one, else the least loaded. */
  #assign(name: string): Plane {
    const least = this.#planes.reduce<Plane | null>(
      (best, plane) => (best === null || plane.resources.size < best.resources.size ? plane : best),
      null,
    );
    const full = this.#planes.length >= this.#options.dataPlanesMax;
    const plane = least !== null && (full || least.resources.size === 0) ? least : this.#begin();
    plane.resources.add(name);
    this.#planeOf.set(name, plane);
    return plane;
  }

  #begin(): Plane {
    const { nodeName, dataDirectory, entry = new URL(workerFile(), import.meta.url) } = this.#options;
    const workerData: WorkerData = { nodeName, dataDirectory };
    const name = `data-plane-${this.#planes.length}`;
    const worker = new Worker(entry, {
      workerData,
      name,
      resourceLimits: { maxYoungGenerationSizeMb: dataPlaneYoungMebibytes },
    });
    const plane: Plane = { worker, resources: new Set(), pending: new Map() };
    worker.on('message', (value: unknown) => this.#receive(plane, value));
    worker.on('error', (error: unknown) => {
      this.#options.fatal(
        `${name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
    });
    worker.on('exit', (code) => {
      if (!this.#closing) this.#options.fatal(`${name} ended with ${code}`);
    });
    this.#planes.push(plane);
    return plane;
  }

  #receive(plane: Plane, value: unknown): void {
    const checked = checkFromWorker(value);
    if (!checked.ok) {
      this.#options.fatal(`a data plane sent what does not fit: ${checked.mistakes[0]?.message ?? ''}`);
      return;
    }
    const message = checked.value;
    switch (message.kind) {
      case 'statusChanged':
        // Late news of a resource that was stopped meanwhile.
        if (this.#planeOf.get(message.status.name) === plane)
          this.#publish(message.status.name, message.status);
        return;
      case 'statusIs':
        // Kept also when nobody waits for it any more: the next one who cannot wait gets this. Only counters are news in it.
        if (message.status !== null && this.#planeOf.get(message.status.name) === plane)
          this.#statuses.set(message.status.name, message.status);
        plane.pending.get(message.id)?.(message);
        return;
      case 'log':
        this.#options.log[message.level]({ resource: message.resource }, message.text);
        return;
      case 'panic':
        this.#options.fatal(`${message.resource}: ${message.text}`);
        return;
      default:
        plane.pending.get(message.id)?.(message);
    }
  }

  #publish(name: string, status: ResourceStatus): void {
    this.#statuses.set(name, status);
    for (const listener of this.#listeners) listener(name, status);
  }

  /** Null when no answer came in time; a late one is dropped. */
  #ask(plane: Plane, request: Request, timeoutMs: number | null): Promise<Answer | null> {
    const id = ++this.#lastId;
    const message = { ...request, id };
    const checked = checkToWorker(message);
    if (!checked.ok) throw new Error(`a message that does not fit: ${checked.mistakes[0]?.message ?? ''}`);
    return new Promise((resolve) => {
      const settle = (answer: Answer | null) => {
        plane.pending.delete(id);
        clearTimeout(timer);
        resolve(answer);
      };
      const timer = timeoutMs === null ? undefined : setTimeout(() => settle(null), timeoutMs);
      plane.pending.set(id, settle);
      plane.worker.postMessage(message);
    });
  }
}

/** The sources run as they are in a checkout, and compiled in a package. */
function workerFile(): string {
  return import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
}

function unfit(answer: FromWorker | null): Error {
  return new Error(`a data plane answered ${answer?.kind ?? 'nothing'} to another question`);
}
