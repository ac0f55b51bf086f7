/**
 * Frames of one direction of a connection: header, body, payload. Frames that leave together are written back to back into
 * one slab, payloads too unless they are long: those stay where they are and are handed on as they came. A slab is
 * written again once its sender says that all of it has left.
 */
import { ByteWriter } from './byte-writer.ts';
import { frameMagic, headerBytes, headerLayout, maxBodyBytes } from './constants.ts';
import { crc32c } from './crc32c.ts';
import { maxPayloadBytes } from '../core/vocabulary.ts';

/** Room for what a client has in flight at queue 32 with 4 KiB each. Pages that are never written cost no memory. */
const slabBytes = 256 * 1024;
/** Up to here a copy costs less than one more element of a gather write. */
const copyBytesMax = 16 * 1024;

export class FrameEncoder {
  readonly #writer = new ByteWriter();
  #slab = new Uint8Array(0);
  #view = new DataView(this.#slab.buffer);
  /** The slab from here to `#end` holds frames that are not in `#chunks` yet. */
  #start = 0;
  /** Where the next frame begins; bytes before it are never written again, as they may be on their way out. */
  #end = 0;
  #chunks: Uint8Array[] = [];
  #pendingBytes = 0;
  #sequence = 0;

  /** Bytes encoded and not yet taken. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Space for a body of up to `bodyBytesMax`; write it, then call `end`. */
  begin(bodyBytesMax: number): ByteWriter {
    this.#reserve(headerBytes + bodyBytesMax);
    this.#writer.reset(this.#slab, this.#view, this.#end + headerBytes);
    return this.#writer;
  }

  /** All that `take` has handed out is with the network: its memory may be written again. */
  reuse(): void {
    if (this.#chunks.length > 0 || this.#end > this.#start) return;
    this.#start = 0;
    this.#end = 0;
  }

  /** Room for `needed` bytes behind `#end`; what was written there after it is kept. */
  #reserve(needed: number, writtenBytes = 0): void {
    if (this.#end + needed <= this.#slab.length) return;
    const from = this.#slab;
    const at = this.#end;
    this.#closeSlab();
    // Not from Buffer's shared pool: what goes to the network must not share memory with anything else.
    this.#slab = new Uint8Array(Math.max(slabBytes, needed));
    this.#view = new DataView(this.#slab.buffer);
    this.#slab.set(from.subarray(at, at + writtenBytes));
    this.#start = 0;
    this.#end = 0;
  }

  /** The body is written: put the header before it and the payload behind it. */
  end(type: number, payload: Uint8Array | null): void {
    const bodyLength = this.#writer.at - this.#end - headerBytes;
    const payloadLength = payload === null ? 0 : payload.length;
    if (bodyLength > maxBodyBytes) throw new RangeError(`a body of ${bodyLength} bytes is above the bound`);
    if (payloadLength > maxPayloadBytes)
      throw new RangeError(`a payload of ${payloadLength} bytes is too long`);
    const isCopied = payloadLength <= copyBytesMax;
    if (isCopied) this.#reserve(headerBytes + bodyLength + payloadLength, headerBytes + bodyLength);
    const header = this.#end;
    const bodyEnd = header + headerBytes + bodyLength;
    let crc = crc32c(this.#slab, header + headerBytes, bodyEnd);
    if (payload !== null) crc = crc32c(payload, 0, payloadLength, crc);
    const view = this.#view;
    view.setUint32(header + headerLayout.magic, frameMagic);
    view.setUint8(header + headerLayout.type, type);
    view.setUint8(header + headerLayout.flags, 0);
    view.setUint16(header + headerLayout.reserved, 0);
    view.setUint32(header + headerLayout.bodyLength, bodyLength);
    view.setUint32(header + headerLayout.payloadLength, payloadLength);
    view.setUint32(header + headerLayout.sequence, Math.floor(this.#sequence / 0x1_0000_0000));
    view.setUint32(header + headerLayout.sequence + 4, this.#sequence >>> 0);
    view.setUint32(header + headerLayout.contentCrc, crc);
    view.setUint32(
      header + headerLayout.headerCrc,
      crc32c(this.#slab, header, header + headerLayout.headerCrc),
    );
    this.#sequence += 1;
    this.#end = bodyEnd;
    this.#pendingBytes += headerBytes + bodyLength + payloadLength;
    if (payload === null || payloadLength === 0) return;
    if (isCopied) {
      this.#slab.set(payload, bodyEnd);
      this.#end += payloadLength;
      return;
    }
    this.#closeSlab();
    this.#chunks.push(payload);
  }

  /** All that was encoded since the last call, in order, ready for one `writev`. */
  take(): readonly Uint8Array[] {
    this.#closeSlab();
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#pendingBytes = 0;
    return chunks;
  }

  #closeSlab(): void {
    if (this.#end > this.#start) this.#chunks.push(this.#slab.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }
}
