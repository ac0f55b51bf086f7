/**
 * Two cores, `a` and `b`, on models of disk, metadata and link, without time or chance: whatever a core asks for waits in
 * one list until the test says `settle`, in the order it was asked for. A hold keeps one kind of step back, so that a test
 * can stand between any two steps. Disks hold one number per block, the stamp of the write that filled it.
 */
import { Core } from '../../replicator/core/core.ts';
import type { Command } from '../../replicator/core/command.ts';
import type { Decision } from '../../replicator/core/decision.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { ClientOutcome, DiskOutcome, Event, LinkDownReason } from '../../replicator/core/event.ts';
import type { MetadataImage, Superblock } from '../../replicator/core/metadata.ts';
import { defaultCoreOptions } from '../../replicator/core/options.ts';
import type { CoreOptions, CorePolicies } from '../../replicator/core/options.ts';
import type { Packet, Payload, PeerState } from '../../replicator/core/packet.ts';
import type { ClientLatency } from '../../replicator/core/resync-rate.ts';
import { noLatency } from '../../replicator/core/resync-rate.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import { blockBytes, extentBytes } from '../../replicator/core/vocabulary.ts';
import {
  DiskModel,
  MetadataModel,
  onRanges,
  readAnswer,
  StampDigests,
  Stamps,
  stepOf,
} from './core-models.ts';
import type { StepKind } from './core-models.ts';

import type { Asked, Name, Node, Request, Waiting, Wake } from './two-cores-parts.ts';

export type { StepKind } from './core-models.ts';
export type { Asked, Name, Request } from './two-cores-parts.ts';

export const names: readonly Name[] = ['a', 'b'];
export const blocksPerExtent = extentBytes / blockBytes;

export interface PairOptions {
  readonly core?: Partial<CoreOptions>;
  readonly a?: Partial<Superblock>;
  readonly b?: Partial<Superblock>;
  /** Extents of the device; 8 unless told. */
  readonly extents?: number;
}

export class TwoCores {
  readonly sizeBytes: number;
  readonly #nodes: Readonly<Record<Name, Node>>;
  #waiting: Waiting[] = [];
  /** What `wakeResync` asked for, the next one first. */
  #wakes: Wake[] = [];
  readonly #holds = new Set<(step: Waiting) => boolean>();
  readonly #requests = new Map<number, { request: Request; written: { block: number; stamp: number }[] }>();
  readonly #asked = new Map<number, Asked>();
  /** Per block what a reader may find: the last acknowledged stamp, and those that may or may not have landed. */
  readonly #allowed = new Map<number, { id: number; stamp: number }[]>();
  #nextId = 1;
  #nextSession = 1;
  #isCut = false;
  readonly #latency: Record<Name, ClientLatency> = { a: noLatency, b: noLatency };
  nowMs = 1000;
  /** Whether or not there is a link. */
  losesProbes = false;

  constructor(options: PairOptions = {}) {
    this.sizeBytes = (options.extents ?? 8) * extentBytes;
    const make = (name: Name, superblock: Partial<Superblock>): Node => ({
      name,
      options: {
        ...defaultCoreOptions,
        ...{ nodeName: name, peerName: other(name), sizeBytes: this.sizeBytes, activityLogExtents: 7 },
        ...options.core,
      },
      disk: new DiskModel(this.sizeBytes / blockBytes),
      metadata: new MetadataModel({
        ...{ sizeBytes: this.sizeBytes, origin: 'created-empty', current: name === 'a' ? 0xan : 0xbn },
        ...{ bitmap: [], history: [], disk: 'Consistent', primary: false, writer: false, linked: false },
        ...{ partedAsPrimary: false, peerExcluded: false, detached: false },
        ...superblock,
      }),
      core: null,
      process: 0,
      wantLink: false,
      session: null,
      published: null,
      serving: false,
      generations: 0,
      decisions: [],
      sent: [],
    });
    this.#nodes = { a: make('a', options.a ?? {}), b: make('b', options.b ?? {}) };
  }

  // What happens.

  start(...which: Name[]): void {
    for (const name of which.length > 0 ? which : names) {
      const node = this.#nodes[name];
      const ids = { newGeneration: () => BigInt(++node.generations) * 256n + (name === 'a' ? 0xan : 0xbn) };
      node.core = new Core(node.options, ids);
      this.#tell(node, { kind: 'tick', nowMs: this.nowMs, clientLatency: this.#latency[name] });
      this.#tell(node, {
        kind: 'diskOpened',
        id: 0,
        outcome: { kind: 'opened', image: node.metadata.image() },
      });
    }
    this.#connect();
  }

  /** Carries out everything that is not held, in order, or in the order that `choose` (an index below `count`) says. */
  settle(choose: (count: number) => number = () => 0): void {
    for (let steps = 0; this.#step(choose); steps++) {
      if (steps > 100_000) throw new Error(`never settles; last: ${this.#waiting.map(label).join(' ')}`);
    }
  }

  /** Carries out at most `count` steps; answers how many there were. */
  steps(count: number): number {
    let done = 0;
    while (done < count && this.#step(() => 0)) done++;
    return done;
  }

  /** Carries out one step that is not held; whether there was one. */
  settleSome(choose: (count: number) => number): boolean {
    return this.#step(choose);
  }

  /** Keeps steps of a kind back on a node, and what has to come after them; the returned function lets go. */
  hold(kind: StepKind, name: Name, more: () => boolean = () => true): () => void {
    const hold = (step: Waiting): boolean => step.kind === kind && step.node === name && more();
    this.#holds.add(hold);
    return () => void this.#holds.delete(hold);
  }

  /** Keeps every packet to that node back. */
  holdPacketsTo(name: Name): () => void {
    const hold = (step: Waiting): boolean => step.kind.startsWith('packet:') && step.node === name;
    this.#holds.add(hold);
    return () => void this.#holds.delete(hold);
  }

  /** Whether a step of this kind waits on the node, held or not. */
  isWaiting(kind: StepKind, name: Name): boolean {
    return this.#waiting.some((step) => step.kind === kind && step.node === name);
  }

  /** Time passes on both nodes, in ticks of `everyMs`, all else settling in between. */
  tick(ms: number, everyMs = 100, which: readonly Name[] = names): void {
    for (let passed = 0; passed < ms; passed += everyMs) {
      const nextMs = this.nowMs + everyMs;
      this.#wakeUntil(nextMs, which);
      this.nowMs = nextMs;
      for (const name of which)
        this.#tell(this.#nodes[name], {
          kind: 'tick',
          nowMs: this.nowMs,
          clientLatency: this.#latency[name],
        });
      this.settle();
    }
  }

  /** Less than a tick: nobody is told of it but who asked to be woken. */
  timePasses(ms: number): void {
    const untilMs = this.nowMs + ms;
    this.#wakeUntil(untilMs, names);
    this.nowMs = untilMs;
  }

  /** What every tick from now on says of this node's clients. */
  setLatency(name: Name, latency: Partial<ClientLatency>): void {
    this.#latency[name] = { ...noLatency, ...latency };
  }

  /** The network fails: what is under way is lost, both are told (hold `linkDown` to delay that), probes fail. */
  cutLink(): void {
    this.#isCut = true;
    this.#dropSession(['a', 'b'], 'NetworkFailure');
  }

  /** What is under way is lost, and a new session may begin at once. */
  breakSession(): void {
    this.#dropSession(['a', 'b'], 'BrokenPipe');
    this.#connect();
  }

  healLink(): void {
    this.#isCut = false;
    this.#connect();
  }

  /** `kill` leaves what was written; `power` loses what was not flushed. Metadata not yet durable is lost in both. */
  crash(name: Name, how: 'kill' | 'power' = 'kill'): void {
    const node = this.#nodes[name];
    node.core = null;
    node.process++;
    node.wantLink = false;
    node.published = null;
    node.serving = false;
    this.#waiting = this.#waiting.filter((step) => step.node !== name || step.kind.startsWith('packet:'));
    node.metadata.dropPending();
    if (how === 'power') node.disk.losePower();
    if (node.session !== null) this.#dropSession([other(name)], 'BrokenPipe');
    node.session = null;
  }

  restart(name: Name): void {
    this.start(name);
  }

  // Requests.

  write(name: Name, block: number, stamp: number, options: { count?: number; fua?: boolean } = {}): Request {
    const count = options.count ?? 1;
    const payload = new Stamps(new Array<number>(count).fill(stamp));
    return this.#request(name, 'write', block, count, stamp, (id) => ({
      ...{ kind: 'clientWrite', id, offset: block * blockBytes, length: count * blockBytes },
      ...{ payload, fua: options.fua ?? false },
    }));
  }

  trim(name: Name, block: number, count = 1): Request {
    return this.#request(name, 'trim', block, count, 0, (id) => ({
      ...{ kind: 'clientTrim', id, offset: block * blockBytes, length: count * blockBytes },
      ...{ fua: false, noHole: false },
    }));
  }

  zeroes(name: Name, block: number, count = 1): Request {
    return this.#request(name, 'zeroes', block, count, 0, (id) => ({
      ...{ kind: 'clientZeroes', id, offset: block * blockBytes, length: count * blockBytes },
      ...{ fua: false, noHole: true },
    }));
  }

  read(name: Name, block: number, count = 1): Request {
    return this.#request(name, 'read', block, 0, 0, (id) => ({
      ...{ kind: 'clientRead', id, offset: block * blockBytes, length: count * blockBytes },
    }));
  }

  flush(name: Name): Request {
    return this.#request(name, 'flush', 0, 0, 0, (id) => ({ kind: 'clientFlush', id }));
  }

  command(name: Name, command: Command): Asked {
    const id = this.#nextId++;
    const asked: Asked = { result: null };
    this.#asked.set(id, asked);
    this.#tell(this.#nodes[name], { kind: 'command', id, command });
    return asked;
  }

  /** Other limits and policies, from now on and after a restart. */
  configure(name: Name, policies: Partial<CorePolicies>): void {
    const node = this.#nodes[name];
    node.options = { ...node.options, ...policies };
    this.#tell(node, { kind: 'configured', policies: node.options });
  }

  /** The definition that the next start of the node finds: with that peer, or with none. */
  define(name: Name, peerName: string | null): void {
    const node = this.#nodes[name];
    node.options = { ...node.options, peerName };
  }

  setClients(name: Name, count: number): void {
    this.#tell(this.#nodes[name], { kind: 'clients', count });
  }

  // What can be seen.

  status(name: Name): CoreStatus {
    return this.core(name).status();
  }

  core(name: Name): Core {
    const { core } = this.#nodes[name];
    if (core === null) throw new Error(`${name} is down`);
    return core;
  }

  isUp(name: Name): boolean {
    return this.#nodes[name].core !== null;
  }

  disk(name: Name): DiskModel {
    return this.#nodes[name].disk;
  }

  /** What a restart would find. */
  metadata(name: Name): MetadataModel {
    return this.#nodes[name].metadata;
  }

  published(name: Name): PeerState | null {
    return this.#nodes[name].published;
  }

  isServing(name: Name): boolean {
    return this.#nodes[name].serving;
  }

  decisions(name: Name): readonly Decision[] {
    return this.#nodes[name].decisions;
  }

  /** Every packet this node has sent, delivered or not. */
  sent(name: Name): readonly Packet[] {
    return this.#nodes[name].sent;
  }

  /** Blocks marked out of sync on the node, ascending. */
  marked(name: Name): readonly number[] {
    const runs = [...this.core(name).outOfSync.bits.runs()];
    return runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
  }

  /** Blocks in which the disks differ, as a reader of the backing devices would see. */
  differences(): readonly number[] {
    return this.#nodes.a.disk.differences(this.#nodes.b.disk);
  }

  /** Blocks where the node's disk has neither the acknowledged data nor data of a write that may have landed. */
  lostBlocks(name: Name): readonly number[] {
    const { visible } = this.#nodes[name].disk;
    return [...this.#allowed]
      .filter(([block, allowed]) => !allowed.some(({ stamp }) => stamp === (visible[block] ?? 0)))
      .map(([block]) => block);
  }

  // The works.

  #wakeUntil(untilMs: number, which: readonly Name[]): void {
    for (;;) {
      const at = this.#wakes.findIndex(({ node, dueMs }) => dueMs < untilMs && which.includes(node.name));
      const [wake] = at < 0 ? [] : this.#wakes.splice(at, 1);
      if (wake === undefined) return;
      this.nowMs = Math.max(this.nowMs, wake.dueMs);
      if (wake.process !== wake.node.process) continue;
      this.#tell(wake.node, { kind: 'resyncWoken', nowMs: this.nowMs });
      this.settle();
    }
  }

  #request(
    name: Name,
    kind: Request['kind'],
    block: number,
    count: number,
    stamp: number,
    event: (id: number) => Event,
  ): Request {
    const id = this.#nextId++;
    const request: Request = { node: name, kind, outcome: 'pending', stamps: [] };
    const written = Array.from({ length: count }, (_, i) => ({ block: block + i, stamp }));
    for (const one of written) {
      const allowed = this.#allowed.get(one.block) ?? [{ id: 0, stamp: 0 }];
      this.#allowed.set(one.block, [...allowed, { id, stamp }]);
    }
    this.#requests.set(id, { request, written });
    this.#tell(this.#nodes[name], event(id));
    return request;
  }

  #complete(id: number, outcome: ClientOutcome, payload: Payload | null): void {
    const pending = this.#requests.get(id);
    if (pending === undefined) throw new Error(`request ${id} is answered twice or was never made`);
    this.#requests.delete(id);
    pending.request.outcome = outcome ?? 'ok';
    if (payload instanceof Stamps) pending.request.stamps = payload.values;
    if (outcome !== null) return;
    // Acknowledged: what came before it and is not under way any more can no longer be found.
    for (const { block } of pending.written) {
      const allowed = this.#allowed.get(block) ?? [];
      this.#allowed.set(
        block,
        allowed.filter((one) => one.id >= id || this.#requests.has(one.id)),
      );
    }
  }

  #step(choose: (count: number) => number): boolean {
    const blocked = new Set<string>();
    const ready: Waiting[] = [];
    for (const step of this.#waiting) {
      const isBlocked = step.lane !== null && blocked.has(step.lane);
      const isHeld = [...this.#holds].some((hold) => hold(step));
      if (!isBlocked && !isHeld) ready.push(step);
      if (step.lane !== null) blocked.add(step.lane);
    }
    if (ready.length === 0) return false;
    const step = ready[choose(ready.length)];
    if (step === undefined) throw new Error('a choice out of range');
    this.#waiting.splice(this.#waiting.indexOf(step), 1);
    step.run();
    return true;
  }

  #later(node: Node, kind: StepKind, lane: string | null, run: () => void): void {
    this.#waiting.push({ kind, node: node.name, lane, process: node.process, run });
  }

  #tell(node: Node, event: Event): void {
    if (node.core === null) return;
    const { process } = node;
    for (const effect of node.core.step(event)) {
      if (process === node.process) this.#carryOut(node, effect);
    }
  }

  #carryOut(node: Node, effect: Effect): void {
    switch (effect.kind) {
      case 'writeLocal':
        return this.#later(node, 'write', null, () => {
          const outcome = node.disk.write(effect.op, effect.offset, effect.length, effect.payload);
          this.#tell(node, { kind: 'localWritten', id: effect.id, outcome });
        });
      case 'readLocal':
        return this.#later(node, 'read', null, () => {
          const answer = readAnswer(node.disk, effect);
          this.#tell(node, { kind: 'localRead', id: effect.id, ...answer });
        });
      case 'readRanges':
      case 'writeRanges':
        return this.#later(node, effect.kind === 'readRanges' ? 'read' : 'write', null, () =>
          this.#tell(node, onRanges(node.disk, effect)),
        );
      case 'digestLocal':
        return this.#later(node, 'digest', null, () => {
          const stamps = node.disk.read(effect.offset, effect.length);
          const digests = stamps === null ? null : new StampDigests(stamps.values, effect.coarse);
          this.#tell(node, { kind: 'localDigested', id: effect.id, digests });
        });
      case 'flushLocal': {
        const covered = node.disk.beginFlush();
        return this.#later(node, 'flush', null, () => {
          const outcome: DiskOutcome = node.disk.endFlush(covered);
          this.#tell(node, { kind: 'localFlushed', id: effect.id, outcome });
        });
      }
      case 'growDisk':
        return this.#later(node, 'growDisk', null, () => this.#growDisk(node, effect.id, effect.sizeBytes));
      case 'endTurn':
        return this.#later(node, 'turn', null, () => this.#tell(node, { kind: 'turnEnded' }));
      case 'wakeResync': {
        const { process } = node;
        const wake = { dueMs: this.nowMs + effect.afterMs, node, process };
        this.#wakes = [...this.#wakes, wake].toSorted((a, b) => a.dueMs - b.dueMs);
        return;
      }
      case 'commit':
        if ((effect.transaction.superblock?.sizeBytes ?? 0) > node.disk.visible.length * blockBytes)
          throw new Error(`${node.name} records a size that its disk does not have`);
        node.metadata.issue(effect.transaction);
        return this.#later(node, 'commit', `commit ${node.name}`, () => {
          node.metadata.commitNext();
          this.#later(node, 'committed', `committed ${node.name}`, () =>
            this.#tell(node, { kind: 'metadataCommitted', id: effect.id }),
          );
        });
      case 'send':
        return this.#send(node, effect.session, effect.packet, effect.payload);
      case 'wantLink':
        node.wantLink = effect.want;
        return this.#connect();
      case 'closeLink':
        return this.#closeLink(node, effect.session, effect.why);
      case 'probe':
        return this.#later(node, 'probe', null, () => this.#probe(node, effect.id));
      case 'publishState':
        node.published = effect.state;
        return;
      case 'complete':
        return this.#complete(effect.id, effect.outcome, effect.payload);
      case 'commandDone': {
        const asked = this.#asked.get(effect.id);
        if (asked === undefined) throw new Error(`command ${effect.id} is answered twice or was never given`);
        this.#asked.delete(effect.id);
        asked.result = effect.result;
        return;
      }
      case 'serveClients':
        node.serving = effect.serve;
        return;
      case 'openDisk':
        // In the lane of commits: the store is read once everything asked for before is durable.
        return this.#later(node, 'openDisk', `commit ${node.name}`, () => this.#openDisk(node, effect.id));
      case 'decided':
        node.decisions.push(effect.decision);
        return;
      case 'panic':
        throw new Error(`${node.name} panics: ${effect.message}`);
      case 'stopped':
        return this.crash(node.name);
      case 'closeDisk':
      case 'statusChanged':
      case 'log':
        return;
      default:
        return effect satisfies never;
    }
  }

  #growDisk(node: Node, id: number, sizeBytes: number): void {
    const before = (node.core?.options.sizeBytes ?? 0) / blockBytes;
    const refusal = { code: 'backing-too-small', reason: 'it is full', nextStep: 'extend it' } as const;
    const outcome = node.disk.grow(before, sizeBytes / blockBytes)
      ? ({ kind: 'grown' } as const)
      : ({ kind: 'refused', refusal } as const);
    this.#tell(node, { kind: 'diskGrown', id, outcome });
  }

  #openDisk(node: Node, id: number): void {
    const image: MetadataImage = node.metadata.image();
    const refusal = { code: 'backing-failed', reason: 'it is broken', nextStep: 'repair it' } as const;
    const outcome = node.disk.isBroken
      ? ({ kind: 'refused', refusal } as const)
      : ({ kind: 'opened', image } as const);
    this.#tell(node, { kind: 'diskOpened', id, outcome });
  }

  #send(node: Node, session: number, packet: Packet, payload: Payload | null): void {
    node.sent.push(packet);
    const peer = this.#nodes[other(node.name)];
    if (node.session !== session) return;
    this.#later(peer, stepOf(packet), `to ${peer.name}`, () => {
      if (peer.session === session) this.#tell(peer, { kind: 'packet', session, packet, payload });
    });
  }

  #probe(node: Node, id: number): void {
    const state = this.#isCut || this.losesProbes ? null : this.#nodes[other(node.name)].published;
    if (state !== null) return this.#tell(node, { kind: 'probed', id, outcome: { kind: 'answered', state } });
    this.#tell(node, { kind: 'probed', id, outcome: { kind: 'unreachable', detail: 'no answer' } });
  }

  #connect(): void {
    const { a, b } = this.#nodes;
    if (this.#isCut || !a.wantLink || !b.wantLink || a.session !== null || b.session !== null) return;
    const session = this.#nextSession++;
    for (const node of [a, b]) {
      node.session = session;
      this.#later(node, 'linkUp', `to ${node.name}`, () => this.#tell(node, { kind: 'linkUp', session }));
    }
  }

  /** What the one who closes has sent still arrives; what the other sends does not. */
  #closeLink(node: Node, session: number, why: LinkDownReason): void {
    if (node.session !== session) return;
    node.session = null;
    this.#forget([node.name]);
    const peer = this.#nodes[other(node.name)];
    this.#later(peer, 'linkDown', `to ${peer.name}`, () => this.#linkDown(peer, session, why));
  }

  #dropSession(told: readonly Name[], why: LinkDownReason): void {
    this.#forget(names);
    for (const name of told) {
      const node = this.#nodes[name];
      const { session } = node;
      if (session === null) continue;
      this.#later(node, 'linkDown', `to ${name}`, () => this.#linkDown(node, session, why));
    }
  }

  #linkDown(node: Node, session: number, why: LinkDownReason): void {
    // Both have closed it.
    if (node.session !== session) return this.#connect();
    node.session = null;
    this.#tell(node, { kind: 'linkDown', session, why, detail: 'the test says so' });
    this.#connect();
  }

  /** Drops what is under way to these nodes. */
  #forget(to: readonly Name[]): void {
    this.#waiting = this.#waiting.filter(
      (step) => !(to.includes(step.node) && (step.kind.startsWith('packet:') || step.kind === 'linkUp')),
    );
  }
}

export function other(name: Name): Name {
  return name === 'a' ? 'b' : 'a';
}

function label(step: Waiting): string {
  return `${step.node}/${step.kind}`;
}
