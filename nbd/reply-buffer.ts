/**
 * Replies on their way out, collected so that those of one turn leave in one system call. Headers are written into
 * shared pages; long data is passed on as it is, short data is copied beside its header.
 */
export class ReplyBuffer {
  static readonly pageBytes = 64 * 1024;
  /** Up to here a copy costs less than one more element of a gather write. */
  static readonly copyBytes = 4096;

  /** Where `reserve` points into. */
  page: Buffer = Buffer.alloc(0);
  /** Bytes of `page` before `#from` have left, those up to `#to` are written. */
  #from = 0;
  #to = 0;
  #ready: Uint8Array[] = [];
  #length = 0;

  /** Bytes collected. */
  get length(): number {
    return this.#length;
  }

  /** Room for `length` bytes (at most a page), to be filled by the caller at once; answers its position in `page`. */
  reserve(length: number): number {
    if (this.page.length - this.#to < length) {
      this.#seal();
      this.page = Buffer.allocUnsafeSlow(ReplyBuffer.pageBytes);
      this.#from = this.#to = 0;
    }
    const at = this.#to;
    this.#to += length;
    this.#length += length;
    return at;
  }

  append(data: Uint8Array): void {
    if (data.length <= ReplyBuffer.copyBytes) {
      const at = this.reserve(data.length);
      this.page.set(data, at);
      return;
    }
    this.#seal();
    this.#ready.push(data);
    this.#length += data.length;
  }

  /** Everything collected, in order; the buffer is empty afterwards. */
  drain(): readonly Uint8Array[] {
    this.#seal();
    const ready = this.#ready;
    this.#ready = [];
    this.#length = 0;
    return ready;
  }

  #seal(): void {
    if (this.#to > this.#from) this.#ready.push(this.page.subarray(this.#from, this.#to));
    this.#from = this.#to;
  }
}
