/**
 * A BlockDevice in memory for tests: sparse, truthful about it, and obedient. Requests complete at once unless the
 * test holds them back.
 */
import type {
  AllocationExtent,
  BlockDevice,
  DeviceError,
  Done,
  ReadDone,
  WriteOptions,
  ZeroOptions,
} from '../../nbd/block-device.ts';

export type DeviceCall =
  | {
      readonly kind: 'read' | 'cache' | 'blockStatus';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
    }
  | {
      readonly kind: 'write' | 'trim';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly fua: boolean;
    }
  | ({
      readonly kind: 'writeZeroes';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
    } & ZeroOptions)
  | { readonly kind: 'flush' };

/** A request the test holds back. Nothing has happened to the data yet. */
export interface HeldCall {
  readonly call: DeviceCall;
  /** Carry it out and complete it. */
  release(): void;
  /** Complete it with an error, without carrying it out. */
  fail(error: DeviceError): void;
}

const BLOCK_BYTES = 4096;
const zeroBlock = Buffer.alloc(BLOCK_BYTES);

export class MemoryDevice implements BlockDevice {
  readonly sizeBytes: number;
  /** Every request so far, in order of arrival. */
  readonly calls: DeviceCall[] = [];
  /** Requests not completed because of `hold`. */
  held: HeldCall[] = [];
  /** Which requests to hold back; null lets everything complete at once. */
  hold: ((call: DeviceCall) => boolean) | null = null;
  /** Which requests fail, and how. */
  fail: ((call: DeviceCall) => DeviceError | null) | null = null;
  /** Whether FAST_ZERO can be served. */
  fastZero = true;
  /** Whether completions come from a later turn of the event loop. */
  asynchronous = false;
  /** Allocated blocks; what is not here is a hole. */
  readonly #blocks = new Map<number, Buffer>();
  #watchers: { readonly count: number; readonly resolve: () => void }[] = [];

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  /** Resolves when that many requests have arrived in all. */
  arrived(count: number): Promise<void> {
    return new Promise((resolve) => {
      this.#watchers.push({ count, resolve });
      this.#notify();
    });
  }

  /** Releases what is held and holds no more. */
  releaseAll(): void {
    this.hold = null;
    for (const call of this.held) call.release();
  }

  failAll(error: DeviceError): void {
    this.hold = null;
    for (const call of this.held) call.fail(error);
  }

  /** The bytes as they are, without a request. */
  contents(offsetBytes = 0, lengthBytes = this.sizeBytes - offsetBytes): Buffer {
    const data = Buffer.alloc(lengthBytes);
    this.#forEachBlock(offsetBytes, lengthBytes, (index, from, to, position) => {
      this.#blocks.get(index)?.copy(data, position, from, to);
    });
    return data;
  }

  /** Changes bytes without a request. */
  fill(offsetBytes: number, data: Uint8Array): void {
    this.#forEachBlock(offsetBytes, data.length, (index, from, to, position) => {
      this.#block(index).set(data.subarray(position, position + to - from), from);
    });
  }

  read(offsetBytes: number, lengthBytes: number, done: ReadDone): void {
    this.#run(
      { kind: 'read', offsetBytes, lengthBytes },
      () => {
        done(null, this.contents(offsetBytes, lengthBytes));
      },
      (error) => {
        done(error, null);
      },
    );
  }

  write(offsetBytes: number, data: Uint8Array, options: WriteOptions, done: Done): void {
    const call = { kind: 'write', offsetBytes, lengthBytes: data.length, fua: options.fua } as const;
    this.#runDone(call, done, () => {
      this.fill(offsetBytes, data);
    });
  }

  flush(done: Done): void {
    this.#runDone({ kind: 'flush' }, done, () => undefined);
  }

  trim(offsetBytes: number, lengthBytes: number, options: WriteOptions, done: Done): void {
    this.#runDone({ kind: 'trim', offsetBytes, lengthBytes, fua: options.fua }, done, () => {
      const first = Math.ceil(offsetBytes / BLOCK_BYTES);
      const end = Math.floor((offsetBytes + lengthBytes) / BLOCK_BYTES);
      this.#forget((index) => index >= first && index < end);
    });
  }

  writeZeroes(offsetBytes: number, lengthBytes: number, options: ZeroOptions, done: Done): void {
    const call = { kind: 'writeZeroes', offsetBytes, lengthBytes, ...options } as const;
    if (options.fastZero && !this.fastZero) {
      this.calls.push(call);
      this.#notify();
      done('ENOTSUP');
      return;
    }
    this.#runDone(call, done, () => {
      const first = Math.ceil(offsetBytes / BLOCK_BYTES);
      const end = Math.floor((offsetBytes + lengthBytes) / BLOCK_BYTES);
      if (!options.noHole) this.#forget((index) => index >= first && index < end);
      // Holes read as zeroes already: only NO_HOLE has to go through a long range block by block.
      else this.#forEachBlock(offsetBytes, lengthBytes, (index) => this.#block(index));
      for (const [index, block] of this.#blocks) {
        const from = Math.max(offsetBytes - index * BLOCK_BYTES, 0);
        const to = Math.min(offsetBytes + lengthBytes - index * BLOCK_BYTES, BLOCK_BYTES);
        if (from < to) block.fill(0, from, to);
      }
    });
  }

  cache(offsetBytes: number, lengthBytes: number, done: Done): void {
    this.#runDone({ kind: 'cache', offsetBytes, lengthBytes }, done, () => undefined);
  }

  blockStatus(
    offsetBytes: number,
    lengthBytes: number,
    maxExtents: number,
    done: (error: DeviceError | null, extents: readonly AllocationExtent[]) => void,
  ): void {
    this.#run(
      { kind: 'blockStatus', offsetBytes, lengthBytes },
      () => {
        done(null, this.#extents(offsetBytes, lengthBytes, maxExtents));
      },
      (error) => {
        done(error, []);
      },
    );
  }

  #extents(offsetBytes: number, lengthBytes: number, maxExtents: number): AllocationExtent[] {
    const extents: AllocationExtent[] = [];
    const end = offsetBytes + lengthBytes;
    let at = offsetBytes;
    while (at < end) {
      const index = Math.floor(at / BLOCK_BYTES);
      const block = this.#blocks.get(index);
      const zero = block === undefined || block.equals(zeroBlock);
      const next = Math.min(end, block === undefined ? this.#nextBlock(index) : (index + 1) * BLOCK_BYTES);
      const last = extents.at(-1);
      const hole = block === undefined;
      if (last?.hole === hole && last.zero === zero)
        extents[extents.length - 1] = { ...last, lengthBytes: last.lengthBytes + next - at };
      else if (extents.length === maxExtents) break;
      else extents.push({ lengthBytes: next - at, hole, zero });
      at = next;
    }
    return extents;
  }

  /** Where the hole at this block ends. */
  #nextBlock(index: number): number {
    let next = Infinity;
    for (const other of this.#blocks.keys()) if (other > index && other < next) next = other;
    return Math.min(next * BLOCK_BYTES, this.sizeBytes);
  }

  #block(index: number): Buffer {
    let block = this.#blocks.get(index);
    if (block === undefined) {
      block = Buffer.alloc(BLOCK_BYTES);
      this.#blocks.set(index, block);
    }
    return block;
  }

  #forget(belongs: (index: number) => boolean): void {
    for (const index of this.#blocks.keys()) if (belongs(index)) this.#blocks.delete(index);
  }

  #forEachBlock(
    offsetBytes: number,
    lengthBytes: number,
    visit: (index: number, from: number, to: number, position: number) => void,
  ): void {
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end;) {
      const index = Math.floor(at / BLOCK_BYTES);
      const from = at - index * BLOCK_BYTES;
      const to = Math.min(BLOCK_BYTES, from + end - at);
      visit(index, from, to, at - offsetBytes);
      at += to - from;
    }
  }

  #runDone(call: DeviceCall, done: Done, carryOut: () => void): void {
    this.#run(
      call,
      () => {
        carryOut();
        done(null);
      },
      done,
    );
  }

  #run(call: DeviceCall, release: () => void, fail: (error: DeviceError) => void): void {
    this.calls.push(call);
    if (this.hold?.(call) === true) this.#holdBack(call, release, fail);
    else {
      const error = this.fail?.(call) ?? null;
      const complete = (): void => {
        if (error === null) release();
        else fail(error);
      };
      if (this.asynchronous) setImmediate(complete);
      else complete();
    }
    this.#notify();
  }

  #holdBack(call: DeviceCall, release: () => void, fail: (error: DeviceError) => void): void {
    const leave = (): void => {
      this.held = this.held.filter((other) => other !== held);
    };
    const held: HeldCall = {
      call,
      release: () => {
        leave();
        release();
      },
      fail: (error) => {
        leave();
        fail(error);
      },
    };
    this.held.push(held);
  }

  #notify(): void {
    const due = this.#watchers.filter(({ count }) => this.calls.length >= count);
    this.#watchers = this.#watchers.filter(({ count }) => this.calls.length < count);
    for (const { resolve } of due) resolve();
  }
}
