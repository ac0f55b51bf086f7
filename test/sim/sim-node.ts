/**
 * One node in the simulation: carries the effects of a core out on the models and tells it what came of them, as the
 * shell does with the real things. Disk and metadata outlive the process. The process may stand still for a while, with
 * all that it is told waiting; its clock may jump or run at another speed; it may die between any two effects of a step.
 */
import type { ClientOutcome, Event, LinkDownReason } from '../../replicator/core/event.ts';
import type { Command } from '../../replicator/core/command.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { CoreOptions, GenerationSource } from '../../replicator/core/options.ts';
import type { Packet, Payload, PeerState } from '../../replicator/core/packet.ts';
import type { CommandResult } from '../../replicator/core/refusal.ts';
import { noLatency } from '../../replicator/core/resync-rate.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import type { TableSizes } from '../../replicator/core/table-sizes.ts';
import type { DiskState, Generation } from '../../replicator/core/vocabulary.ts';
import type { Coverage } from './coverage.ts';
import { describe, describeNode } from './describe.ts';
import { LatestLatency } from './latest-latency.ts';
import type { ClientRequest, Death, NodeListener, RequestEnd } from './node-listener.ts';
import type { Prng } from './prng.ts';
import { sectorBytes, SimDigests, SimPayload } from './sim-disk.ts';
import type { SimDisk } from './sim-disk.ts';
import { onRanges } from './sim-ranges.ts';
import type { SimMetadata } from './sim-metadata.ts';
import type { Host, SimNetwork } from './sim-network.ts';
import type { World } from './world.ts';

/** What the simulator needs of `Core`. */
export interface SimulatedCore {
  step(event: Event): readonly Effect[];
  status(): CoreStatus;
  /** Cores that are wrapped for a test may lack these; then nothing is checked by them. */
  tableSizes?(): TableSizes;
  readonly exposed?: Generation;
  readonly diskState?: DiskState;
  readonly isPeerUpToDate?: boolean;
  readonly solo?: { readonly isBusy: boolean };
}

export type MakeCore = (options: CoreOptions, ids: GenerationSource) => SimulatedCore;

/** What differs from node to node beside the options of its core. */
export interface NodeOptions {
  readonly core: CoreOptions;
  /** How fast its clock runs: 1 as it should. */
  readonly clockSpeed: number;
  readonly makeCore: MakeCore;
  readonly coverage: Coverage;
}

interface PendingRequest {
  readonly request: ClientRequest;
  readonly atMs: number;
  readonly done: (end: RequestEnd) => void;
}

interface PendingCommand {
  readonly command: Command;
  readonly atMs: number;
  readonly done: (result: CommandResult | 'gone') => void;
}

const brokenDisk = {
  kind: 'refused',
  refusal: { code: 'backing-failed', reason: 'the disk is broken', nextStep: 'repair it' },
} as const;

const tickMs = 100;
/** However long a command may take (on a node whose clock runs at half the speed), an answer later than this is none. */
const commandMsMax = 90_000;

export class SimNode implements Host {
  readonly name: string;
  readonly disk: SimDisk;
  readonly metadata: SimMetadata;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #network: SimNetwork;
  readonly #options: NodeOptions;
  readonly #listener: NodeListener;
  #core: SimulatedCore | null = null;
  /** Counts processes: what an earlier one had asked for is nothing to the present one. */
  #process = 0;
  #published: PeerState | null = null;
  #serving = false;
  #alone = false;
  #nextId = 1;
  /** Client requests that this process has not answered, those of clients that are gone among them. */
  #unanswered = 0;
  readonly #latency = new LatestLatency();
  readonly #requests = new Map<number, PendingRequest>();
  readonly #commands = new Map<number, PendingCommand>();
  /** Requests of clients that have gone; they may still be carried out. */
  readonly #orphans = new Map<number, ClientRequest>();
  /** Told and not taken yet: the core takes one at a time, and none while the process stands still. */
  #events: Event[] = [];
  #working = false;
  #frozen = false;
  #clockAheadMs = 0;
  #death: Death | null = null;
  /** As of the last step; null when nobody has asked since. */
  #status: CoreStatus | null = null;

  constructor(
    world: World,
    network: SimNetwork,
    disk: SimDisk,
    metadata: SimMetadata,
    options: NodeOptions,
    listener: NodeListener,
  ) {
    this.name = options.core.nodeName;
    this.disk = disk;
    this.metadata = metadata;
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#network = network;
    this.#options = options;
    this.#listener = listener;
  }

  // What happens to it.

  /** `alone`: defined without a peer, for this process. */
  start(how: 'mirrored' | 'alone' = 'mirrored'): void {
    if (this.#core !== null) return;
    this.#world.trace(() => `${this.name} starts${how === 'alone' ? ' without a peer' : ''}`);
    const { makeCore } = this.#options;
    this.#alone = how === 'alone';
    const core = this.#alone ? { ...this.#options.core, peerName: null } : this.#options.core;
    this.#core = makeCore(core, { newGeneration: () => this.#prng.bits64() });
    const outcome = { kind: 'opened', image: this.metadata.image() } as const;
    // As the driver does: before anything else the core is told the time.
    this.#tell({ kind: 'tick', nowMs: this.clockMs(), clientLatency: noLatency });
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

  /** Dies in the middle of carrying out what some step soon asks for; null: no longer. */
  dieInStep(how: Death | null): void {
    this.#death = how;
  }

  /** SIGSTOP, or a long collection of garbage: nothing is taken, nothing is answered; its system goes on. */
  freeze(forMs: number): void {
    if (this.#core === null || this.#frozen) return;
    this.#world.trace(() => `${this.name} stands still for ${forMs} ms`);
    this.#frozen = true;
    const process = this.#process;
    this.#world.after(forMs, () => {
      if (process === this.#process) this.thaw();
    });
  }

  thaw(): void {
    if (!this.#frozen) return;
    this.#world.trace(() => `${this.name} goes on, with ${this.#events.length} events waiting`);
    this.#frozen = false;
    // Timers first, or what has arrived: both happen.
    const tick: Event = { kind: 'tick', nowMs: this.clockMs(), clientLatency: noLatency };
    if (this.#prng.chance(0.5)) this.#events.unshift(tick);
    else this.#events.push(tick);
    this.#work();
  }

  jumpClock(byMs: number): void {
    this.#world.trace(() => `the clock of ${this.name} jumps ahead by ${byMs} ms`);
    this.#clockAheadMs += byMs;
  }

  command(command: Command, done: (result: CommandResult | 'gone') => void = () => undefined): void {
    if (this.#core === null) return done('gone');
    const id = this.#nextId++;
    this.#commands.set(id, { command, atMs: this.#world.nowMs, done });
    this.#tell({ kind: 'command', id, command });
  }

  /** The policy, for this process: on loss of the peer, go on. */
  allowAlone(): void {
    this.#tell({ kind: 'configured', policies: { ...this.#options.core, onPeerLoss: 'continue' } });
  }

  request(request: ClientRequest, done: (end: RequestEnd) => void): void {
    if (this.#core === null || !this.#serving) return done({ outcome: 'gone', sectors: null });
    const id = this.#nextId++;
    this.#requests.set(id, { request, atMs: this.#world.nowMs, done });
    this.#unanswered++;
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

  /** Defined without a peer. */
  get isAlone(): boolean {
    return this.#alone;
  }

  get isFrozen(): boolean {
    return this.#frozen;
  }

  get isResponding(): boolean {
    return this.#core !== null && !this.#frozen;
  }

  get isServing(): boolean {
    return this.#serving && !this.#frozen;
  }

  get published(): PeerState | null {
    return this.#published;
  }

  get core(): SimulatedCore | null {
    return this.#core;
  }

  /** As an operator gets it: not at all from a process that is down or stands still. */
  status(): CoreStatus | null {
    if (this.#frozen || this.#core === null) return null;
    // Asked far more often than it changes: only a step can change it.
    this.#status ??= this.#core.status();
    return this.#status;
  }

  get requestsUnderWay(): number {
    return this.#requests.size;
  }

  /** By its policy, when the peer is lost. */
  get goesOnAlone(): boolean {
    return this.#options.core.onPeerLoss === 'continue';
  }

  get activityLogExtents(): number {
    return this.#options.core.activityLogExtents;
  }

  get commandsUnderWay(): number {
    return this.#commands.size;
  }

  /** It looks for a peer it has lost, or records that it goes on without. */
  get isLeaving(): boolean {
    return this.#core?.solo?.isBusy === true;
  }

  get unanswered(): number {
    return this.#unanswered;
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

  packet(session: number, arrived: Packet, payload: Payload | null): void {
    const packet = this.#listener.incoming(this, arrived);
    this.#tell({ kind: 'packet', session, packet, payload });
  }

  /** One event at a time: those that arise while effects are carried out wait until all of them are. */
  #tell(event: Event): void {
    const core = this.#core;
    if (core === null) return;
    if (this.#working || this.#frozen || this.#events.length > 0) {
      this.#events.push(event);
      return this.#work();
    }
    // Nearly always nothing waits.
    this.#working = true;
    this.#step(core, event);
    this.#working = false;
    if (this.#events.length > 0) this.#work();
  }

  #work(): void {
    if (this.#working) return;
    this.#working = true;
    while (!this.#frozen) {
      const event = this.#events.shift();
      if (event === undefined || this.#core === null) break;
      this.#step(this.#core, event);
    }
    this.#working = false;
  }

  #traceEvent(event: Event): void {
    this.#world.trace(() => `${this.name} <- ${describe(event)}`);
  }

  #traceEffect(effect: Effect): void {
    if (effect.kind === 'statusChanged' || effect.kind === 'publishState') return;
    this.#world.trace(() => `${this.name}    ${describe(effect)}`);
  }

  #traceDeath(effect: Effect): void {
    this.#world.trace(() => `-- ${this.name} dies before: ${describe(effect)}`);
  }

  #step(core: SimulatedCore, event: Event): void {
    // Without closures where nobody looks: this is the hottest place of all.
    if (this.#world.isTraced && event.kind !== 'tick') this.#traceEvent(event);
    let effects: readonly Effect[];
    this.#status = null;
    try {
      effects = core.step(event);
    } catch (error) {
      const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return this.#world.violation('crash', `${this.name} threw on ${describe(event)}: ${what}`);
    }
    let left = this.#death === null ? Infinity : this.#dieAfter(effects);
    for (const effect of effects) {
      if (left-- <= 0 && this.#death !== null) {
        const how = this.#death;
        if (this.#world.isTraced) this.#traceDeath(effect);
        this.#listener.onDeath(this, how);
      }
      if (core !== this.#core) return;
      if (this.#world.isTraced) this.#traceEffect(effect);
      this.#options.coverage.onEffect(core, effect);
      this.#carryOut(effect);
    }
  }

  /** After how many of these effects to die; Infinity to wait for a later step. */
  #dieAfter(effects: readonly Effect[]): number {
    const visible = effects.filter(({ kind }) => kind !== 'statusChanged' && kind !== 'publishState').length;
    return visible > 1 && this.#prng.chance(0.2) ? this.#prng.between(1, effects.length - 1) : Infinity;
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case 'writeLocal':
        return this.disk.write(effect.op, effect.offset, effect.length, effect.payload, (outcome) =>
          this.#tell({ kind: 'localWritten', id: effect.id, outcome }),
        );
      case 'readLocal':
        return effect.wantHole
          ? this.disk.readPiece(effect.offset, effect.length, (sectors, holeSectors) =>
              this.#onPiece(effect.id, sectors, holeSectors),
            )
          : this.disk.read(effect.offset, effect.length, (sectors) => this.#onRead(effect.id, sectors));
      case 'readRanges':
      case 'writeRanges':
        return onRanges(this.disk, effect, (event) => this.#tell(event));
      case 'digestLocal':
        return this.disk.read(effect.offset, effect.length, (sectors) => {
          const digests = sectors === null ? null : SimDigests.of(sectors, effect.coarse);
          this.#tell({ kind: 'localDigested', id: effect.id, digests });
        });
      case 'flushLocal':
        return this.disk.flush((outcome) => this.#tell({ kind: 'localFlushed', id: effect.id, outcome }));
      case 'growDisk':
        return this.#growDisk(effect.id, effect.sizeBytes);
      case 'endTurn': {
        const process = this.#process;
        return this.#world.after(0, () => {
          if (process === this.#process) this.#tell({ kind: 'turnEnded' });
        });
      }
      case 'wakeResync': {
        const process = this.#process;
        return this.#world.after(effect.afterMs, () => {
          if (process === this.#process) this.#tell({ kind: 'resyncWoken', nowMs: this.clockMs() });
        });
      }
      case 'commit':
        if ((effect.transaction.superblock?.sizeBytes ?? 0) > this.disk.readySectors * sectorBytes)
          this.#world.violation('contract', `${this.name} records a size that its disk does not have`);
        return this.metadata.commit(effect.transaction, () =>
          this.#tell({ kind: 'metadataCommitted', id: effect.id }),
        );
      case 'send':
        this.#listener.onSend(this, effect.packet);
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
        return this.#listener.onDecided(this, effect.decision);
      case 'closeDisk':
      case 'statusChanged':
      case 'log':
        return;
      case 'openDisk':
        return this.#openDisk(effect.id);
      case 'panic':
        return this.#world.violation('crash', `${this.name} panics: ${effect.message}`);
      case 'stopped':
        this.disk.kill();
        this.metadata.kill();
        this.#network.hostDied(this, false);
        return this.#end();
      default:
        return effect satisfies never;
    }
  }

  #onRead(id: number, sectors: Uint32Array | null): void {
    const payload = sectors === null ? null : new SimPayload(sectors);
    this.#tell({ kind: 'localRead', id, payload, hole: false });
  }

  /** `holeSectors`: 0 when it is data, or could not be read. */
  #onPiece(id: number, sectors: Uint32Array | null, holeSectors: number): void {
    if (holeSectors === 0) return this.#onRead(id, sectors);
    this.#tell({ kind: 'localRead', id, payload: null, hole: true, holeBytes: holeSectors * sectorBytes });
  }

  #growDisk(id: number, sizeBytes: number): void {
    this.disk.grow(this.status()?.sizeBytes ?? 0, sizeBytes, (isGrown) => {
      this.#tell({ kind: 'diskGrown', id, outcome: isGrown ? { kind: 'grown' } : brokenDisk });
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
      this.#tell({
        kind: 'diskOpened',
        id,
        outcome: this.disk.isFailing ? brokenDisk : { kind: 'opened', image: this.metadata.image() },
      });
    });
  }

  #complete(id: number, outcome: ClientOutcome, payload: Payload | null): void {
    this.#unanswered--;
    const pending = this.#requests.get(id);
    const request = pending?.request ?? this.#orphans.get(id);
    if (pending === undefined) this.#orphans.delete(id);
    if (outcome === null && request !== undefined && request.kind !== 'clientRead')
      this.#listener.onAcknowledged(this, request);
    if (pending === undefined) {
      // Of a client that has been disconnected meanwhile; what was not its own would be a bug.
      if (id >= this.#nextId)
        this.#world.violation('contract', `${this.name} completes request ${id}, which nobody made`);
      return;
    }
    this.#requests.delete(id);
    this.#latency.note(pending.request.kind, this.#world.nowMs - pending.atMs);
    pending.done({ outcome, sectors: payload instanceof SimPayload ? payload.sectors : null });
  }

  #commandDone(id: number, result: CommandResult): void {
    const pending = this.#commands.get(id);
    if (pending === undefined)
      return this.#world.violation('contract', `${this.name} answers command ${id} twice or unasked`);
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
    for (const [id, { request }] of this.#requests) this.#orphans.set(id, request);
    this.#requests.clear();
    for (const { done } of requests) done({ outcome: 'gone', sectors: null });
  }

  #end(): void {
    this.#process++;
    this.#core = null;
    this.#status = null;
    this.#unanswered = 0;
    this.#published = null;
    this.#events = [];
    this.#frozen = false;
    this.#death = null;
    const wasServing = this.#serving;
    this.#serving = false;
    this.#dropRequests();
    this.#orphans.clear();
    const commands = [...this.#commands.values()];
    this.#commands.clear();
    for (const { done } of commands) done('gone');
    if (wasServing) this.#listener.onServe(this, false);
  }

  #scheduleTick(): void {
    const process = this.#process;
    this.#world.after((tickMs * (0.9 + this.#prng.int(200) / 1000)) / this.#options.clockSpeed, () => {
      if (process !== this.#process) return;
      if (!this.#frozen) {
        this.#tell({ kind: 'tick', nowMs: this.clockMs(), clientLatency: this.#latency.take() });
        this.#checkCommands();
      }
      this.#scheduleTick();
    });
  }

  clockMs(): number {
    return Math.floor(this.#world.nowMs * this.#options.clockSpeed + this.#clockAheadMs);
  }

  #checkCommands(): void {
    for (const { command, atMs } of this.#commands.values()) {
      if (this.#world.nowMs - atMs > commandMsMax) {
        this.#world.violation('liveness', `${this.name} never answers ${command.kind}`);
      }
    }
  }

  describe(): string {
    return describeNode(this.name, this.#core?.status() ?? null, this.#frozen);
  }
}
