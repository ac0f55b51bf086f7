/**
 * Memory to receive into, used again once nobody looks at it any more. Node makes a new buffer for every chunk otherwise:
 * at full load that is hundreds of megabytes a second for the garbage collector, and cold memory for every copy.
 */

/** `bytes` may be received into again when every user that has called `retain` has called `release`. */
export class ReceiveBuffer {
  readonly bytes: Buffer;
  readonly #pool: ReceivePool;
  #uses = 0;

  constructor(pool: ReceivePool, sizeBytes: number) {
    this.#pool = pool;
    this.bytes = Buffer.allocUnsafeSlow(sizeBytes);
  }

  get uses(): number {
    return this.#uses;
  }

  retain(): void {
    this.#uses += 1;
  }

  /** Whoever is not sure that nobody reads its part any more does not call this: then the memory is garbage one day. */
  release(): void {
    if (this.#uses === 0) throw new Error('a receive buffer was released more often than retained');
    this.#uses -= 1;
    if (this.#uses === 0) this.#pool.giveBack(this);
  }
}

export class ReceivePool {
  readonly #free = new Map<number, ReceiveBuffer[]>();
  readonly #keepBytesMax: number;
  #keptBytes = 0;

  /** At most `keepBytesMax` bytes wait for their next use; what comes back beyond that is garbage. */
  constructor(keepBytesMax: number) {
    this.#keepBytesMax = keepBytesMax;
  }

  /** At least `sizeBytes` long (the next power of two), retained once. */
  take(sizeBytes: number): ReceiveBuffer {
    const size = 2 ** Math.ceil(Math.log2(sizeBytes));
    let buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) buffer = new ReceiveBuffer(this, size);
    else this.#keptBytes -= size;
    buffer.retain();
    return buffer;
  }

  /** For ReceiveBuffer: nobody uses it. */
  giveBack(buffer: ReceiveBuffer): void {
    const size = buffer.bytes.length;
    if (this.#keptBytes + size > this.#keepBytesMax) return;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [buffer]);
    else free.push(buffer);
    this.#keptBytes += size;
  }
}
