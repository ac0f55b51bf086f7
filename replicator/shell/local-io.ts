/** The core's local reads, writes and flushes on the backing store, and their answers as events. */
import type { ByteRange } from '../core/blocks.ts';
import type { DiskGrowth, Event, RangesFound } from '../core/event.ts';
import type { MirrorOp } from '../core/packet.ts';
import { blockBytes } from '../core/vocabulary.ts';
import { BackingTooSmall } from './backing-store.ts';
import type { BackingStore } from './backing-store.ts';
import { readRanges, writeRanges } from './scattered-io.ts';
import { DigestQueue } from './block-digests.ts';
import type { Hashing } from './block-digests.ts';

/** Shorter data is not worth telling of. */
const longBytes = 32 * 1024;

export class LocalIo {
  readonly #written: (data: Uint8Array) => void;
  readonly #post: (event: Event) => void;
  readonly #digests = new DigestQueue();
  #store: BackingStore | null;
  #closing: Promise<void> = Promise.resolve();

  /** `written`: these bytes are on the disk, and the disk has no more use for their memory. Told of long ones. */
  constructor(
    store: BackingStore,
    post: (event: Event) => void,
    written: (data: Uint8Array) => void = () => undefined,
  ) {
    this.#store = store;
    this.#written = written;
    this.#post = post;
  }

  /** The store in use, for what only asks (allocation, prefetch). */
  get store(): BackingStore | null {
    return this.#store;
  }

  write(
    id: number,
    op: MirrorOp,
    offset: number,
    length: number,
    data: Uint8Array | null,
    noHole: boolean,
  ): void {
    const done = (error: Error | null): void =>
      this.#post({ kind: 'localWritten', id, outcome: error === null ? 'ok' : 'failed' });
    if (this.#store === null) return done(gone);
    if (op === 'write') {
      if (data === null) return done(gone);
      if (length < longBytes) return this.#store.write(offset, data, done);
      return this.#store.write(offset, data, (error) => {
        if (error === null) this.#written(data);
        done(error);
      });
    }
    if (op === 'zeroes') return this.#store.writeZeroes(offset, length, noHole, done);
    // A trim has to leave the same bytes on both nodes, whatever their file systems can do: zeroes, in whole blocks.
    const start = Math.ceil(offset / blockBytes) * blockBytes;
    const end = Math.floor((offset + length) / blockBytes) * blockBytes;
    if (start >= end) return done(null);
    this.#store.writeZeroes(start, end - start, false, done);
  }

  read(id: number, offset: number, length: number, wantHole: boolean): void {
    const { store } = { store: this.#store };
    if (store === null) return this.#post({ kind: 'localRead', id, payload: null, hole: false });
    const readData = (lengthBytes: number): void =>
      store.read(offset, lengthBytes, (error, data) =>
        this.#post({ kind: 'localRead', id, payload: error === null ? data : null, hole: false }),
      );
    if (!wantHole) return readData(length);
    store.blockStatus(offset, length, 1, (error, [first]) => {
      if (error !== null || first === undefined) return readData(length);
      // Some file systems have smaller blocks than ours; one that is a hole in part is data.
      const blocks = first.lengthBytes / blockBytes;
      const holeBytes = first.lengthBytes < length ? Math.floor(blocks) * blockBytes : length;
      if (first.hole && holeBytes > 0)
        return this.#post({ kind: 'localRead', id, payload: null, hole: true, holeBytes });
      readData(Math.min(length, Math.ceil(blocks) * blockBytes));
    });
  }

  readRanges(id: number, ranges: readonly ByteRange[]): void {
    const answer = (found: RangesFound | null): void => this.#post({ kind: 'localRangesRead', id, found });
    if (this.#store === null) answer(null);
    else readRanges(this.#store, ranges, answer);
  }

  writeRanges(
    id: number,
    op: 'write' | 'zeroes',
    ranges: readonly ByteRange[],
    data: Uint8Array | null,
  ): void {
    const answer = (error: Error | null): void => {
      if (error === null && data !== null && data.length >= longBytes) this.#written(data);
      this.#post({ kind: 'localWritten', id, outcome: error === null ? 'ok' : 'failed' });
    };
    if (this.#store === null || (op === 'write' && data === null)) answer(gone);
    else writeRanges(this.#store, ranges, data, answer);
  }

  /** `hashing`: null when the session is over that was to be hashed for; then nobody waits for the hashes any more. */
  digest(id: number, offset: number, length: number, hashing: Hashing | null): void {
    if (this.#store === null || hashing === null)
      return this.#post({ kind: 'localDigested', id, digests: null });
    this.#digests.digest(this.#store, offset, length, hashing, (digests) =>
      this.#post({ kind: 'localDigested', id, digests }),
    );
  }

  flush(id: number): void {
    const done = (error: Error | null): void =>
      this.#post({ kind: 'localFlushed', id, outcome: error === null ? 'ok' : 'failed' });
    if (this.#store === null) return done(gone);
    this.#store.flush(done);
  }

  /** Room for a larger device, on stable storage when it is answered. A failed flush fails the store, as ever. */
  grow(id: number, sizeBytes: number): void {
    const { store } = { store: this.#store };
    const answer = (error: Error | null): void =>
      this.#post({
        kind: 'diskGrown',
        id,
        outcome: error === null ? { kind: 'grown' } : refusedGrowth(error),
      });
    if (store === null) return answer(gone);
    store.growTo(sizeBytes, (error) => {
      if (error === null) store.flush(answer);
      else answer(error);
    });
  }

  /** Not to be used any more; what is under way still answers. */
  detach(): void {
    const store = this.#store;
    this.#store = null;
    if (store !== null) this.#closing = store.close().catch(() => undefined);
  }

  attach(store: BackingStore): void {
    this.#store = store;
  }

  async close(): Promise<void> {
    this.detach();
    await this.#closing;
  }
}

function refusedGrowth(error: Error): DiskGrowth {
  const isTooSmall = error instanceof BackingTooSmall;
  return {
    kind: 'refused',
    refusal: {
      code: isTooSmall ? 'backing-too-small' : 'backing-failed',
      reason: isTooSmall
        ? `${error.message}.`
        : `the backing device could not be enlarged: ${error.message}.`,
      nextStep: isTooSmall
        ? 'Extend the block device on both nodes, then grow.'
        : 'Check the space and the disk under it, then try again.',
    },
  };
}

const gone = new Error('the backing device is detached');
