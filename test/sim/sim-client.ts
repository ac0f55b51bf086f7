/**
 * The users of the device: a few workers on one connection to whichever node serves, each with one request at a time. They
 * check what they read, and tell the expectations what they were promised.
 */
import type { Expectations, WriteRecord } from './expectations.ts';
import type { Prng } from './prng.ts';
import { sectorBytes, SimPayload } from './sim-disk.ts';
import type { ClientRequest, RequestEnd } from './node-listener.ts';
import type { SimNode } from './sim-node.ts';
import type { World } from './world.ts';

/** What one of the last reads covers. */
const verifySectors = 4096;

export interface ClientOptions {
  readonly workers: number;
  /** Between two requests of a worker, at most. */
  readonly thinkMs: number;
  readonly sectorCount: number;
  /** Places that get most of the requests. */
  readonly hotSpots: number;
  readonly hugeTrims: boolean;
}

export interface ClientListener {
  /** A flush was acknowledged, which promises that these are on stable storage. */
  onFlushed(node: SimNode, records: readonly WriteRecord[], issuedAtMs: number): void;
  onWritten(node: SimNode, record: WriteRecord, fua: boolean, issuedAtMs: number): void;
  onAttached(node: SimNode): void;
  /** Whether what this node acknowledges now (other than with FUA) is on a copy that the protocol counts on. */
  isPromise(node: SimNode): boolean;
  onError(node: SimNode, kind: string, outcome: string): void;
}

export class SimClient {
  readonly #world: World;
  readonly #prng: Prng;
  readonly #nodes: readonly SimNode[];
  readonly #expectations: Expectations;
  readonly #options: ClientOptions;
  readonly #listener: ClientListener;
  readonly #spots: readonly number[];
  /** Of the device, as it was told when it attached. */
  #sectorCount: number;
  #node: SimNode | null = null;
  #running = true;
  /** Workers with a request under way. */
  #busy = 0;
  answered = 0;

  constructor(
    world: World,
    nodes: readonly SimNode[],
    expectations: Expectations,
    options: ClientOptions,
    listener: ClientListener,
  ) {
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#nodes = nodes;
    this.#expectations = expectations;
    this.#options = options;
    this.#listener = listener;
    this.#sectorCount = options.sectorCount;
    this.#spots = Array.from({ length: options.hotSpots }, () => this.#prng.int(options.sectorCount));
  }

  start(): void {
    for (let worker = 0; worker < this.#options.workers; worker++) this.#think();
  }

  /** No new requests. */
  stop(): void {
    this.#running = false;
  }

  /** A place that gets most of the requests. */
  pickSector(prng: Prng): number {
    return Math.max(0, Math.min(this.#options.sectorCount - 1, prng.pick(this.#spots) + prng.int(64) - 32));
  }

  get isIdle(): boolean {
    return this.#busy === 0;
  }

  get node(): SimNode | null {
    return this.#node;
  }

  onServe(node: SimNode, serve: boolean): void {
    if (!serve && this.#node === node) this.#node = null;
  }

  detach(): void {
    const node = this.#node;
    this.#node = null;
    node?.disconnectClients();
  }

  /** Goes to another node, whatever the present one is doing. */
  moveTo(node: SimNode): void {
    if (node === this.#node || !node.isServing) return;
    this.detach();
    this.#world.trace(() => `the client attaches to ${node.name}`);
    this.#node = node;
    this.#sectorCount = (node.status()?.sizeBytes ?? 0) / sectorBytes;
    this.#listener.onAttached(node);
    node.setClients(1);
  }

  #think(): void {
    this.#world.after((this.#prng.int(1000) / 1000) * this.#options.thinkMs, () => {
      if (!this.#running) return;
      if (this.#node === null) {
        const serving = this.#nodes.filter((node) => node.isServing);
        if (serving.length > 0) this.moveTo(this.#prng.pick(serving));
      }
      if (this.#node === null) this.#think();
      else this.#act(this.#node);
    });
  }

  #act(node: SimNode): void {
    const dice = this.#prng.int(100);
    if (dice < 50) this.#write(node, 'write', ...this.#range());
    else if (dice < 75) this.#read(node, ...this.#range());
    else if (dice < 85) this.#flush(node);
    else if (dice < 92) this.#write(node, 'zeroes', ...this.#range());
    else if (this.#options.hugeTrims && dice === 99 && this.#prng.chance(0.3))
      this.#write(node, 'trim', 0, this.#sectorCount);
    else this.#write(node, 'trim', ...this.#range());
  }

  #range(): [first: number, count: number] {
    const sectorCount = this.#sectorCount;
    // Mostly whole blocks, as file systems write them; sometimes odd sectors, rarely more than an extent.
    const dice = this.#prng.int(200);
    const isOdd = dice < 40;
    const count =
      dice === 0 ? this.#prng.between(129, 9000) : isOdd ? this.#prng.between(1, 16) : 8 << this.#prng.int(4);
    const near = this.#prng.chance(0.7)
      ? this.#prng.pick(this.#spots) + this.#prng.int(64) - 32
      : this.#prng.int(sectorCount);
    const aligned = isOdd ? near : Math.floor(near / 8) * 8;
    const first = Math.min(Math.max(0, aligned), sectorCount - 1);
    return [first, Math.min(count, sectorCount - first)];
  }

  #write(node: SimNode, op: 'write' | 'trim' | 'zeroes', first: number, count: number): void {
    const record = this.#expectations.issue(op, first, count);
    const issuedAtMs = this.#world.nowMs;
    const fua = this.#prng.chance(0.1);
    const [offset, length] = [first * sectorBytes, count * sectorBytes];
    const request: ClientRequest =
      op === 'write'
        ? {
            kind: 'clientWrite',
            offset,
            length,
            fua,
            payload: SimPayload.of(count, record.value),
          }
        : { kind: op === 'trim' ? 'clientTrim' : 'clientZeroes', offset, length, fua, noHole: false };
    this.#submit(node, request, ({ outcome }) => {
      if (outcome !== null) return this.#expectations.givenUp(record);
      if (!this.#listener.isPromise(node)) record.atRisk = true;
      this.#expectations.acknowledged(record, op, fua);
      this.#listener.onWritten(node, record, fua, issuedAtMs);
    });
  }

  #read(node: SimNode, first: number, count: number): void {
    const since = this.#expectations.readIssued();
    const [offset, length] = [first * sectorBytes, count * sectorBytes];
    this.#submit(node, { kind: 'clientRead', offset, length }, ({ outcome, sectors }) => {
      if (outcome === null && sectors?.length !== count)
        this.#world.violation('contract', `${node.name}: a read came back short`);
      if (outcome === null && sectors !== null) this.#check(node, first, sectors, since);
    });
  }

  #check(node: SimNode, first: number, sectors: Uint32Array, since: number): void {
    const bad = this.#expectations.firstIllegitimate(sectors, 0, first, sectors.length, since);
    if (bad === null) return;
    this.#world.violation(
      'read',
      `${node.name}: sector ${bad} reads ${sectors[bad - first]}, which it cannot hold (any more): ` +
        this.#expectations.explain(bad),
    );
  }

  #flush(node: SimNode): void {
    const records = this.#expectations.flushIssued();
    const issuedAtMs = this.#world.nowMs;
    this.#submit(node, { kind: 'clientFlush' }, ({ outcome }) => {
      if (outcome !== null) return;
      this.#listener.onFlushed(node, records, issuedAtMs);
      this.#expectations.flushed(records);
    });
  }

  #submit(node: SimNode, request: ClientRequest, done: (end: RequestEnd) => void): void {
    this.#busy++;
    node.request(request, (end) => {
      this.#busy--;
      this.answered++;
      done(end);
      if (end.outcome !== null && end.outcome !== 'gone')
        this.#listener.onError(node, request.kind, end.outcome);
      this.#think();
    });
  }

  /** Reads the whole device; calls `done` when all of it has been checked. */
  verify(node: SimNode, done: () => void): void {
    const since = this.#expectations.readIssued();
    const sectorCount = (node.status()?.sizeBytes ?? 0) / sectorBytes;
    let left = Math.ceil(sectorCount / verifySectors);
    for (let first = 0; first < sectorCount; first += verifySectors) {
      const count = Math.min(verifySectors, sectorCount - first);
      const request: ClientRequest = {
        kind: 'clientRead',
        offset: first * sectorBytes,
        length: count * sectorBytes,
      };
      node.request(request, ({ outcome, sectors }) => {
        if (outcome !== null || sectors?.length !== count)
          this.#world.violation('liveness', `${node.name}: the last read fails: ${outcome}`);
        else this.#check(node, first, sectors, since);
        if (--left === 0) done();
      });
    }
  }
}
