/**
 * One resource in a data plane: its replicated node and the NBD server in front of it, started and stopped
 * together. Whether clients may attach is the node's word; how many have is told to it.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Command } from '../../replicator/core/command.ts';
import type { Decision } from '../../replicator/core/decision.ts';
import { defaultCoreOptions, type CoreOptions } from '../../replicator/core/options.ts';
import { done, refuse, type CommandResult, type Refusal } from '../../replicator/core/refusal.ts';
import type { ResourceNode, ResourceNodeOptions } from '../../replicator/shell/resource-node.ts';
import { resourcePaths } from '../resource-paths.ts';
import { formatEndpoint, parseEndpoint } from '../endpoint.ts';
import type { ResourceDefinition } from '../schemas/resource-definition.ts';
import type { ResourceStatus } from '../schemas/status.ts';
import type { FrontOptions, HostParts, NbdFront, OpenedExport } from './host-parts.ts';
import { configuredFront, offlineStatus, runningStatus, type FrontStatus } from './status-report.ts';

export interface HostContext {
  readonly nodeName: string;
  readonly dataDirectory: string;
  readonly parts: HostParts;
  /** Called after changes, at most once per turn of the event loop. */
  readonly report: (status: ResourceStatus) => void;
  readonly log: (level: 'info' | 'warn' | 'error', text: string) => void;
  /** Must end the process and not return. */
  readonly panic: (text: string) => void;
}

/** `serving` is the word of the node; it may come before the node is open, and counts from then on. */
type State =
  | { readonly kind: 'down'; readonly fault: Refusal | null }
  | { readonly kind: 'starting' }
  | { readonly kind: 'up'; readonly node: ResourceNode; readonly front: NbdFront; readonly at: FrontStatus };

const defaultConnectIntervalMs = 1_000;
const defaultProbeTimeoutMs = 1_000;

export class ResourceHost {
  readonly name: string;
  #definition: ResourceDefinition;
  readonly #context: HostContext;
  #state: State = { kind: 'down', fault: null };
  #starting: Promise<Refusal | null> = Promise.resolve(null);
  #serving = false;
  #clients = 0;
  #reportDue = false;

  constructor(definition: ResourceDefinition, context: HostContext) {
    this.name = definition.name;
    this.#definition = definition;
    this.#context = context;
  }

  /** Null when it is started. Harmless when it is started already. */
  start(): Promise<Refusal | null> {
    if (this.#state.kind === 'down') this.#starting = this.#start();
    return this.#starting;
  }

  async #start(): Promise<Refusal | null> {
    this.#state = { kind: 'starting' };
    this.#serving = false;
    const fault = await this.#open().catch((error: unknown) => unexpected(error));
    if (fault !== null) this.#state = { kind: 'down', fault };
    this.#scheduleReport();
    return fault;
  }

  async stop(): Promise<void> {
    // A start under way is let finish: what it opens has to be closed.
    await this.#starting;
    const state = this.#state;
    this.#state = { kind: 'down', fault: null };
    if (state.kind !== 'up') return;
    // The node first: it ends what clients have in flight, so that the front need not wait for a dead peer.
    await state.node.stop();
    await state.front.close();
  }

  async command(command: Command): Promise<CommandResult> {
    const state = this.#state;
    if (state.kind === 'up') return state.node.command(command);
    if (command.kind === 'attach' && state.kind === 'down') {
      const fault = await this.start();
      return fault === null ? done(`The resource "${this.name}" is started.`) : { ok: false, refusal: fault };
    }
    if (state.kind === 'starting')
      return refuse('busy', `"${this.name}" is being started`, 'Try again in a moment.');
    const fault = state.fault;
    if (fault === null) return refuse('shutting-down', `"${this.name}" is stopped`, 'Start the node again.');
    return refuse(
      fault.code,
      `"${this.name}" is not started on this node: ${fault.reason}`,
      `${fault.nextStep} Then use attach.`,
    );
  }

  /** In force at once, but for what a resource is opened with. */
  configure(definition: ResourceDefinition): 'applied' | 'next-start' {
    const before = nodeOptions(this.#definition, this.#context);
    const after = nodeOptions(definition, this.#context);
    this.#definition = definition;
    if (this.#state.kind !== 'up') return 'applied';
    const {
      nodeName: _n,
      peerName: _p,
      sizeBytes: _s,
      protocol: _c,
      activityLogExtents,
      ...policies
    } = after.core;
    this.#state.node.configure(policies);
    const sameLink =
      before.replication?.connectIntervalMs === after.replication?.connectIntervalMs &&
      before.replication?.probeTimeoutMs === after.replication?.probeTimeoutMs;
    return sameLink && before.core.activityLogExtents === activityLogExtents ? 'applied' : 'next-start';
  }

  status(): ResourceStatus {
    const state = this.#state;
    const { dataDirectory } = this.#context;
    if (state.kind === 'up') {
      const front = { ...state.at, clients: this.#clients };
      return runningStatus(this.#definition, dataDirectory, state.node.status(), front);
    }
    if (state.kind === 'starting') return offlineStatus(this.#definition, dataDirectory, 'Attaching', null);
    return offlineStatus(this.#definition, dataDirectory, 'Diskless', state.fault);
  }

  decisions(): readonly Decision[] {
    return this.#state.kind === 'up' ? this.#state.node.decisions() : [];
  }

  async #open(): Promise<Refusal | null> {
    const { parts, panic, log } = this.#context;
    const definition = this.#definition;
    await mkdir(resourcePaths(this.#context.dataDirectory, this.name).directory, {
      recursive: true,
      mode: 0o700,
    });

    const tls = await this.#tls();
    if (tls.refusal) return tls.refusal;
    const front = parts.createNbdServer({
      source: { list: () => [{ name: this.name, description: '' }], open: (name) => this.#openExport(name) },
      ...(tls.options ? { tls: tls.options } : {}),
      log: (level, message) => {
        // What single clients do wrong is of interest to their authors only.
        if (level !== 'debug') log(level, message);
      },
      onClientCount: (count) => this.#clientsChanged(count),
    });
    // The listener first: a taken port is found before anything is created.
    const at = await this.#listen(front);
    if ('code' in at) {
      await front.close();
      return at;
    }
    const opening = parts.openResourceNode(nodeOptions(definition, this.#context), {
      statusChanged: () => this.#scheduleReport(),
      serveClients: (serve) => this.#serveClients(serve, front),
      decided: (decision) => {
        log('info', `${decision.kind}: ${decision.rule}: ${decision.result}`);
      },
      log,
      panic,
    });
    const opened = await opening.catch(async (error: unknown) => {
      // Left open, the listener would be in the way of the next attempt.
      await front.close();
      throw error;
    });
    if (!opened.ok) {
      await front.close();
      return opened.refusal;
    }
    this.#state = { kind: 'up', node: opened.node, front, at };
    opened.node.setClientCount(this.#clients);
    if (definition.mirror === null) await this.#promoteAlone(opened.node);
    return null;
  }

  /** A device without a mirror has nobody to agree with. */
  async #promoteAlone(node: ResourceNode): Promise<void> {
    const result = await node.command({ kind: 'promote', force: false, dryRun: false });
    if (!result.ok) this.#context.log('error', `not promoted: ${result.refusal.reason}`);
  }

  async #listen(front: NbdFront): Promise<FrontStatus | Refusal> {
    const wanted = configuredFront(this.#definition, this.#context.dataDirectory);
    let listen: string | null = null;
    const endpoint = wanted.listen === null ? null : parseEndpoint(wanted.listen);
    try {
      if (endpoint) {
        const { port } = await front.listenTcp(endpoint.host, endpoint.port);
        listen = formatEndpoint({ host: endpoint.host, port });
      }
    } catch (error) {
      return cannotListen(`NBD on ${wanted.listen ?? ''}`, error);
    }
    try {
      if (wanted.unix !== null) await front.listenUnix(wanted.unix);
    } catch (error) {
      return cannotListen(`NBD on ${wanted.unix ?? ''}`, error);
    }
    return { listen, unix: wanted.unix, clients: 0 };
  }

  async #tls(): Promise<{ options: FrontOptions['tls'] | null; refusal: Refusal | null }> {
    const { tls } = this.#definition.nbd;
    if (tls === null) return { options: null, refusal: null };
    try {
      const [certPem, keyPem] = await Promise.all([
        readFile(tls.certFile, 'utf8'),
        readFile(tls.keyFile, 'utf8'),
      ]);
      const ca =
        tls.caFile === undefined
          ? {}
          : { caPem: await readFile(tls.caFile, 'utf8'), requireClientCert: true };
      // Throws when they are no PEM, or do not fit together.
      createSecureContext({ cert: certPem, key: keyPem, ca: ca.caPem });
      return { options: { certPem, keyPem, ...ca, required: tls.required ?? true }, refusal: null };
    } catch (error) {
      return {
        options: null,
        refusal: {
          code: 'tls-unusable',
          reason: `the TLS files of "${this.name}" cannot be used: ${text(error)}`,
          nextStep: 'Correct the paths, the permissions or the files, then use attach.',
        },
      };
    }
  }

  #openExport(name: string): OpenedExport {
    if (name !== '' && name !== this.name) return { kind: 'unknown' };
    const state = this.#state;
    if (state.kind === 'up' && this.#serving) {
      const { device } = state.node;
      return { kind: 'export', export: { name: this.name, description: '', device, readOnly: false } };
    }
    return { kind: 'refused', message: this.#whyNotServed() };
  }

  #whyNotServed(): string {
    const { nodeName } = this.#context;
    if (this.#state.kind !== 'up') return `${this.name} is not started on ${nodeName}`;
    const status = this.#state.node.status();
    if (status.role === 'Primary')
      return `${this.name} is Primary on ${nodeName}, but may not serve clients just now`;
    const peerName = this.#definition.mirror?.peerName ?? 'the peer';
    return status.peer?.role === 'Primary'
      ? `${this.name} is Secondary on ${nodeName}; the Primary is ${peerName}: attach there`
      : `${this.name} is Secondary on ${nodeName}, and no Primary is known: promote a node first`;
  }

  #serveClients(serve: boolean, front: NbdFront): void {
    this.#serving = serve;
    if (!serve) {
      front.disconnectClients().catch((error: unknown) => {
        // Clients of a superseded Primary must not go on.
        this.#context.panic(`NBD clients could not be disconnected: ${text(error)}`);
      });
    }
    this.#scheduleReport();
  }

  #clientsChanged(count: number): void {
    this.#clients = count;
    if (this.#state.kind === 'up') this.#state.node.setClientCount(count);
    this.#scheduleReport();
  }

  #scheduleReport(): void {
    if (this.#reportDue) return;
    this.#reportDue = true;
    setImmediate(() => {
      this.#reportDue = false;
      this.#context.report(this.status());
    });
  }
}

function nodeOptions(definition: ResourceDefinition, context: HostContext): ResourceNodeOptions {
  const { mirror } = definition;
  const { connectIntervalMs, probeTimeoutMs, ...policies } = definition.policies;
  const paths = resourcePaths(context.dataDirectory, definition.name);
  const core: CoreOptions = {
    ...defaultCoreOptions,
    ...policies,
    nodeName: context.nodeName,
    peerName: mirror?.peerName ?? null,
    sizeBytes: definition.sizeBytes,
    protocol: mirror?.protocol ?? defaultCoreOptions.protocol,
  };
  return {
    resourceName: definition.name,
    core,
    backing: { path: definition.backingPath ?? paths.backing, create: definition.backingPath === null },
    metadataPath: paths.metadata,
    replication:
      mirror === null
        ? null
        : {
            listen: endpointOf(mirror.listen),
            peerAddress: endpointOf(mirror.peerAddress),
            secret: mirror.secret,
            connectIntervalMs: connectIntervalMs ?? defaultConnectIntervalMs,
            probeTimeoutMs: probeTimeoutMs ?? defaultProbeTimeoutMs,
          },
  };
}

/** Definitions were checked when they were made. */
function endpointOf(address: string) {
  const endpoint = parseEndpoint(address);
  if (!endpoint) throw new Error(`a definition with the address ${address}`);
  return endpoint;
}

function cannotListen(what: string, error: unknown): Refusal {
  const inUse =
    text(error).includes('in use') ||
    (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE');
  return {
    code: inUse ? 'address-in-use' : 'address-unusable',
    reason: `cannot listen for ${what}: ${text(error)}`,
    nextStep: inUse ? 'Free the address or choose another one.' : 'Choose an address of this machine.',
  };
}

/** Nothing was acknowledged yet, so a failed start need not take the other resources down. */
function unexpected(error: unknown): Refusal {
  return {
    code: 'backing-failed',
    reason: `the resource could not be started: ${text(error)}`,
    nextStep: 'See the log of the node, correct the cause, then use attach.',
  };
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
