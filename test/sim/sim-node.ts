/**
 * One node in the simulation: carries the effects of a core out on the models and tells it what came of them, as the
 * shell does with the real things. Disk and metadata outlive the process.
 */
import type { ClientOutcome, Event, LinkDownReason } from '../../replicator/core/event.ts';
import type { Command } from '../../replicator/core/command.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { CoreOptions, GenerationSource } from '../../replicator/core/options.ts';
import type { Packet, Payload, PeerState } from '../../replicator/core/packet.ts';
import type { CommandResult } from '../../replicator/core/refusal.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import { formatGeneration } from '../../replicator/core/vocabulary.ts';
import { describe } from './describe.ts';
import type { Prng } from './prng.ts';
import { sectorBytes, SimDigests, SimPayload } from './sim-disk.ts';
import type { SimDisk } from './sim-disk.ts';
import type { SimMetadata } from './sim-metadata.ts';
import type { Host, SimNetwork } from './sim-network.ts';
import type { World } from './world.ts';

/** What the simulator needs of `Core`. */
export interface SimulatedCore {
  step(event: Event): readonly Effect[];
  status(): CoreStatus;
}

export type MakeCore = (options: CoreOptions, ids: GenerationSource) => SimulatedCore;

type Without<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** A client's request; the node gives it an id. */
export type ClientRequest = Without<
  Extract<Event, { kind: 'clientRead' | 'clientWrite' | 'clientTrim' | 'clientZeroes' | 'clientFlush' }>,
  'id'
>;

/** `gone`: the connection ended first. */
export type RequestEnd = { readonly outcome: ClientOutcome | 'gone'; readonly sectors: Uint32Array | null };

export interface NodeListener {
  onServe(node: SimNode, serve: boolean): void;
  /** By policy: what only one of them has is given up. */
  onDiscarded(): void;
}

interface PendingRequest {
  readonly request: ClientRequest;
  readonly done: (end: RequestEnd) => void;
}

interface PendingCommand {
  readonly command: Command;
  readonly atMs: number;
  readonly done: (result: CommandResult | 'gone') => void;
}

const sectorsPerBlock = 8;
const tickMs = 100;
/** However long a command may take, an answer later than this is none. */
const commandMsMax = 60_000;

export class SimNode implements Host {
  readonly name: string;
  readonly disk: SimDisk;
  readonly metadata: SimMetadata;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #network: SimNetwork;
  readonly #options: CoreOptions;
  readonly #makeCore: MakeCore;
  readonly #listener: NodeListener;
  #core: SimulatedCore | null = null;
  /** Counts processes: what an earlier one had asked for is nothing to the present one. */
  #process = 0;
  #published: PeerState | null = null;
  #serving = false;
  #nextId = 1;
  readonly #requests = new Map<number, PendingRequest>();
  readonly #commands = new Map<number, PendingCommand>();

  constructor(
    world: World,
    network: SimNetwork,
    disk: SimDisk,
    metadata: SimMetadata,
    options: CoreOptions,
    makeCore: MakeCore,
    listener: NodeListener,
  ) {
    this.name = options.nodeName;
    this.disk = disk;
    this.metadata = metadata;
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#network = network;
    this.#options = options;
    this.#makeCore = makeCore;
    this.#listener = listener;
  }

  // What happens to it.

  start(): void {
    if (this.#core !== null) return;
    this.#world.trace(() => `${this.name} starts`);
    this.#core = this.#makeCore(this.#options, { newGeneration: () => this.#prng.bits64() });
    const outcome = { kind: 'opened', image: this.metadata.image() } as const;
    this.#tell({ kind: 'diskOpened', id: 0, outcome });
    this.#scheduleTick();
  }

  /** SIGKILL: what the system has of it stays. */
  kill(): void {
    if (this.#core === null) return;
    this.#world.trace(() => `${this.name} is killed`);
    this.disk.kill();
    this.metadata.kill();
    this.#network.hostDied(this, false);
    this.#end();
  }

  powerCut(): void {
    this.#world.trace(() => `${this.name} loses power`);
    this.disk.powerCut();
    this.metadata.kill();
    this.#network.hostDied(this, true);
    this.#end();
  }

  command(command: Command, done: (result: CommandResult | 'gone') => void = () => undefined): void {
    if (this.#core === null) return done('gone');
    const id = this.#nextId++;
    this.#commands.set(id, { command, atMs: this.#world.nowMs, done });
    this.#tell({ kind: 'command', id, command });
  }

  /** The policy, for this process: on loss of the peer, go on. */
  allowAlone(): void {
    this.#tell({ kind: 'configured', policies: { ...this.#options, onPeerLoss: 'continue' } });
  }

  request(request: ClientRequest, done: (end: RequestEnd) => void): void {
    if (this.#core === null || !this.#serving) return done({ outcome: 'gone', sectors: null });
    const id = this.#nextId++;
    this.#requests.set(id, { request, done });
    this.#tell({ ...request, id });
  }

  /** The client hangs up: what it had asked for may still be done, but nobody hears of it. */
  disconnectClients(): void {
    this.#dropRequests();
    this.#tell({ kind: 'clients', count: 0 });
  }

  setClients(count: number): void {
    this.#tell({ kind: 'clients', count });
  }

  // What it says of itself.

  get isUp(): boolean {
    return this.#core !== null;
  }

  get isServing(): boolean {
    return this.#serving;
  }

  get published(): PeerState | null {
    return this.#published;
  }

  get core(): SimulatedCore | null {
    return this.#core;
  }

  status(): CoreStatus | null {
    return this.#core?.status() ?? null;
  }

  get requestsUnderWay(): number {
    return this.#requests.size;
  }

  // The network's side.

  linkUp(session: number): void {
    this.#tell({ kind: 'linkUp', session });
  }

  linkDown(session: number, why: LinkDownReason, detail: string): void {
    this.#tell({ kind: 'linkDown', session, why, detail });
  }

  linkRefused(detail: string): void {
    this.#tell({ kind: 'linkRefused', detail });
  }

  packet(session: number, packet: Packet, payload: Payload | null): void {
    this.#tell({ kind: 'packet', session, packet, payload });
  }

  #tell(event: Event): void {
    const core = this.#core;
    if (core === null) return;
    if (event.kind !== 'tick') this.#world.trace(() => `${this.name} <- ${describe(event)}`);
    let effects: readonly Effect[];
    try {
      effects = core.step(event);
    } catch (error) {
      const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return this.#world.violation(`${this.name} threw on ${describe(event)}: ${what}`);
    }
    for (const effect of effects) {
      if (core !== this.#core) return;
      if (effect.kind !== 'statusChanged' && effect.kind !== 'publishState') {
        this.#world.trace(() => `${this.name}    ${describe(effect)}`);
      }
      this.#carryOut(effect);
    }
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case 'writeLocal':
        return this.disk.write(effect.op, effect.offset, effect.length, effect.payload, (outcome) =>
          this.#tell({ kind: 'localWritten', id: effect.id, outcome }),
        );
      case 'readLocal':
        return this.disk.read(effect.offset, effect.length, (sectors) => this.#onRead(effect, sectors));
      case 'digestLocal':
        return this.disk.read(effect.offset, effect.length, (sectors) => {
          const digests = sectors === null ? null : new SimDigests(sectors);
          this.#tell({ kind: 'localDigested', id: effect.id, digests });
        });
      case 'flushLocal':
        return this.disk.flush((outcome) => this.#tell({ kind: 'localFlushed', id: effect.id, outcome }));
      case 'growDisk':
        return this.#growDisk(effect.id, effect.sizeBytes);
      case 'commit':
        if ((effect.transaction.superblock?.sizeBytes ?? 0) > this.disk.sectorCount * sectorBytes)
          this.#world.violation(`${this.name} records a size that its disk does not have`);
        return this.metadata.commit(effect.transaction, () =>
          this.#tell({ kind: 'metadataCommitted', id: effect.id }),
        );
      case 'send':
        return this.#network.send(this, effect.session, effect.packet, effect.payload);
      case 'wantLink':
        return this.#network.wantLink(this, effect.want);
      case 'closeLink':
        return this.#network.close(this, effect.session);
      case 'probe':
        return this.#probe(effect.id);
      case 'publishState':
        this.#published = effect.state;
        return;
      case 'complete':
        return this.#complete(effect.id, effect.outcome, effect.payload);
      case 'commandDone':
        return this.#commandDone(effect.id, effect.result);
      case 'serveClients':
        return this.#serve(effect.serve);
      case 'decided':
        if (/^after-sb-.pri-discard/.test(effect.decision.rule)) this.#listener.onDiscarded();
        if (effect.decision.kind === 'verify' && effect.decision.inputs['differingBlocks'] !== 0)
          this.#world.violation(`${this.name}: verify finds what nobody changed: ${effect.decision.result}`);
        return;
      case 'closeDisk':
      case 'statusChanged':
      case 'log':
        return;
      case 'openDisk':
        return this.#openDisk(effect.id);
      case 'panic':
        return this.#world.violation(`${this.name} panics: ${effect.message}`);
      case 'stopped':
        this.disk.kill();
        this.metadata.kill();
        this.#network.hostDied(this, false);
        return this.#end();
      default:
        return effect satisfies never;
    }
  }

  #onRead(effect: Extract<Effect, { kind: 'readLocal' }>, sectors: Uint32Array | null): void {
    const answer = (payload: SimPayload | null, holeBytes?: number): void =>
      this.#tell({
        ...{ kind: 'localRead', id: effect.id, payload, hole: holeBytes !== undefined },
        ...(holeBytes === undefined ? {} : { holeBytes }),
      });
    if (sectors === null) return answer(null);
    if (!effect.wantHole) return answer(new SimPayload(sectors));
    // One piece at a time, of data or of a hole, in blocks.
    const isHole = (from: number): boolean =>
      sectors.subarray(from, from + sectorsPerBlock).every((stamp) => stamp === 0);
    let end = sectorsPerBlock;
    while (end < sectors.length && isHole(end) === isHole(0)) end += sectorsPerBlock;
    end = Math.min(end, sectors.length);
    answer(
      isHole(0) ? null : new SimPayload(sectors.subarray(0, end)),
      isHole(0) ? end * sectorBytes : undefined,
    );
  }

  #growDisk(id: number, sizeBytes: number): void {
    this.disk.grow(this.status()?.sizeBytes ?? 0, sizeBytes, (isGrown) => {
      const refusal = { code: 'backing-failed', reason: 'it is broken', nextStep: 'repair it' } as const;
      const outcome = isGrown ? ({ kind: 'grown' } as const) : ({ kind: 'refused', refusal } as const);
      this.#tell({ kind: 'diskGrown', id, outcome });
    });
  }

  #probe(id: number): void {
    const process = this.#process;
    this.#network.probe(this, (outcome) => {
      if (process === this.#process) this.#tell({ kind: 'probed', id, outcome });
    });
  }

  #openDisk(id: number): void {
    this.metadata.whenIdle(() => {
      const refusal = {
        code: 'backing-failed',
        reason: 'the disk is broken',
        nextStep: 'repair it',
      } as const;
      this.#tell({
        kind: 'diskOpened',
        id,
        outcome: this.disk.isFailing
          ? { kind: 'refused', refusal }
          : { kind: 'opened', image: this.metadata.image() },
      });
    });
  }

  #complete(id: number, outcome: ClientOutcome, payload: Payload | null): void {
    const pending = this.#requests.get(id);
    if (pending === undefined) {
      // Of a client that has been disconnected meanwhile; what was not its own would be a bug.
      if (id >= this.#nextId)
        this.#world.violation(`${this.name} completes request ${id}, which nobody made`);
      return;
    }
    this.#requests.delete(id);
    pending.done({ outcome, sectors: payload instanceof SimPayload ? payload.sectors : null });
  }

  #commandDone(id: number, result: CommandResult): void {
    const pending = this.#commands.get(id);
    if (pending === undefined)
      return this.#world.violation(`${this.name} answers command ${id} twice or unasked`);
    this.#commands.delete(id);
    pending.done(result);
  }

  #serve(serve: boolean): void {
    if (serve === this.#serving) return;
    this.#serving = serve;
    if (!serve) {
      this.#dropRequests();
      const process = this.#process;
      this.#world.after(1, () => {
        if (process === this.#process && !this.#serving) this.#tell({ kind: 'clients', count: 0 });
      });
    }
    this.#listener.onServe(this, serve);
  }

  #dropRequests(): void {
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { done } of requests) done({ outcome: 'gone', sectors: null });
  }

  #end(): void {
    this.#process++;
    this.#core = null;
    this.#published = null;
    const wasServing = this.#serving;
    this.#serving = false;
    this.#dropRequests();
    const commands = [...this.#commands.values()];
    this.#commands.clear();
    for (const { done } of commands) done('gone');
    if (wasServing) this.#listener.onServe(this, false);
  }

  #scheduleTick(): void {
    const process = this.#process;
    this.#world.after(tickMs * (0.9 + this.#prng.int(200) / 1000), () => {
      if (process !== this.#process) return;
      this.#tell({ kind: 'tick', nowMs: Math.floor(this.#world.nowMs) });
      for (const { command, atMs } of this.#commands.values()) {
        if (this.#world.nowMs - atMs > commandMsMax) {
          this.#world.violation(`${this.name} never answers ${command.kind}`);
        }
      }
      this.#scheduleTick();
    });
  }

  describe(): string {
    const status = this.status();
    if (status === null) return `${this.name} down`;
    const { peer, generation } = status;
    const link =
      peer === null ? '-' : `${peer.connection}/${peer.replication} peer ${peer.role}/${peer.diskState}`;
    const held = status.suspended.length > 0 ? ` held: ${status.suspended.join()}` : '';
    return `${this.name} ${status.role}/${status.diskState} ${link} ${formatGeneration(generation.current)} oos ${peer?.outOfSyncBytes ?? 0}${held}${status.splitBrain ? ' SPLIT BRAIN' : ''}`;
  }
}
