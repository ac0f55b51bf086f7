/** Memory to read into, used again once its reader is done with it: see nbd/receive-buffers.ts for why. */

/** What waits for its next use, all lengths together. */
const keptBytesMax = 8 * 1024 * 1024;

export class ReadBuffers {
  readonly #free = new Map<number, Buffer[]>();
  /** Handed out by `take`, and not given back. */
  readonly #lent = new WeakSet<Uint8Array>();
  #keptBytes = 0;

  /** Exactly that long; what it holds is anything. */
  take(lengthBytes: number): Buffer {
    let buffer = this.#free.get(lengthBytes)?.pop();
    if (buffer === undefined) buffer = Buffer.allocUnsafeSlow(lengthBytes);
    else this.#keptBytes -= lengthBytes;
    this.#lent.add(buffer);
    return buffer;
  }

  /** Nobody looks at it any more. Memory that is not from here is left alone. */
  giveBack(data: Uint8Array): void {
    if (!this.#lent.delete(data) || !Buffer.isBuffer(data)) return;
    while (this.#keptBytes + data.length > keptBytesMax) if (!this.#dropOther(data.length)) return;
    const free = this.#free.get(data.length);
    if (free === undefined) this.#free.set(data.length, [data]);
    else free.push(data);
    this.#keptBytes += data.length;
  }

  /** Lengths that nobody asks for any more must not take the room of those in use. False: none but this one is kept. */
  #dropOther(lengthBytes: number): boolean {
    for (const [length, free] of this.#free) {
      if (length === lengthBytes) continue;
      if (free.pop() !== undefined) this.#keptBytes -= length;
      if (free.length === 0) this.#free.delete(length);
      return true;
    }
    return false;
  }
}
