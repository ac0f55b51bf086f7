/**
 * Strong hashes of blocks (SHA-256, one per 4 KiB), for comparing two copies without sending them. Hashing takes turns
 * with everything else on this thread: about 0.8 ms of work a MiB, at most half a MiB or half a millisecond at a time.
 */
import { hash } from 'node:crypto';
import { digestsBytes } from '../core/blocks.ts';
import type { BlockRun, Digests, Payload } from '../core/packet.ts';
import { blockBytes, digestBytes } from '../core/vocabulary.ts';
import type { BackingStore } from './backing-store.ts';

/** A longer range is hashed one such piece after the other; a piece that is a hole is not read. */
const pieceBytes = 1024 * 1024;
/**
 * What the page cache has is read this much at a time, into memory that stays in the processor's cache; once something had
 * to come from the disk, the rest of the piece is read in one go.
 */
const shortReadBytes = 128 * 1024;
const turnMs = 0.5;
const turnBlocks = 128;
/** Between two looks at the clock. */
const blocksPerLook = 8;

export class BlockDigests implements Digests {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get byteLength(): number {
    return this.bytes.length;
  }

  differing(other: Payload): readonly BlockRun[] {
    if (!(other instanceof Uint8Array) || other.length !== this.bytes.length) {
      throw new TypeError(`${other.byteLength} bytes of hashes against ${this.bytes.length}`);
    }
    if (this.bytes.equals(other)) return [];
    const runs: { first: number; count: number }[] = [];
    for (let at = 0; at < other.length; at += digestBytes) {
      if (this.bytes.compare(other, at, at + digestBytes, at, at + digestBytes) === 0) continue;
      const block = at / digestBytes;
      const last = runs.at(-1);
      if (last !== undefined && last.first + last.count === block) last.count++;
      else runs.push({ first: block, count: 1 });
    }
    return runs;
  }
}

/** Null: the range could not be read. */
export type DigestsDone = (digests: BlockDigests | null) => void;

/** Data to hash, block by block, into `bytes` from `at`. */
interface Work {
  readonly data: Uint8Array;
  readonly bytes: Buffer;
  readonly at: number;
  readonly done: () => void;
  nextBlock: number;
}

/** All hashing of one data plane thread goes through one of these. */
export class DigestQueue {
  #queue: Work[] = [];

  /** Hashes of a range that begins with a block, each of a whole one but for the device's end. Holes are not read. */
  digest(store: BackingStore, offset: number, length: number, done: DigestsDone): void {
    const bytes = Buffer.allocUnsafe(digestsBytes(length));
    const digests = new BlockDigests(bytes);
    const piece = (from: number): void => {
      if (from >= length) return done(digests);
      const end = Math.min(length, from + pieceBytes);
      const next = (): void => piece(end);
      const readIt = (): void => this.#read(store, offset, bytes, { from, end }, shortReadBytes, done, next);
      if ((end - from) % blockBytes !== 0) return readIt();
      store.isHole(offset + from, end - from, (error, hole) => {
        if (error !== null || !hole) return readIt();
        bytes.fill(zeroDigest, digestsBytes(from), digestsBytes(end));
        next();
      });
    };
    piece(0);
  }

  /** Reads and hashes `from` to `end` of the range that begins at `offset`, `readBytes` at a time. */
  #read(
    store: BackingStore,
    offset: number,
    bytes: Buffer,
    { from, end }: { readonly from: number; readonly end: number },
    readBytes: number,
    failed: (digests: null) => void,
    done: () => void,
  ): void {
    if (from >= end) return done();
    const count = Math.min(readBytes, end - from);
    let isCached = true;
    store.read(offset + from, count, (error, data) => {
      if (error !== null || data === null) return failed(null);
      const nextBytes = isCached ? readBytes : pieceBytes;
      const hashed = (): void => {
        store.recycle(data);
        this.#read(store, offset, bytes, { from: from + count, end }, nextBytes, failed, done);
      };
      this.#add({ data, bytes, at: digestsBytes(from), done: hashed, nextBlock: 0 });
    });
    isCached = false;
  }

  #add(work: Work): void {
    this.#queue.push(work);
    if (this.#queue.length === 1) setImmediate(() => this.#turn());
  }

  #turn(): void {
    const untilMs = performance.now() + turnMs;
    for (let blocks = 0; blocks < turnBlocks; blocks += blocksPerLook) {
      const [work] = this.#queue;
      if (work === undefined) return;
      if (hashSome(work)) {
        work.done();
        this.#queue.shift();
      }
      if (performance.now() >= untilMs) break;
    }
    if (this.#queue.length > 0) setImmediate(() => this.#turn());
  }
}

/** Whether that was the last of it. */
function hashSome(work: Work): boolean {
  const { data, bytes, at } = work;
  const end = Math.min(digestsBytes(data.length) / digestBytes, work.nextBlock + blocksPerLook);
  for (; work.nextBlock < end; work.nextBlock++) {
    const from = work.nextBlock * blockBytes;
    writeDigest(data.subarray(from, from + blockBytes), bytes, at + work.nextBlock * digestBytes);
  }
  return end * blockBytes >= data.length;
}

function writeDigest(block: Uint8Array, into: Buffer, at: number): void {
  // A third quicker than having it as a Buffer of its own.
  into.write(hash('sha256', block, 'binary'), at, digestBytes, 'latin1');
}

const zeroDigest = Buffer.allocUnsafe(digestBytes);
writeDigest(new Uint8Array(blockBytes), zeroDigest, 0);
