/**
 * The resources of this node: definitions in the node store, running in a data plane. Routes ask here. Changes
 * of one resource are carried out one after the other, those of different resources side by side.
 */
import { lstat, rm } from 'node:fs/promises';
import type { FastifyBaseLogger } from 'fastify';
import type { Command } from '../replicator/core/command.ts';
import { CommandTimeout, type DataPlane } from './data-plane/data-plane.ts';
import { resourcePaths } from './resource-paths.ts';
import { defineResource, differingKeys, policyMistakes } from './definition.ts';
import { ApiError, invalid, refusalError } from './errors.ts';
import type { NodeStore } from './node-store.ts';
import { formatSize } from './size.ts';
import type { CommandAnswer } from './schemas/answers.ts';
import type { Policies, ResourceBody, ResourceDefinition } from './schemas/resource-definition.ts';
import type { DecisionRecord, ResourceStatus } from './schemas/status.ts';

export interface CatalogOptions {
  readonly nodeName: string;
  readonly dataDirectory: string;
  readonly store: NodeStore;
  readonly plane: DataPlane;
  readonly log: FastifyBaseLogger;
}

/** What a list waits for the counters of data planes that are busy; it is for looking around, and any may be. */
const listPatienceMs = 20;

export class ResourceCatalog {
  readonly plane: DataPlane;
  readonly #nodeName: string;
  readonly #dataDirectory: string;
  readonly #store: NodeStore;
  readonly #log: FastifyBaseLogger;
  /** The end of the queue of changes of each resource. */
  readonly #changes = new Map<string, Promise<unknown>>();
  readonly #unsubscribe: () => void;
  #started = false;

  constructor(options: CatalogOptions) {
    this.plane = options.plane;
    this.#nodeName = options.nodeName;
    this.#dataDirectory = options.dataDirectory;
    this.#store = options.store;
    this.#log = options.log;
    this.#unsubscribe = this.plane.onStatus((name, status) => this.#adoptSize(name, status));
  }

  /** Whether every resource that was defined has been started, or has said why it cannot be. */
  get ready(): boolean {
    return this.#started;
  }

  /**
   * Defines what the configuration file names. What exists keeps its settings: a resized or otherwise changed
   * resource must not keep the node from serving it. Throws ApiError for a definition that is not valid.
   */
  adopt(name: string, body: ResourceBody): void {
    const definition = this.#check(name, body);
    const existing = this.#store.definition(name);
    if (existing === null) {
      this.#store.save(definition);
      return;
    }
    const keys = differingKeys(existing, definition);
    if (keys.length > 0) {
      this.#log.warn(
        { resource: name, keys },
        'the configuration file differs from the stored definition, which stays in force',
      );
    }
  }

  async startAll(): Promise<void> {
    await Promise.all(
      this.#store.definitions().map(async (definition) => {
        const result = await this.plane.start(definition);
        if (!result.ok) {
          this.#log.error(
            { resource: definition.name, ...result.refusal },
            'the resource could not be started',
          );
        }
      }),
    );
    this.#started = true;
  }

  names(): readonly string[] {
    return this.#store.definitions().map((definition) => definition.name);
  }

  /** The status last reported, of all resources, by name. Never waits. */
  known(): readonly ResourceStatus[] {
    return this.names()
      .map((name) => this.plane.status(name))
      .filter((status) => status !== null);
  }

  /** The status of all resources, by name: as reported on the last change, its counters as they are now or were a moment ago. */
  async list(): Promise<readonly ResourceStatus[]> {
    const all = await Promise.all(this.names().map((name) => this.plane.refresh(name, listPatienceMs)));
    return all.filter((status) => status !== null);
  }

  async status(name: string): Promise<ResourceStatus> {
    this.#definition(name);
    const status = await this.plane.refresh(name);
    if (status === null) {
      throw new ApiError('not-ready', `the resource "${name}" is being started`, 'Ask again in a moment.');
    }
    return status;
  }

  async define(name: string, body: ResourceBody): Promise<{ created: boolean; status: ResourceStatus }> {
    const definition = this.#check(name, body);
    return this.#inTurn(name, async () => {
      const existing = this.#store.definition(name);
      if (existing !== null) {
        const keys = differingKeys(existing, definition);
        if (keys.length > 0) throw conflict(existing, definition, keys);
        return { created: false, status: await this.status(name) };
      }
      // Started before it is stored: what cannot start is refused as a whole, and nothing is left behind.
      const { directory } = resourcePaths(this.#dataDirectory, name);
      const isNew = (await lstat(directory).catch(errorCode)) === 'ENOENT';
      const result = await this.plane.start(definition);
      if (!result.ok) {
        await this.plane.stop(name);
        // Above all a disk of the size asked for: the next attempt, with another size, would be for another device. Nobody has
        // been served from it. A backing that was named keeps the metadata that has claimed it: no other could use it.
        if (isNew && definition.backingPath === null) await rm(directory, { recursive: true, force: true });
        throw refusalError(result.refusal);
      }
      // Taken up from kept data that had grown: the request is for another device than the one that is there.
      const size = this.plane.status(name)?.size ?? 0;
      if (size > definition.sizeBytes) {
        await this.plane.stop(name);
        throw new ApiError(
          'metadata-foreign',
          `the kept data of "${name}" is a device of ${formatSize(size)}, not ${formatSize(definition.sizeBytes)}`,
          `Define it with the size ${formatSize(size)}; a device never shrinks.`,
        );
      }
      try {
        this.#store.save(definition);
      } catch (error) {
        // A full disk, say: it would run on as it was defined here, whatever the next attempt says, and nothing could end it.
        await this.plane.stop(name);
        throw error;
      }
      this.#log.info({ resource: name, sizeBytes: definition.sizeBytes }, 'resource defined');
      return { created: true, status: await this.status(name) };
    });
  }

  async change(name: string, policies: Policies): Promise<CommandAnswer> {
    return this.#inTurn(name, async () => {
      const before = this.#definition(name);
      const definition = { ...before, policies: { ...before.policies, ...policies } };
      const mistakes = policyMistakes(
        definition.policies,
        this.#nodeName,
        definition.mirror?.peerName ?? null,
      );
      if (mistakes.length > 0) throw invalid(mistakes);
      this.#store.save(definition);
      const applied = await this.plane.configure(definition);
      const message =
        applied === 'applied'
          ? 'The policies are changed.'
          : 'The policies are stored; they take effect when the resource is started the next time.';
      return { message, givenUp: [], status: await this.status(name) };
    });
  }

  async remove(
    name: string,
    options: { wipe: boolean; force: boolean },
  ): Promise<{ message: string; givenUp: string[] }> {
    return this.#inTurn(name, async () => {
      const definition = this.#definition(name);
      const status = await this.plane.refresh(name);
      const clients = status?.nbd.clients ?? 0;
      if (clients > 0 && !options.force) {
        throw new ApiError(
          'device-in-use',
          `${clients} NBD client(s) are attached to "${name}"`,
          'Detach them first, or repeat with force=true, which disconnects them.',
        );
      }
      if (options.wipe && !options.force && definition.mirror && status && !hasCopyElsewhere(status)) {
        throw new ApiError(
          'last-copy',
          `no other UpToDate copy of "${name}" is in reach: its data may be the last one`,
          'Connect the peer and let it finish its resync, or repeat with force=true, which destroys the data.',
        );
      }
      await this.plane.stop(name);
      this.#store.remove(name);
      const kept = options.wipe ? await this.#wipe(definition) : null;
      this.#log.info({ resource: name, wipe: options.wipe }, 'resource removed');
      return {
        message: options.wipe
          ? `The resource "${name}" is removed with its metadata${kept === null ? ' and its data' : `; ${kept} is a device and was left as it is`}.`
          : `The resource "${name}" is removed; its data and metadata are kept and taken up again when it is defined anew.`,
        givenUp: clients > 0 ? [`what ${clients} disconnected NBD client(s) had in flight`] : [],
      };
    });
  }

  async command(name: string, command: Command): Promise<CommandAnswer> {
    this.#definition(name);
    try {
      const result = await this.plane.command(name, command);
      if (!result.ok) throw refusalError(result.refusal);
      const status = await this.status(name);
      // Before the answer: a PUT with the new size that follows it finds the definition changed.
      this.#adoptSize(name, status);
      return { message: result.message, givenUp: [...result.givenUp], status };
    } catch (error) {
      if (!(error instanceof CommandTimeout)) throw error;
      throw new ApiError(
        'command-timeout',
        error.message,
        'Look at the status: the command may still be carried out.',
      );
    }
  }

  async decisions(name: string): Promise<readonly DecisionRecord[]> {
    this.#definition(name);
    return this.plane.decisions(name);
  }

  close(): void {
    this.#unsubscribe();
  }

  #check(name: string, body: ResourceBody): ResourceDefinition {
    const checked = defineResource(name, body, this.#nodeName);
    if (!checked.ok) throw invalid(checked.mistakes);
    return checked.value;
  }

  #definition(name: string): ResourceDefinition {
    const definition = this.#store.definition(name);
    if (definition) return definition;
    throw new ApiError(
      'not-found',
      `this node has no resource "${name}"`,
      'GET /v1/resources lists what it has; PUT defines one.',
    );
  }

  /** A resize, here or by the peer, is the replicator's decision; the definition follows it. */
  #adoptSize(name: string, status: ResourceStatus | null): void {
    if (status === null || status.error !== null || status.size === 0) return;
    const definition = this.#store.definition(name);
    // Devices never shrink: a smaller size is news from before the growth.
    if (definition && definition.sizeBytes < status.size) {
      this.#store.save({ ...definition, sizeBytes: status.size });
    }
  }

  /** Removes the data and metadata; answers the path of a backing device, which is nobody's to remove. */
  async #wipe(definition: ResourceDefinition): Promise<string | null> {
    await rm(resourcePaths(this.#dataDirectory, definition.name).directory, { recursive: true, force: true });
    const path = definition.backingPath;
    if (path === null) return null;
    const entry = await lstat(path).catch(() => null);
    if (entry !== null && !entry.isFile()) return path;
    await rm(path, { force: true });
    return null;
  }

  async #inTurn<T>(name: string, change: () => Promise<T>): Promise<T> {
    const before = this.#changes.get(name) ?? Promise.resolve();
    const mine = before.then(change, change);
    const settled = mine.catch(() => undefined);
    this.#changes.set(name, settled);
    try {
      return await mine;
    } finally {
      if (this.#changes.get(name) === settled) this.#changes.delete(name);
    }
  }
}

/** Why a PUT of what exists already is refused. A size from before a resize is told apart: nothing will ever match it. */
function conflict(
  existing: ResourceDefinition,
  wanted: ResourceDefinition,
  keys: readonly string[],
): ApiError {
  const [here, asked] = [formatSize(existing.sizeBytes), formatSize(wanted.sizeBytes)];
  const sizes = keys.includes('size') ? ` (it has ${here}, the request says ${asked})` : '';
  const isOlder = wanted.sizeBytes < existing.sizeBytes;
  return new ApiError(
    'already-exists',
    `the resource "${existing.name}" exists and differs in ${keys.join(', ')}${sizes}`,
    keys.length === 1 && isOlder
      ? `Ask for ${here}: a device that has grown never shrinks.`
      : 'Use PATCH for policies and /resize to grow, or delete the resource first (its data is kept).',
  );
}

function hasCopyElsewhere(status: ResourceStatus): boolean {
  return status.peers.some((peer) => peer.connection === 'Connected' && peer.diskState === 'UpToDate');
}

function errorCode(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : null;
}
