/** The block device that the NBD server exports: client requests become events of the core, its completions their answers. */
import type {
  AllocationExtent,
  BlockDevice,
  DeviceError,
  Done,
  ReadDone,
  WriteDone,
  WriteOptions,
  ZeroOptions,
} from '../../nbd/block-device.ts';
import type { Core } from '../core/core.ts';
import type { Event } from '../core/event.ts';
import { IdMap } from '../core/id-map.ts';
import type { Payload } from '../core/packet.ts';
import type { ClientKind, ClientLatency } from '../core/resync-rate.ts';
import { threadBusyPoll } from './busy-poll.ts';
import { LatencySampler } from './latency-sampler.ts';
import { BlockDigests } from './block-digests.ts';
import type { LocalIo } from './local-io.ts';
import type { SendBacklog } from './send-backlog.ts';

type ClientRequest = Extract<Event, { kind: `client${'Read' | 'Write' | 'Trim' | 'Zeroes' | 'Flush'}` }>;

type Completion = (error: DeviceError | null, data: Uint8Array | null, payloadFree: boolean) => void;

export class CoreDevice implements BlockDevice {
  readonly #core: Core;
  readonly #io: LocalIo;
  readonly #post: (event: Event) => void;
  readonly #backlog: SendBacklog;
  readonly #waiting = new IdMap<Completion>();
  readonly #latency = new LatencySampler(() => performance.now());
  #nextId = 1;
  #isShutDown = false;

  constructor(core: Core, io: LocalIo, post: (event: Event) => void, backlog: SendBacklog) {
    this.#core = core;
    this.#backlog = backlog;
    this.#io = io;
    this.#post = post;
  }

  /** As of now; it may grow, and is on record on both nodes when it does. */
  get sizeBytes(): number {
    return this.#core.options.sizeBytes;
  }

  read(offset: number, length: number, done: ReadDone): void {
    this.#ask({ kind: 'clientRead', id: this.#wait('read', done), offset, length });
  }

  recycle(data: Uint8Array): void {
    this.#io.store?.recycle(data);
  }

  write(offset: number, data: Uint8Array, options: WriteOptions, done: WriteDone): void {
    const id = this.#wait('write', (error, _data, dataFree) => {
      if (this.#core.options.protocol !== 'A') done(error, dataFree);
      else this.#backlog.answer(() => done(error, dataFree));
    });
    this.#ask({ kind: 'clientWrite', id, offset, length: data.byteLength, payload: data, fua: options.fua });
  }

  flush(done: Done): void {
    this.#ask({ kind: 'clientFlush', id: this.#wait('flush', done) });
  }

  trim(offset: number, length: number, options: WriteOptions, done: Done): void {
    const id = this.#wait(null, done);
    this.#ask({ kind: 'clientTrim', id, offset, length, fua: options.fua, noHole: false });
  }

  writeZeroes(offset: number, length: number, options: ZeroOptions, done: Done): void {
    // Refused quickly rather than found out slowly, on either node.
    if (options.fastZero && this.#io.store?.zeroesFast !== true) return done('ENOTSUP');
    const { fua, noHole } = options;
    this.#ask({ kind: 'clientZeroes', id: this.#wait(null, done), offset, length, fua, noHole });
  }

  /** A hint; the page cache of the backing file is left to itself. */
  cache(_offset: number, _length: number, done: Done): void {
    done(null);
  }

  blockStatus(
    offset: number,
    length: number,
    maxExtents: number,
    done: (error: DeviceError | null, extents: readonly AllocationExtent[]) => void,
  ): void {
    const { store } = this.#io;
    // Only what is served from this disk can be told from it; "allocated" is always true enough.
    if (store === null || this.#core.diskState !== 'UpToDate') {
      return done(null, [{ lengthBytes: length, hole: false, zero: false }]);
    }
    store.blockStatus(offset, length, maxExtents, (error, extents) =>
      done(error === null ? null : 'EIO', extents),
    );
  }

  complete(id: number, outcome: DeviceError | null, data: Uint8Array | null, payloadFree: boolean): void {
    const done = this.#waiting.get(id);
    this.#waiting.delete(id);
    this.#latency.onEnd(id, outcome === null);
    done?.(outcome, data, payloadFree);
  }

  /**
   * The core answers nothing any more. What it has left unanswered is, and so is all that comes from now on, lest whoever
   * waits for the answers before he goes (the NBD server) wait for ever. The disk may still be at it.
   */
  shutDown(): void {
    this.#isShutDown = true;
    for (const id of this.#waiting.ids()) this.complete(id, 'ESHUTDOWN', null, false);
  }

  /** What requests took since the last call. */
  takeLatency(): ClientLatency {
    return this.#latency.take();
  }

  #ask(request: ClientRequest): void {
    if (this.#isShutDown) this.complete(request.id, 'ESHUTDOWN', null, false);
    else this.#post(request);
  }

  /** `kind` null: how long it takes depends on what it covers. */
  #wait(kind: ClientKind | null, done: Completion): number {
    threadBusyPoll.onArrival();
    const id = this.#nextId++;
    if (kind !== null) this.#latency.onBegin(kind, id);
    this.#waiting.set(id, done);
    return id;
  }
}

/** Payloads are opaque to the core; here they are bytes, and nothing else ever was handed in. */
export function asBytes(payload: Payload | null): Uint8Array | null {
  if (payload === null || payload instanceof Uint8Array) return payload;
  if (payload instanceof BlockDigests) return payload.bytes;
  throw new TypeError('a payload that is not bytes');
}
