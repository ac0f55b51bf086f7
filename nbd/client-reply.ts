/** One request's reply as a client collects it, chunk by chunk ("Structured reply types" in the NBD document). */
import { NbdRequestError } from './client-errors.ts';
import * as nbd from './constants.ts';
import { NbdProtocolError } from './protocol-error.ts';
import { decodeBlockStatusPayload, decodeErrorPayload } from './transmission-codec.ts';
import type { ReplyHeader, ReplyMode, Request, StatusDescriptor } from './transmission-codec.ts';

export interface NbdReply {
  /** What was read; empty for everything but a read. */
  readonly data: Buffer;
  /** Block status by context name; empty for everything but that. */
  readonly statuses: ReadonlyMap<string, readonly StatusDescriptor[]>;
}

const noData = Buffer.alloc(0);
/** An error chunk: fixed part, message, offset. Unknown kinds of errors may say a little more. */
const MAX_ERROR_CHUNK = 6 + nbd.NBD_MAX_STRING + 1024;
const MAX_STATUS_CHUNK = 8 + 16 * (1 << 20);

export class ExpectedReply {
  readonly #request: Request;
  readonly #mode: ReplyMode;
  readonly #contexts: ReadonlyMap<number, string>;
  /** Content chunks so far, by offset within the request; null data is a hole. */
  readonly #parts: { readonly at: number; readonly length: number; readonly data: Buffer | null }[] = [];
  readonly #statuses = new Map<string, readonly StatusDescriptor[]>();
  #error: NbdRequestError | null = null;

  constructor(request: Request, mode: ReplyMode, contexts: ReadonlyMap<number, string>) {
    this.#request = request;
    this.#mode = mode;
    this.#contexts = contexts;
  }

  /** How many bytes follow the header. Throws NbdProtocolError when the header cannot belong to this request. */
  payloadLength(header: ReplyHeader): number {
    const isRead = this.#request.type === nbd.NBD_CMD_READ;
    if (header.kind === 'simple') {
      if (isRead && this.#mode !== 'simple')
        throw new NbdProtocolError('a simple reply to a read, though structured replies were negotiated');
      return isRead && header.error === 0 ? Number(this.#request.length) : 0;
    }
    if (header.requestOffset !== null && header.requestOffset !== this.#request.offset)
      throw new NbdProtocolError('an extended reply that repeats another offset than the request has');
    if (header.payloadBytes > this.#longestPayload(header.type, isRead))
      throw new NbdProtocolError(`a chunk of type ${header.type} with ${header.payloadBytes} bytes`);
    return header.payloadBytes;
  }

  /** One more piece. Null while more must come; the reply, or the error, when it is complete. */
  add(header: ReplyHeader, payload: Buffer): NbdReply | NbdRequestError | null {
    if (header.kind === 'simple') {
      if (header.error !== 0) return new NbdRequestError(header.error, '');
      return { data: payload, statuses: this.#statuses };
    }
    this.#addChunk(header.type, payload);
    if ((header.flags & nbd.NBD_REPLY_FLAG_DONE) === 0) return null;
    return this.#error ?? { data: this.#assemble(), statuses: this.#statuses };
  }

  #longestPayload(type: number, isRead: boolean): number {
    if (type >= 0x8000) return MAX_ERROR_CHUNK;
    switch (type) {
      case nbd.NBD_REPLY_TYPE_NONE:
        return 0;
      case nbd.NBD_REPLY_TYPE_OFFSET_DATA:
        return isRead ? 8 + Number(this.#request.length) : -1;
      case nbd.NBD_REPLY_TYPE_OFFSET_HOLE:
        return isRead ? 12 : -1;
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS:
        return this.#mode === 'structured' ? MAX_STATUS_CHUNK : -1;
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        return this.#mode === 'extended' ? MAX_STATUS_CHUNK : -1;
      default:
        throw new NbdProtocolError(`a chunk of unknown type ${type}`);
    }
  }

  #addChunk(type: number, payload: Buffer): void {
    if (type >= 0x8000) {
      const { error, message } = decodeErrorPayload(payload);
      this.#error ??= new NbdRequestError(error, message);
      return;
    }
    switch (type) {
      case nbd.NBD_REPLY_TYPE_OFFSET_DATA:
        if (payload.length < 9) throw new NbdProtocolError('a content chunk without content');
        this.#addContent(payload.readBigUInt64BE(0), payload.length - 8, payload.subarray(8));
        return;
      case nbd.NBD_REPLY_TYPE_OFFSET_HOLE:
        if (payload.length !== 12 || payload.readUInt32BE(8) === 0)
          throw new NbdProtocolError('a malformed hole');
        this.#addContent(payload.readBigUInt64BE(0), payload.readUInt32BE(8), null);
        return;
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS:
      case nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        this.#addStatus(payload);
        return;
      default:
        return;
    }
  }

  #addContent(offset: bigint, length: number, data: Buffer | null): void {
    const at = Number(offset - this.#request.offset);
    if (at < 0 || at + length > Number(this.#request.length))
      throw new NbdProtocolError('a content chunk outside of its request');
    if (this.#parts.some((part) => at < part.at + part.length && part.at < at + length))
      throw new NbdProtocolError('content chunks that overlap');
    this.#parts.push({ at, length, data });
  }

  #addStatus(payload: Buffer): void {
    if (this.#mode === 'simple' || this.#request.type !== nbd.NBD_CMD_BLOCK_STATUS)
      throw new NbdProtocolError('block status that nobody asked for');
    const { contextId, descriptors } = decodeBlockStatusPayload(payload, this.#mode);
    const name = this.#contexts.get(contextId);
    if (name === undefined || this.#statuses.has(name))
      throw new NbdProtocolError(`block status of context ${contextId}, unknown or told before`);
    this.#statuses.set(name, descriptors);
  }

  #assemble(): Buffer {
    if (this.#request.type !== nbd.NBD_CMD_READ) return noData;
    const length = Number(this.#request.length);
    const [only] = this.#parts;
    if (this.#parts.length === 1 && only?.length === length && only.data !== null) return only.data;
    let covered = 0;
    const whole = Buffer.alloc(length);
    for (const part of this.#parts) {
      part.data?.copy(whole, part.at);
      covered += part.length;
    }
    if (covered !== length) throw new NbdProtocolError(`a read of ${length} bytes got ${covered}`);
    return whole;
  }
}
