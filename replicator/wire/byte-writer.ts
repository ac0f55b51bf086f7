/**
 * Writes fields into space its owner has reserved. A value that does not fit its field is a bug of this node, not
 * of the peer: it throws a RangeError, and the process stops rather than send something else than it means.
 */
export class ByteWriter {
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;

  /** Where the next byte goes. */
  get at(): number {
    return this.#at;
  }

  /** Start writing at `at`; the view covers all of `bytes`. */
  reset(bytes: Uint8Array, view: DataView, at: number): void {
    this.#bytes = bytes;
    this.#view = view;
    this.#at = at;
  }

  u8(value: number): void {
    this.#view.setUint8(this.#at, checked(value, 0xff));
    this.#at += 1;
  }

  u16(value: number): void {
    this.#view.setUint16(this.#at, checked(value, 0xffff));
    this.#at += 2;
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, checked(value, 0xffff_ffff));
    this.#at += 4;
  }

  /** A whole number below 2^53 in eight bytes: offsets, lengths, ids. */
  u64(value: number): void {
    checked(value, Number.MAX_SAFE_INTEGER);
    this.#view.setUint32(this.#at, Math.floor(value / 0x1_0000_0000));
    this.#view.setUint32(this.#at + 4, value >>> 0);
    this.#at += 8;
  }

  generation(value: bigint): void {
    if (value < 0n || value >= 1n << 64n) throw new RangeError(`${value} is not a 64-bit generation`);
    this.#view.setBigUint64(this.#at, value);
    this.#at += 8;
  }

  bool(value: boolean): void {
    this.u8(value ? 1 : 0);
  }

  /** LEB128, shortest form: seven bits per byte, least significant first. */
  varint(value: number): void {
    checked(value, Number.MAX_SAFE_INTEGER);
    let rest = value;
    while (rest >= 0x80) {
      this.#view.setUint8(this.#at++, (rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.#view.setUint8(this.#at++, rest);
  }

  raw(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** A copy of what was written from position `start` on. */
  written(start: number): Uint8Array {
    return this.#bytes.slice(start, this.#at);
  }

  /** Replace bytes written before, at position `at`. */
  overwrite(at: number, bytes: Uint8Array): void {
    if (at + bytes.length > this.#at) throw new RangeError('nothing has been written there');
    this.#bytes.set(bytes, at);
  }

  /** Two bytes of length, then UTF-8. Longer text is cut at a character: what is sent as text is for display. */
  text(value: string, maxBytes: number): void {
    const space = this.#bytes.subarray(this.#at + 2, this.#at + 2 + maxBytes);
    const { written } = encoder.encodeInto(value, space);
    this.u16(written);
    this.#at += written;
  }
}

const encoder = new TextEncoder();

function checked(value: number, max: number): number {
  if (!Number.isSafeInteger(value) || value < 0 || value > max) {
    throw new RangeError(`${value} is not a whole number from 0 to ${max}`);
  }
  return value;
}
