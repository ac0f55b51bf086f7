/**
 * The driver of one resource: hands events to the core one at a time and carries its effects out, in order, on the real
 * disk, metadata, link and clock. An effect that completes at once is an event like any other: it waits its turn.
 */
import { randomBytes } from 'node:crypto';
import type { Command } from '../core/command.ts';
import { Core } from '../core/core.ts';
import type { CorePolicies } from '../core/options.ts';
import type { Decision } from '../core/decision.ts';
import type { Effect } from '../core/effect.ts';
import type { DiskOpenOutcome, Event } from '../core/event.ts';
import type { MetadataImage, Superblock } from '../core/metadata.ts';
import type { PacketKind } from '../core/packet.ts';
import type { CommandResult, Refusal } from '../core/refusal.ts';
import type { Generation } from '../core/vocabulary.ts';
import { openBackingStore } from './backing-opening.ts';
import type { BackingStore } from './backing-store.ts';
import type { Binding } from './backing-identity.ts';
import type { Hashing } from './block-digests.ts';
import { asBytes, CoreDevice } from './core-device.ts';
import { threadBusyPoll } from './busy-poll.ts';
import { LocalIo } from './local-io.ts';
import { PeerLink } from './link.ts';
import type { MetadataStore } from './metadata-store.ts';
import { openMetadata } from './metadata-store.ts';
import { SendBacklog } from './send-backlog.ts';
import { Turn } from './turn.ts';
import type { OpenResult, ResourceNode, ResourceNodeHooks, ResourceNodeOptions } from './resource-node.ts';

const tickIntervalMs = 100;
const maxDecisions = 100;
/**
 * What the peer has sent and this disk has not taken; with more, the peer has to wait. For protocol A and B: its writes are
 * answered before they are written here, and it would go on for as long as there is memory. C is bounded by its clients.
 */
const owedBytesMax = 32 * 1024 * 1024;
/** SIGTERM leaves five seconds to everything (design.md, section 5). */
const stopDeadlineMs = 4_000;

/** Opens metadata, backing device and link, and starts the core. Refusals name what is wrong and what to do. */
export async function openResourceNode(
  options: ResourceNodeOptions,
  hooks: ResourceNodeHooks,
): Promise<OpenResult> {
  const metadata = await openMetadata({
    path: options.metadataPath,
    resourceName: options.resourceName,
    nodeName: options.core.nodeName,
    onFatal: (message) => hooks.panic(message),
  });
  if (!metadata.ok) return metadata;
  const { store: metadataStore, content } = metadata;
  const recorded = content.recorded;
  const giveUp = async (result: Extract<OpenResult, { ok: false }>): Promise<OpenResult> => {
    await metadataStore.close();
    return result;
  };
  // Larger than defined: it has grown, and the definition has not heard of it. The other way round it is another device.
  const sizeBytes = recorded?.image.superblock.sizeBytes ?? options.core.sizeBytes;
  if (sizeBytes < options.core.sizeBytes) {
    return giveUp({
      ok: false,
      refusal: {
        code: 'metadata-foreign',
        reason: `The metadata in ${options.metadataPath} is of a device of ${sizeBytes} bytes, not ${options.core.sizeBytes}.`,
        nextStep: 'Define the resource with its old size and then grow it, or define it under another name.',
      },
    });
  }
  const backing = await openBackingStore({
    path: options.backing.path,
    sizeBytes,
    create: options.backing.create,
    identity: content.identity,
    binding: recorded?.binding ?? null,
  });
  if (!backing.ok) return giveUp(backing);
  const image: MetadataImage = recorded?.image ?? {
    superblock: newSuperblock(options.core.sizeBytes, backing.origin),
    active: [],
    chunks: [],
  };
  if (recorded === null) {
    await new Promise<void>((resolve) =>
      metadataStore.initialise(image.superblock, backing.binding, resolve),
    );
  }
  const driver = new Driver(
    options,
    hooks,
    metadataStore,
    { identity: content.identity, binding: backing.binding },
    backing.store,
  );
  const listening = await driver.start(image);
  if (listening === null) return { ok: true, node: driver };
  await backing.store.close();
  return giveUp(listening);
}

function newSuperblock(sizeBytes: number, origin: Superblock['origin']): Superblock {
  return {
    sizeBytes,
    // A backing found under this identity, though no superblock was written: its creation was cut short before anyone used it.
    origin: origin === 'settled' ? 'created-with-data' : origin,
    current: newGeneration(),
    bitmap: [],
    partedAsPrimary: false,
    history: [],
    disk: 'Consistent',
    primary: false,
    writer: false,
    linked: false,
    peerExcluded: false,
    detached: false,
  };
}

function newGeneration(): Generation {
  for (;;) {
    const generation = randomBytes(8).readBigUInt64BE();
    if (generation !== 0n) return generation;
  }
}

/** Payloads of these were read from the own disk for the packet alone: nobody else has, or will have, a look at them. */
const readOnce: ReadonlySet<PacketKind> = new Set(['resyncData', 'scatteredData', 'readData']);

const stopping: Refusal = {
  code: 'shutting-down',
  reason: 'this resource is stopping',
  nextStep: 'start it again',
};

type LocalWrite = Extract<Effect, { kind: 'writeLocal' }>;

interface BackingClaim {
  readonly identity: string;
  readonly binding: Binding;
}

class Driver implements ResourceNode {
  readonly #options: ResourceNodeOptions;
  readonly #hooks: ResourceNodeHooks;
  readonly #metadata: MetadataStore;
  readonly #claim: BackingClaim;
  readonly #core: Core;
  readonly #link: PeerLink | null;
  readonly #io: LocalIo;
  readonly #commands = new Map<number, (result: CommandResult) => void>();
  readonly #decisions: Decision[] = [];
  readonly device: CoreDevice;
  replicationPort = 0;
  #queue: Event[] = [];
  #running = false;
  /** The event whose effects are carried out. */
  #event: Event['kind'] | null = null;
  /** The core is to be told that the turn has ended, and has not been yet. */
  #turnEnd: NodeJS.Immediate | null = null;
  readonly #turn = new Turn();
  readonly #backlog = new SendBacklog(() => this.#link?.bufferedBytes ?? 0);
  /** Writes of this turn that wait until its packets are on their way: the peer then works at the same time. */
  #localWrites: LocalWrite[] = [];
  #nextCommand = 1;
  #ticker: NodeJS.Timeout | null = null;
  #state: 'running' | 'panicked' | 'stopped' = 'running';
  #onStopped: () => void = () => undefined;
  /** The last `openDisk`, until it is answered. */
  #opening: Promise<void> = Promise.resolve();

  constructor(
    options: ResourceNodeOptions,
    hooks: ResourceNodeHooks,
    metadata: MetadataStore,
    claim: BackingClaim,
    backing: BackingStore,
  ) {
    this.#options = options;
    this.#hooks = hooks;
    this.#metadata = metadata;
    this.#claim = claim;
    this.#core = new Core(options.core, { newGeneration });
    this.#io = new LocalIo(
      backing,
      (event) => this.#post(event),
      (data) => {
        // On a Secondary this is all that is done with what came to be written.
        if (this.#core.role === 'Secondary') this.#link?.recycle(data);
      },
    );
    this.device = new CoreDevice(this.#core, this.#io, (event) => this.#post(event), this.#backlog);
    this.#link = options.replication === null ? null : this.#createLink(options.replication);
  }

  #createLink(replication: NonNullable<ResourceNodeOptions['replication']>): PeerLink {
    const { nodeName, peerName, handshakeTimeoutMs } = this.#options.core;
    return new PeerLink({
      resourceName: this.#options.resourceName,
      nodeName,
      peerName: peerName ?? '',
      secret: replication.secret,
      listen: replication.listen,
      peerAddress: replication.peerAddress,
      connectIntervalMs: replication.connectIntervalMs,
      probeTimeoutMs: replication.probeTimeoutMs,
      handshakeTimeoutMs,
      receiveInto: this.#options.receiveInto,
      atTurnEnd: (then) => this.#turn.atEnd(then),
      hooks: {
        onLinkUp: (session) => this.#post({ kind: 'linkUp', session }),
        onLinkDown: (session, why, detail) => {
          this.#post({ kind: 'linkDown', session, why, detail });
          this.#backlog.release();
        },
        onLinkRefused: (detail) => this.#post({ kind: 'linkRefused', detail }),
        onPacket: (session, packet, payload) => {
          threadBusyPoll.onArrival();
          this.#post({ kind: 'packet', session, packet, payload });
        },
        isOverrun: () =>
          this.#core.options.protocol !== 'C' && this.#core.peerWrites.owedBytes > owedBytesMax,
        onDrain: () => this.#backlog.release(),
        arePayloadsSettled: () => this.#core.peerWrites.size === 0 && this.#core.inbound.size === 0,
      },
    });
  }

  /** Null when all is well; otherwise the refusal, with nothing left running. */
  async start(image: MetadataImage): Promise<Extract<OpenResult, { ok: false }> | null> {
    if (this.#link !== null) {
      const listening = await this.#link.start();
      if (!listening.ok) {
        const { host, port } = this.#options.replication?.listen ?? { host: '', port: 0 };
        const isTaken = listening.reason === 'address-in-use';
        return {
          ok: false,
          refusal: {
            code: isTaken ? 'address-in-use' : 'address-unusable',
            reason: `The replication address ${host}:${port} cannot be listened on: ${listening.detail}.`,
            nextStep: isTaken
              ? 'End what uses it, or choose another replication.listen.'
              : 'Choose an address of this machine.',
          },
        };
      }
      this.replicationPort = listening.port;
    }
    this.#tick();
    this.#post({ kind: 'diskOpened', id: 0, outcome: { kind: 'opened', image } });
    this.#ticker = setInterval(() => this.#tick(), tickIntervalMs);
    return null;
  }

  #tick(): void {
    this.#post({ kind: 'tick', nowMs: performance.now(), clientLatency: this.device.takeLatency() });
    // Also when a session was closed from here, or its socket had never been full.
    this.#backlog.release();
    // Writes may have ended without the disk.
    this.#link?.goOn();
  }

  status(): ReturnType<Core['status']> {
    return this.#core.status();
  }

  command(command: Command): Promise<CommandResult> {
    if (this.#state !== 'running') {
      return Promise.resolve({ ok: false, refusal: stopping });
    }
    return new Promise((resolve) => {
      const id = this.#nextCommand++;
      this.#commands.set(id, resolve);
      this.#post({ kind: 'command', id, command });
    });
  }

  decisions(): readonly Decision[] {
    return this.#decisions;
  }

  configure(policies: CorePolicies): void {
    this.#post({ kind: 'configured', policies });
  }

  setClientCount(count: number): void {
    this.#turn.setClientCount(count);
    this.#post({ kind: 'clients', count });
  }

  async stop(): Promise<void> {
    if (this.#state === 'stopped') return;
    if (this.#state === 'running') {
      await new Promise<void>((resolve) => {
        const deadline = setTimeout(() => {
          this.#hooks.log(
            'warn',
            `not stopped cleanly within ${stopDeadlineMs} ms: the next start recovers as after a crash`,
          );
          resolve();
        }, stopDeadlineMs);
        this.#onStopped = () => {
          clearTimeout(deadline);
          resolve();
        };
        void this.command({ kind: 'stop' });
      });
    }
    this.#state = 'stopped';
    if (this.#ticker !== null) clearInterval(this.#ticker);
    for (const resolve of this.#commands.values()) resolve({ ok: false, refusal: stopping });
    this.#commands.clear();
    await this.#link?.stop();
    // Nobody takes anything any more, and no tick comes: the front waits for every answer before it closes.
    this.#backlog.release();
    this.device.shutDown();
    await this.#io.close();
    await this.#opening;
    await this.#metadata.close();
  }

  /** Events that arise while effects are carried out wait until all effects of the step are. */
  #post(event: Event): void {
    if (this.#state !== 'running') return;
    this.#queue.push(event);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let at = 0; at < this.#queue.length; at++) {
        const next = this.#queue[at];
        if (next === undefined || !this.#isRunning()) break;
        this.#event = next.kind;
        for (const effect of this.#core.step(next)) this.#carryOut(effect);
        if (next.kind === 'metadataCommitted') this.#endTurnNow();
        else if (next.kind === 'localWritten') this.#link?.goOn();
      }
    } catch (error) {
      // A bug: what the core holds is not to be trusted, so nothing more is acknowledged.
      this.#panic(error instanceof Error ? (error.stack ?? error.message) : String(error));
    } finally {
      this.#queue = [];
      this.#event = null;
      this.#running = false;
    }
  }

  #isRunning(): boolean {
    return this.#state === 'running';
  }

  #panic(message: string): void {
    if (this.#state !== 'running') return;
    this.#state = 'panicked';
    this.#hooks.panic(message);
  }

  #carryOut(effect: Effect): void {
    if (!this.#isRunning()) return;
    switch (effect.kind) {
      case 'writeLocal':
        return this.#isWritingSoon() ? this.#writeSoon(effect) : this.#write(effect);
      case 'readLocal':
        return this.#io.read(effect.id, effect.offset, effect.length, effect.wantHole);
      case 'readRanges':
        return this.#io.readRanges(effect.id, effect.ranges);
      case 'writeRanges':
        return this.#io.writeRanges(effect.id, effect.op, effect.ranges, asBytes(effect.payload));
      case 'digestLocal':
        return this.#io.digest(effect.id, effect.offset, effect.length, this.#hashingOf(effect));
      case 'flushLocal':
        return this.#io.flush(effect.id);
      case 'growDisk':
        return this.#io.grow(effect.id, effect.sizeBytes);
      case 'endTurn':
        return this.#endTurn();
      case 'wakeResync':
        setTimeout(() => this.#post({ kind: 'resyncWoken', nowMs: performance.now() }), effect.afterMs);
        return;
      case 'commit':
        return this.#metadata.commit(effect.transaction, () =>
          this.#post({ kind: 'metadataCommitted', id: effect.id }),
        );
      case 'send':
        return this.#send(effect);
      case 'wantLink':
        return this.#link?.setWanted(effect.want);
      case 'closeLink':
        return this.#link?.closeSession(effect.session, effect.why);
      case 'probe':
        void this.#link?.probe().then((outcome) => this.#post({ kind: 'probed', id: effect.id, outcome }));
        return;
      case 'publishState':
        return this.#link?.publishState(effect.state);
      case 'complete':
        return this.device.complete(effect.id, effect.outcome, asBytes(effect.payload), effect.payloadFree);
      case 'commandDone': {
        const resolve = this.#commands.get(effect.id);
        this.#commands.delete(effect.id);
        resolve?.(effect.result);
        return;
      }
      case 'serveClients':
        return this.#hooks.serveClients(effect.serve);
      case 'closeDisk':
        this.#writeAll();
        return this.#io.detach();
      case 'openDisk':
        this.#opening = this.#openDisk().then((outcome) =>
          this.#post({ kind: 'diskOpened', id: effect.id, outcome }),
        );
        return;
      case 'statusChanged':
        return this.#hooks.statusChanged();
      case 'decided':
        this.#decisions.push(effect.decision);
        if (this.#decisions.length > maxDecisions) this.#decisions.shift();
        return this.#hooks.decided(effect.decision);
      case 'log':
        return this.#hooks.log(effect.level, effect.message);
      case 'panic':
        return this.#panic(effect.message);
      case 'stopped':
        return this.#onStopped();
      default:
        return effect satisfies never;
    }
  }

  /**
   * As of now, for the whole range. The core may have asked for an earlier session: what is hashed for that one is
   * dropped, and if it were not, it would differ from all that the peer has.
   */
  #hashingOf({ coarse }: Extract<Effect, { kind: 'digestLocal' }>): Hashing | null {
    return coarse ? (this.#link?.coarseHash ?? null) : 'fine';
  }

  #send({ session, packet, payload }: Extract<Effect, { kind: 'send' }>): void {
    const data = asBytes(payload);
    if (data === null || !readOnce.has(packet.kind)) return this.#link?.send(session, packet, data);
    this.#link?.send(session, packet, data, () => this.#io.store?.recycle(data));
  }

  /** Behind all that the sockets have brought, of every client. */
  #endTurn(): void {
    this.#turnEnd = setImmediate(() => {
      this.#turnEnd = null;
      this.#post({ kind: 'turnEnded' });
    });
  }

  /**
   * What has waited for a commit was here before it ended: the next commit sets out at once, and is under way while the writes
   * that this one lets go are done.
   */
  #endTurnNow(): void {
    if (this.#turnEnd === null) return;
    clearImmediate(this.#turnEnd);
    this.#turnEnd = null;
    this.#queue.push({ kind: 'turnEnded' });
  }

  /** What the peer, or the metadata thread, can be given first, it has while this thread writes. */
  #isWritingSoon(): boolean {
    if (this.#event === 'metadataCommitted') return true;
    return this.#core.isMirroring && this.#core.role === 'Primary';
  }

  /** At the end of the turn, once what it sends is with the network. */
  #writeSoon(effect: LocalWrite): void {
    if (this.#localWrites.push(effect) > 1) return;
    this.#turn.atEnd(() => {
      this.#link?.flush();
      this.#writeAll();
    });
  }

  #writeAll(): void {
    const writes = this.#localWrites;
    if (writes.length === 0) return;
    this.#localWrites = [];
    for (const effect of writes) if (this.#isRunning()) this.#write(effect);
  }

  #write({ id, op, offset, length, payload, noHole }: LocalWrite): void {
    this.#io.write(id, op, offset, length, asBytes(payload), noHole);
  }

  async #openDisk(): Promise<DiskOpenOutcome> {
    await this.#io.close();
    if (!this.#isRunning()) return { kind: 'refused', refusal: stopping };
    const opened = await openBackingStore({
      path: this.#options.backing.path,
      sizeBytes: this.#core.options.sizeBytes,
      create: false,
      identity: this.#claim.identity,
      binding: this.#claim.binding,
    });
    if (!opened.ok) return { kind: 'refused', refusal: opened.refusal };
    if (!this.#isRunning()) {
      // Nobody would close it any more, and its lock would keep out whoever defines the resource anew.
      await opened.store.close().catch(() => undefined);
      return { kind: 'refused', refusal: stopping };
    }
    this.#io.attach(opened.store);
    return { kind: 'opened', image: { superblock: this.#core.meta.superblock, active: [], chunks: [] } };
  }
}
