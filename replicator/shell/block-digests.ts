/**
 * Strong hashes of blocks (SHA-256), or of 32 blocks each (coarse-hash.ts), for comparing two copies without sending them.
 * Hashing takes turns with everything else on this thread: about 0.2 ms of work a MiB, block by block 0.9, at most half a MiB
 * or half a millisecond at a time.
 */
import { hash } from 'node:crypto';
import { blockCountOf, blocksOfDigests, digestsBytes } from '../core/blocks.ts';
import type { BlockRun, Digests, Payload } from '../core/packet.ts';
import { blockBytes, digestBytes } from '../core/vocabulary.ts';
import type { BackingStore } from './backing-store.ts';
import { coarseBytes } from './coarse-hash.ts';
import type { CoarseHash } from './coarse-hash.ts';

/** A longer range is hashed one such piece after the other; a piece that is a hole is not read. */
const pieceBytes = 1024 * 1024;
/**
 * What the page cache has is read this much at a time, into memory that stays in the processor's cache; once something had
 * to come from the disk, the rest of the piece is read in one go.
 */
const shortReadBytes = 128 * 1024;
const turnMs = 0.5;
const turnBytes = 512 * 1024;
/** Between two looks at the clock; a coarse hash is longer. */
const lookBytes = 32 * 1024;

export class BlockDigests implements Digests {
  readonly bytes: Buffer;
  readonly #blockCount: number;
  readonly #coarse: boolean;

  /** Of a range of `blockCount` blocks. */
  constructor(bytes: Buffer, blockCount: number, coarse: boolean) {
    this.bytes = bytes;
    this.#blockCount = blockCount;
    this.#coarse = coarse;
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
      const index = at / digestBytes;
      const last = runs.at(-1);
      if (last !== undefined && last.first + last.count === index) last.count++;
      else runs.push({ first: index, count: 1 });
    }
    return blocksOfDigests(runs, this.#blockCount, this.#coarse);
  }
}

/** Null: the range could not be read. */
export type DigestsDone = (digests: BlockDigests | null) => void;

/** Each block by itself (SHA-256), or `coarseBlocks` at a time as the session does it. */
export type Hashing = 'fine' | CoarseHash;

/** What is asked for. */
interface Range {
  /** Ascending. */
  readonly order: number;
  readonly store: BackingStore;
  readonly offset: number;
  readonly length: number;
  readonly hashing: Hashing;
  /** Where the hashes go. */
  readonly bytes: Buffer;
  readonly failed: (digests: null) => void;
}

/** Data to hash, into `bytes` from `at`. */
interface Work {
  /** Of its range. */
  readonly order: number;
  readonly data: Uint8Array;
  readonly hashing: Hashing;
  readonly bytes: Buffer;
  readonly done: () => void;
  at: number;
  hashedBytes: number;
}

/** All hashing of one data plane thread goes through one of these. */
export class DigestQueue {
  /**
   * By age of the ranges. Done in turns they would all be ready at the same late moment, and the peer, which is to be given
   * one while this node hashes the next, would have nothing to do until then.
   */
  readonly #queue: Work[] = [];
  #order = 0;
  #isTurnDue = false;

  /**
   * Hashes of a range that begins with a block: of each block, or, coarse, of each `coarseBlocks` from its beginning. The
   * last one may be of less. Holes are not read.
   */
  digest(store: BackingStore, offset: number, length: number, hashing: Hashing, done: DigestsDone): void {
    const coarse = isCoarse(hashing);
    const bytes = Buffer.allocUnsafe(digestsBytes(length, coarse));
    const digests = new BlockDigests(bytes, blockCountOf(length), coarse);
    const range: Range = { order: this.#order++, store, offset, length, hashing, bytes, failed: done };
    const piece = (from: number): void => {
      if (from >= length) return done(digests);
      const end = Math.min(length, from + pieceBytes);
      const next = (): void => piece(end);
      store.isHole(offset + from, end - from, (error, hole) => {
        if (error !== null || !hole) return this.#read(range, from, end, shortReadBytes, next);
        fillZeroDigests(range, from, end);
        next();
      });
    };
    piece(0);
  }

  /** Reads and hashes `from` to `end` of the range, `readBytes` at a time. */
  #read(range: Range, from: number, end: number, readBytes: number, done: () => void): void {
    if (from >= end) return done();
    const { order, store, offset, hashing, bytes } = range;
    const count = Math.min(readBytes, end - from);
    let isCached = true;
    store.read(offset + from, count, (error, data) => {
      if (error !== null || data === null) return range.failed(null);
      const nextBytes = isCached ? readBytes : pieceBytes;
      const hashed = (): void => {
        store.recycle(data);
        this.#read(range, from + count, end, nextBytes, done);
      };
      const at = digestsBytes(from, isCoarse(hashing));
      this.#add({ order, data, hashing, bytes, done: hashed, at, hashedBytes: 0 });
    });
    isCached = false;
  }

  #add(work: Work): void {
    const at = this.#queue.findIndex(({ order }) => order > work.order);
    this.#queue.splice(at === -1 ? this.#queue.length : at, 0, work);
    this.#askForTurn();
  }

  #askForTurn(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    const untilMs = performance.now() + turnMs;
    for (let bytes = 0; bytes < turnBytes;) {
      const [work] = this.#queue;
      if (work === undefined) break;
      bytes += hashSome(work);
      if (work.hashedBytes >= work.data.length) {
        this.#queue.shift();
        work.done();
      }
      if (performance.now() >= untilMs) break;
    }
    this.#isTurnDue = false;
    if (this.#queue.length > 0) this.#askForTurn();
  }
}

function isCoarse(hashing: Hashing): hashing is CoarseHash {
  return hashing !== 'fine';
}

function unitBytesOf(hashing: Hashing): number {
  return isCoarse(hashing) ? coarseBytes : blockBytes;
}

/** How many bytes of it. */
function hashSome(work: Work): number {
  const { data, hashing, bytes, hashedBytes } = work;
  const unitBytes = unitBytesOf(hashing);
  const end = Math.min(data.length, hashedBytes + Math.max(unitBytes, lookBytes));
  for (let from = hashedBytes; from < end; from += unitBytes) {
    const unit = data.subarray(from, Math.min(end, from + unitBytes));
    if (isCoarse(hashing)) hashing.write(unit, bytes, work.at);
    else writeDigest(unit, bytes, work.at);
    work.at += digestBytes;
  }
  work.hashedBytes = end;
  return end - hashedBytes;
}

/** For `from` to `end` of the range, which are a hole. */
function fillZeroDigests({ hashing, bytes }: Range, from: number, end: number): void {
  const unitBytes = unitBytesOf(hashing);
  for (let start = from; start < end; start += unitBytes) {
    const lengthBytes = Math.min(unitBytes, end - start);
    const at = digestsBytes(start, isCoarse(hashing));
    if (isCoarse(hashing)) hashing.writeOfZeroes(lengthBytes, bytes, at);
    else if (lengthBytes === blockBytes) zeroBlockDigest().copy(bytes, at);
    else writeDigest(new Uint8Array(lengthBytes), bytes, at);
  }
}

function writeDigest(data: Uint8Array, into: Buffer, at: number): void {
  // A third quicker than having it as a Buffer of its own.
  into.write(hash('sha256', data, 'binary'), at, digestBytes, 'latin1');
}

let ofZeroBlock: Buffer | null = null;

function zeroBlockDigest(): Buffer {
  if (ofZeroBlock !== null) return ofZeroBlock;
  ofZeroBlock = Buffer.alloc(digestBytes);
  writeDigest(new Uint8Array(blockBytes), ofZeroBlock, 0);
  return ofZeroBlock;
}
