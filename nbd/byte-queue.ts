/** Bytes received and not yet parsed, as the chunks they came in: taken in any length, copied only where a piece spans chunks. */
import type { ReceiveBuffer, ReceivePool } from './receive-buffers.ts';

const noBytes = Buffer.alloc(0);

/**
 * Received chunks, waiting to be parsed. TCP knows no messages: a header may come in 28 pieces, fifty requests
 * in one. Chunks are not concatenated: what lies within one chunk is handed out as a view of it.
 */
export class ByteQueue {
  /** Chunks with unread bytes, oldest first; `#at` is the first unread byte of the oldest. */
  #chunks: Buffer[] = [];
  /** Whose memory each chunk is; retained until the chunk has been read. Null: the garbage collector's. */
  #owners: (ReceiveBuffer | null)[] = [];
  #at = 0;
  #length = 0;
  #takenOwner: ReceiveBuffer | null = null;

  /** Unread bytes. */
  get length(): number {
    return this.#length;
  }

  push(chunk: Buffer, owner: ReceiveBuffer | null = null): void {
    if (chunk.length === 0) return;
    this.#length += chunk.length;
    const last = this.#chunks.length - 1;
    const before = this.#chunks[last];
    if (
      owner !== null &&
      before !== undefined &&
      this.#owners[last] === owner &&
      before.byteOffset + before.length === chunk.byteOffset
    ) {
      // One piece of memory: what spans the two can be handed out as a view.
      const from = before.byteOffset - owner.bytes.byteOffset;
      this.#chunks[last] = owner.bytes.subarray(from, from + before.length + chunk.length);
      return;
    }
    owner?.retain();
    this.#chunks.push(chunk);
    this.#owners.push(owner);
  }

  /**
   * The next `length` bytes: a view when they lie within one chunk, assembled once otherwise.
   * The caller has checked that there are as many.
   */
  take(length: number): Buffer {
    if (length === 0) return noBytes;
    const head = this.#head(length);
    if (head.length - this.#at >= length) {
      const view = head.subarray(this.#at, this.#at + length);
      this.#consume(length);
      return view;
    }
    const assembled = Buffer.allocUnsafe(length);
    this.copyTo(assembled, 0);
    return assembled;
  }

  /** As `take`, but the memory stays as it is until `takenOwner`, as it is then, has been released. */
  takeRetained(length: number): Buffer {
    const head = this.#head(length);
    this.#takenOwner = head.length - this.#at >= length ? (this.#owners[0] ?? null) : null;
    this.#takenOwner?.retain();
    return this.take(length);
  }

  /** Retained by the last `takeRetained`; null when its bytes are the garbage collector's. */
  get takenOwner(): ReceiveBuffer | null {
    return this.#takenOwner;
  }

  #head(length: number): Buffer {
    const head = this.#chunks[0];
    if (head === undefined || length > this.#length)
      throw new RangeError(`take ${length} of ${this.#length}`);
    return head;
  }

  /** Moves bytes to `target` from `position` on, until either end is reached; answers how many. */
  copyTo(target: Buffer, position: number): number {
    let moved = 0;
    for (;;) {
      const head = this.#chunks[0];
      if (head === undefined || position + moved === target.length) return moved;
      const count = Math.min(head.length - this.#at, target.length - position - moved);
      head.copy(target, position + moved, this.#at, this.#at + count);
      this.#consume(count);
      moved += count;
    }
  }

  /** Throws away up to `length` bytes; answers how many there were. */
  skip(length: number): number {
    let skipped = 0;
    while (skipped < length) {
      const head = this.#chunks[0];
      if (head === undefined) break;
      const count = Math.min(head.length - this.#at, length - skipped);
      this.#consume(count);
      skipped += count;
    }
    return skipped;
  }

  clear(): void {
    for (const owner of this.#owners) owner?.release();
    this.#chunks = [];
    this.#owners = [];
    this.#at = 0;
    this.#length = 0;
  }

  /** `count` bytes of the oldest chunk are done. */
  #consume(count: number): void {
    this.#at += count;
    this.#length -= count;
    if (this.#at === this.#chunks[0]?.length) {
      this.#chunks.shift();
      this.#at = 0;
      this.#owners.shift()?.release();
    }
  }
}

/**
 * A payload that arrives in pieces, assembled into one allocation of its declared length. Above `trust` bytes the
 * allocation grows with what has arrived: announcing a long payload must not cost memory before it is sent.
 */
export class PayloadAssembly {
  static readonly trust = 1 << 20;
  readonly #length: number;
  /** Whose memory it is: retained once, by whoever takes the payload over in the end. Null: the garbage collector's. */
  readonly owner: ReceiveBuffer | null;
  #buffer: Buffer;
  #filled = 0;

  constructor(length: number, pool: ReceivePool | null = null) {
    this.#length = length;
    this.owner = pool !== null && length <= PayloadAssembly.trust ? pool.take(length) : null;
    this.#buffer =
      this.owner?.bytes.subarray(0, length) ??
      Buffer.allocUnsafeSlow(Math.min(length, PayloadAssembly.trust));
  }

  /** Takes what it still needs; answers the payload once it is complete, null before. */
  fill(queue: ByteQueue): Buffer | null {
    for (;;) {
      this.#filled += queue.copyTo(this.#buffer, this.#filled);
      if (this.#filled === this.#length) return this.#buffer;
      if (queue.length === 0) return null;
      this.#grow();
    }
  }

  /** Room for what comes next, to be received into directly; not empty while the payload is not complete. */
  get room(): Buffer {
    if (this.#filled === this.#buffer.length && this.#filled < this.#length) this.#grow();
    return this.#buffer.subarray(this.#filled);
  }

  /** That many bytes have been put into `room`. */
  advance(byteCount: number): void {
    this.#filled += byteCount;
  }

  #grow(): void {
    const grown = Buffer.allocUnsafeSlow(Math.min(this.#length, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.#filled);
    this.#buffer = grown;
  }
}
