/** A data plane without data: remembers what it was asked and answers what a test told it to. */
import type { Command } from '../../replicator/core/command.ts';
import { done, type CommandResult, type Refusal } from '../../replicator/core/refusal.ts';
import type { DataPlane, StartResult } from '../../server/data-plane/data-plane.ts';
import type { ResourceDefinition } from '../../server/schemas/resource-definition.ts';
import type { DecisionRecord, ResourceStatus } from '../../server/schemas/status.ts';

export class FakeDataPlane implements DataPlane {
  readonly started: ResourceDefinition[] = [];
  readonly stopped: string[] = [];
  readonly commands: { name: string; command: Command }[] = [];
  /** Answers to commands; the default is success. */
  answer: (name: string, command: Command) => CommandResult | Promise<CommandResult> = (_name, command) =>
    done(`Did ${command.kind}.`);
  /** Refuses to start. */
  startRefusal: Refusal | null = null;
  decisionRecords: readonly DecisionRecord[] = [];
  /** `start` waits for this. */
  gate: Promise<void> = Promise.resolve();
  closed = false;
  readonly #statuses = new Map<string, ResourceStatus>();
  readonly #listeners = new Set<(name: string, status: ResourceStatus | null) => void>();

  async start(definition: ResourceDefinition): Promise<StartResult> {
    await this.gate;
    this.started.push(definition);
    const refusal = this.startRefusal;
    const status = statusOf(definition);
    if (refusal) {
      this.set({ ...status, diskState: 'Diskless', error: { ...refusal } });
      return { ok: false, refusal };
    }
    this.set(status);
    return { ok: true };
  }

  stop(name: string): Promise<void> {
    this.stopped.push(name);
    this.#statuses.delete(name);
    for (const listener of this.#listeners) listener(name, null);
    return Promise.resolve();
  }

  configure(definition: ResourceDefinition): Promise<'applied' | 'next-start'> {
    return Promise.resolve(definition.policies.activityLogExtents === undefined ? 'applied' : 'next-start');
  }

  async command(name: string, command: Command): Promise<CommandResult> {
    this.commands.push({ name, command });
    return this.answer(name, command);
  }

  status(name: string): ResourceStatus | null {
    return this.#statuses.get(name) ?? null;
  }

  refresh(name: string): Promise<ResourceStatus | null> {
    return Promise.resolve(this.status(name));
  }

  decisions(): Promise<readonly DecisionRecord[]> {
    return Promise.resolve(this.decisionRecords);
  }

  onStatus(listener: (name: string, status: ResourceStatus | null) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  /** Reports a status, as a data plane would on a change. */
  set(status: ResourceStatus): void {
    this.#statuses.set(status.name, status);
    for (const listener of this.#listeners) listener(status.name, status);
  }

  /** Changes some of the status of a known resource. */
  change(name: string, part: Partial<ResourceStatus>): void {
    const status = this.status(name);
    if (!status) throw new Error(`no resource ${name}`);
    this.set({ ...status, ...part });
  }
}

/** A mirrored resource in good health, or a plain Primary. */
export function statusOf(definition: ResourceDefinition): ResourceStatus {
  const { mirror, nbd } = definition;
  return {
    name: definition.name,
    size: definition.sizeBytes,
    role: mirror ? 'Secondary' : 'Primary',
    diskState: 'UpToDate',
    suspended: false,
    suspendReasons: [],
    nbd: {
      uri: `nbd://${nbd.listen ?? '127.0.0.1:10809'}/${definition.name}`,
      listen: nbd.listen,
      unix: nbd.unix,
      clients: 0,
    },
    peers: mirror
      ? [
          {
            name: mirror.peerName,
            address: mirror.peerAddress,
            connection: 'Connected',
            replication: 'Established',
            role: 'Secondary',
            diskState: 'UpToDate',
            outOfSyncBytes: 0,
            sync: null,
            verify: null,
            lastError: null,
          },
        ]
      : [],
    generation: { current: '00000000000000aa', bitmap: '0000000000000000', history: [] },
    splitBrain: false,
    io: { reads: 1, writes: 2, readBytes: 4096, writtenBytes: 8192, flushes: 3, repairedReads: 0 },
    backing: { path: definition.backingPath ?? '/nowhere/data.img' },
    error: null,
  };
}
