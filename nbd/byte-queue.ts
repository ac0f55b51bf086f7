/** Bytes received and not yet parsed, as the chunks they came in: taken in any length, copied only where a piece spans chunks. */
const noBytes = Buffer.alloc(0);

/**
 * Received chunks, waiting to be parsed. TCP knows no messages: a header may come in 28 pieces, fifty requests
 * in one. Chunks are not concatenated: what lies within one chunk is handed out as a view of it.
 */
export class ByteQueue {
  /** Chunks with unread bytes, oldest first; `#at` is the first unread byte of the oldest. */
  #chunks: Buffer[] = [];
  #at = 0;
  #length = 0;

  /** Unread bytes. */
  get length(): number {
    return this.#length;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /**
   * The next `length` bytes: a view when they lie within one chunk, assembled once otherwise.
   * The caller has checked that there are as many.
   */
  take(length: number): Buffer {
    if (length === 0) return noBytes;
    const head = this.#chunks[0];
    if (head === undefined || length > this.#length)
      throw new RangeError(`take ${length} of ${this.#length}`);
    if (head.length - this.#at >= length) {
      const view = head.subarray(this.#at, this.#at + length);
      this.#consume(length);
      return view;
    }
    const assembled = Buffer.allocUnsafe(length);
    this.copyTo(assembled, 0);
    return assembled;
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
    this.#chunks = [];
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
  #buffer: Buffer;
  #filled = 0;

  constructor(length: number) {
    this.#length = length;
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(length, PayloadAssembly.trust));
  }

  /** Takes what it still needs; answers the payload once it is complete, null before. */
  fill(queue: ByteQueue): Buffer | null {
    for (;;) {
      this.#filled += queue.copyTo(this.#buffer, this.#filled);
      if (this.#filled === this.#length) return this.#buffer;
      if (queue.length === 0) return null;
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#length, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, this.#filled);
      this.#buffer = grown;
    }
  }
}
