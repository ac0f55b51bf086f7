/**
 * Which mirrored writes are not proven stable on both disks yet (design.md, W3). A flush packet closes an epoch; the blocks
 * of an epoch are forgotten when a local and a peer's flush that cover it have both completed. On loss of the peer all that
 * is left becomes out of sync. Every such block lies in an active extent, which bounds the sets (W4).
 */
import { BlockBitmap } from './bitmap.ts';
import { blocksTouched } from './blocks.ts';
import { assert } from './out.ts';

/** Epochs from `first` to `last`, which are forgotten together. */
interface OpenEpoch {
  readonly first: number;
  last: number;
  readonly blocks: BlockBitmap;
  localWrites: number;
}

/** More than this are kept only by a write that does not end, while others are flushed: then the newest ones are joined. */
const openMax = 64;

export class Epochs {
  #blockCount: number;
  /** Oldest first; the last one is the current epoch. */
  #open: OpenEpoch[];
  #localStable = 0;
  #peerStable = 0;

  constructor(blockCount: number) {
    this.#blockCount = blockCount;
    this.#open = [this.#newEpoch(1)];
  }

  /** The device has grown to that many blocks. */
  grow(blockCount: number): void {
    this.#blockCount = blockCount;
    for (const { blocks } of this.#open) blocks.grow(blockCount);
  }

  get current(): number {
    return this.#last.last;
  }

  /** All mirrored writes of epochs up to this one are stable on both sides. */
  get stable(): number {
    return Math.min(this.#localStable, this.#peerStable);
  }

  get openCount(): number {
    return this.#open.length;
  }

  get unstableBlocks(): number {
    return this.#open.reduce((sum, { blocks }) => sum + blocks.countSet, 0);
  }

  /** A mirrored write is issued; returns its epoch. */
  begin(offset: number, length: number): number {
    const last = this.#last;
    const { first, count } = blocksTouched(offset, length);
    last.blocks.setRange(first, count);
    last.localWrites++;
    return last.last;
  }

  localDone(epoch: number): void {
    const open = this.#open.find(({ first, last }) => first <= epoch && epoch <= last);
    // An epoch is forgotten early only when the peer was lost and its blocks became out of sync.
    if (open === undefined) return;
    open.localWrites--;
    assert(open.localWrites >= 0, `epoch ${epoch} completed more local writes than it began`);
  }

  /** Closes the current epoch (a flush packet follows); returns its number. One without writes leaves nothing to remember. */
  close(): number {
    const { last: epoch, blocks } = this.#last;
    if (blocks.isEmpty) this.#open.pop();
    else if (this.#open.length > openMax) this.#joinNewest();
    this.#open.push(this.#newEpoch(epoch + 1));
    return epoch;
  }

  #joinNewest(): void {
    const newest = this.#open.pop();
    const into = this.#open.at(-1);
    assert(newest !== undefined && into !== undefined, 'too many epochs, and yet none to join');
    into.blocks.orWith(newest.blocks);
    into.localWrites += newest.localWrites;
    into.last = newest.last;
  }

  /** The newest epoch that a local flush issued now covers: all writes up to it are on the local disk (or in its cache). */
  localCover(): number {
    const incomplete = this.#open.find((open) => open.localWrites > 0);
    return incomplete === undefined ? this.current - 1 : incomplete.first - 1;
  }

  /** Whether a local flush issued now, at the end of the current epoch, would cover an epoch that none has covered yet. */
  get hasMoreToProve(): boolean {
    const incomplete = this.#open.find((open) => open.localWrites > 0);
    return (incomplete === undefined ? this.current : incomplete.first - 1) > this.#localStable;
  }

  onLocalStable(epoch: number): void {
    this.#localStable = Math.max(this.#localStable, epoch);
    this.#forget();
  }

  onPeerStable(epoch: number): void {
    this.#peerStable = Math.max(this.#peerStable, epoch);
    this.#forget();
  }

  /** The peer is lost: hands out every block not proven stable, and begins anew with nothing unstable. */
  drain(into: (blocks: BlockBitmap) => void): void {
    for (const { blocks } of this.#open) into(blocks);
    const next = this.current + 1;
    this.#open = [this.#newEpoch(next)];
    this.#localStable = next - 1;
    this.#peerStable = next - 1;
  }

  #forget(): void {
    while (this.#open.length > 1) {
      const oldest = this.#open[0];
      if (oldest === undefined || oldest.last > this.stable) break;
      this.#open.shift();
    }
  }

  get #last(): OpenEpoch {
    const last = this.#open.at(-1);
    assert(last !== undefined, 'there is always a current epoch');
    return last;
  }

  #newEpoch(epoch: number): OpenEpoch {
    return { first: epoch, last: epoch, blocks: new BlockBitmap(this.#blockCount), localWrites: 0 };
  }
}
