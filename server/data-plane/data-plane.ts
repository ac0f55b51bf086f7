/**
 * What the control API needs of the threads that move data. The supervisor is the real one; tests have a fake.
 */
import type { Command } from '../../replicator/core/command.ts';
import { refuse, type CommandResult, type Refusal } from '../../replicator/core/refusal.ts';
import type { ResourceDefinition } from '../schemas/resource-definition.ts';
import type { DecisionRecord, ResourceStatus } from '../schemas/status.ts';

export type StartResult = { readonly ok: true } | { readonly ok: false; readonly refusal: Refusal };

export interface DataPlane {
  /**
   * Starts a resource. A refusal (backing missing, port in use) leaves it known, with `error` in its status;
   * the command `attach` tries again.
   */
  start(definition: ResourceDefinition): Promise<StartResult>;
  /** Demotes, flushes, closes. After it the name is unknown. A name that is unknown is stopped already. */
  stop(name: string): Promise<void>;
  /** New policies. `next-start`: they are taken when the resource is started the next time. */
  configure(definition: ResourceDefinition): Promise<'applied' | 'next-start'>;
  /** Throws `CommandTimeout` when the data plane does not answer; what becomes of the command is then unknown. */
  command(name: string, command: Command): Promise<CommandResult>;
  /** The last status reported; null for an unknown name. Never waits. */
  status(name: string): ResourceStatus | null;
  /**
   * Asks for the counters as they are now; answers the last status reported if that takes longer than `patienceMs`, half a
   * second when absent.
   */
  refresh(name: string, patienceMs?: number): Promise<ResourceStatus | null>;
  /** The last decisions, oldest first. */
  decisions(name: string): Promise<readonly DecisionRecord[]>;
  /** Calls back on every change, until the returned function is called. A null status: the resource is gone. */
  onStatus(listener: (name: string, status: ResourceStatus | null) => void): () => void;
  /** Stops everything, cleanly. */
  close(): Promise<void>;
}

export class CommandTimeout extends Error {}

/** To a command for a resource that is on its way out, or not there yet. */
export function beingStopped(name: string): CommandResult {
  return refuse(
    'shutting-down',
    `"${name}" is being stopped or has not been started yet`,
    'Look at the list of resources in a moment.',
  );
}
