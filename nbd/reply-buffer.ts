/**
 * Replies on their way out, collected so that those of one turn leave in one system call. Headers are written into
 * shared pages; long data is passed on as it is, short data is copied beside its header.
 */
const nothing: readonly Uint8Array[] = [];

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
  /** Data among `#ready` that was not copied. */
  #lent: Uint8Array[] = [];
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

  /** Answers whether the data was copied: otherwise it has to stay as it is until it has been sent. */
  append(data: Uint8Array): boolean {
    if (data.length <= ReplyBuffer.copyBytes) {
      const at = this.reserve(data.length);
      this.page.set(data, at);
      return true;
    }
    this.#seal();
    this.#ready.push(data);
    this.#lent.push(data);
    this.#length += data.length;
    return false;
  }

  /** What of the last `drain` is not this buffer's own memory. */
  takeLent(): readonly Uint8Array[] {
    if (this.#lent.length === 0) return nothing;
    const lent = this.#lent;
    this.#lent = [];
    return lent;
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
