/** Reads the fields of one body; every problem is a ProtocolError that names packet and field. */
import { ProtocolError } from './protocol-error.ts';

export class ByteReader {
  #name = '';
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #start = 0;
  #at = 0;
  #end = 0;
  #isOwn = false;

  /** Read `bytes[start, end)`, which belongs to a frame called `name`; the view covers all of `bytes`. */
  reset(name: string, bytes: Uint8Array, view: DataView, start: number, end: number): void {
    this.#name = name;
    this.#isOwn = false;
    this.#bytes = bytes;
    this.#view = view;
    this.#start = start;
    this.#at = start;
    this.#end = end;
  }

  /** Read a copy from here on: the bytes that were handed in may change. */
  own(): void {
    if (this.#isOwn) return;
    const bytes = this.all();
    this.reset(
      this.#name,
      bytes,
      new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
      0,
      bytes.length,
    );
    this.#isOwn = true;
  }

  error(field: string, problem: string): ProtocolError {
    return new ProtocolError(`${this.#name}.${field}`, problem);
  }

  u8(field: string): number {
    return this.#view.getUint8(this.#take(field, 1));
  }

  u16(field: string): number {
    return this.#view.getUint16(this.#take(field, 2));
  }

  u32(field: string): number {
    return this.#view.getUint32(this.#take(field, 4));
  }

  u64(field: string): number {
    const at = this.#take(field, 8);
    const high = this.#view.getUint32(at);
    if (high > 0x1f_ffff) throw this.error(field, 'is above 2^53 - 1');
    return high * 0x1_0000_0000 + this.#view.getUint32(at + 4);
  }

  generation(field: string): bigint {
    return this.#view.getBigUint64(this.#take(field, 8));
  }

  bool(field: string): boolean {
    const value = this.u8(field);
    if (value > 1) throw this.error(field, `is ${value}, neither 0 nor 1`);
    return value === 1;
  }

  /** A byte of flags; a bit outside `allowed` is reserved and must be zero. */
  flags(field: string, allowed: number): number {
    const value = this.u8(field);
    if ((value & ~allowed) !== 0) throw this.error(field, `has reserved bits set (0x${value.toString(16)})`);
    return value;
  }

  /** LEB128 in its shortest form, at most `max`. */
  varint(field: string, max: number): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.u8(field);
      value += (byte & 0x7f) * scale;
      if (value > max || scale > Number.MAX_SAFE_INTEGER / 0x80) throw this.error(field, `is above ${max}`);
      if (byte < 0x80) {
        if (byte === 0 && scale > 1) throw this.error(field, 'is not in its shortest form');
        return value;
      }
    }
  }

  /** A copy of the next `count` bytes. */
  raw(field: string, count: number): Uint8Array {
    const at = this.#take(field, count);
    return Uint8Array.prototype.slice.call(this.#bytes, at, at + count);
  }

  /** A copy of all of the body, read or not. */
  all(): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#bytes, this.#start, this.#end);
  }

  /** A copy of what has not been read yet, without reading it. */
  peekRest(): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#bytes, this.#at, this.#end);
  }

  text(field: string, maxBytes: number): string {
    const length = this.u16(field);
    if (length > maxBytes)
      throw this.error(field, `announces ${length} bytes, at most ${maxBytes} are allowed`);
    const at = this.#take(field, length);
    try {
      return decoder.decode(this.#bytes.subarray(at, at + length));
    } catch {
      throw this.error(field, 'is not UTF-8');
    }
  }

  /** Everything has been read. */
  finish(): void {
    if (this.#at !== this.#end) throw this.error('body', `has ${this.#end - this.#at} bytes too many`);
  }

  #take(field: string, count: number): number {
    const at = this.#at;
    if (at + count > this.#end) throw this.error(field, 'is cut short');
    this.#at = at + count;
    return at;
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
