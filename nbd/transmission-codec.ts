/**
 * The transmission phase as bytes <-> values ("Request message", "Simple reply message", "Structured reply chunk
 * message" in the NBD document; the extended forms of its branch extension-ext-header), for server and client.
 * Replies are written into a buffer the caller reserves: the hot path makes no allocation per reply.
 */
import * as nbd from './constants.ts';
import { NbdProtocolError } from './protocol-error.ts';

/** How replies look, as negotiated. Extended headers change requests as well. */
export type ReplyMode = 'simple' | 'structured' | 'extended';

export interface Request {
  readonly type: number;
  readonly flags: number;
  /** Eight opaque bytes of the client. */
  readonly cookie: bigint;
  /** Unsigned 64 bits, as it came: unchecked. */
  readonly offset: bigint;
  /** Effect length, or payload length (see `carriesPayload`); 32 bits compact, 64 bits extended. Unchecked. */
  readonly length: bigint | number;
}

export function requestHeaderLength(mode: ReplyMode): number {
  return mode === 'extended' ? nbd.EXTENDED_REQUEST_LENGTH : nbd.REQUEST_LENGTH;
}

/** `bytes` has the header's length. Throws NbdProtocolError when the magic is wrong. */
export function decodeRequest(bytes: Buffer, mode: ReplyMode): Request {
  const extended = mode === 'extended';
  const magic = bytes.readUInt32BE(0);
  if (magic !== (extended ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC))
    throw new NbdProtocolError(`wrong request magic 0x${magic.toString(16).padStart(8, '0')}`);
  return {
    flags: bytes.readUInt16BE(4),
    type: bytes.readUInt16BE(6),
    cookie: bytes.readBigUInt64BE(8),
    offset: bytes.readBigUInt64BE(16),
    length: extended ? bytes.readBigUInt64BE(24) : bytes.readUInt32BE(24),
  };
}

/** Whether `length` bytes follow the header: any WRITE, with extended headers whatever says so. */
export function carriesPayload(request: Request, mode: ReplyMode): boolean {
  return mode === 'extended'
    ? (request.flags & nbd.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0
    : request.type === nbd.NBD_CMD_WRITE;
}

export function encodeRequest(request: Request, mode: ReplyMode): Buffer {
  const bytes = Buffer.allocUnsafe(requestHeaderLength(mode));
  const extended = mode === 'extended';
  bytes.writeUInt32BE(extended ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(request.flags, 4);
  bytes.writeUInt16BE(request.type, 6);
  bytes.writeBigUInt64BE(request.cookie, 8);
  bytes.writeBigUInt64BE(request.offset, 16);
  if (extended) bytes.writeBigUInt64BE(BigInt(request.length), 24);
  else bytes.writeUInt32BE(Number(request.length), 24);
  return bytes;
}

export function writeSimpleReply(bytes: Buffer, at: number, error: number, cookie: bigint): void {
  bytes.writeUInt32BE(nbd.NBD_SIMPLE_REPLY_MAGIC, at);
  bytes.writeUInt32BE(error, at + 4);
  bytes.writeBigUInt64BE(cookie, at + 8);
}

/** Length of what `writeChunkHeader` writes. */
export function chunkHeaderLength(mode: 'structured' | 'extended'): number {
  return mode === 'extended' ? nbd.EXTENDED_REPLY_LENGTH : nbd.STRUCTURED_REPLY_LENGTH;
}

export function writeChunkHeader(
  bytes: Buffer,
  at: number,
  mode: 'structured' | 'extended',
  chunk: { readonly flags: number; readonly type: number; readonly payloadBytes: number },
  request: Pick<Request, 'cookie' | 'offset'>,
): void {
  const extended = mode === 'extended';
  bytes.writeUInt32BE(extended ? nbd.NBD_EXTENDED_REPLY_MAGIC : nbd.NBD_STRUCTURED_REPLY_MAGIC, at);
  bytes.writeUInt16BE(chunk.flags, at + 4);
  bytes.writeUInt16BE(chunk.type, at + 6);
  bytes.writeBigUInt64BE(request.cookie, at + 8);
  if (extended) {
    bytes.writeBigUInt64BE(request.offset, at + 16);
    bytes.writeUInt32BE(0, at + 24);
    bytes.writeUInt32BE(chunk.payloadBytes, at + 28);
  } else {
    bytes.writeUInt32BE(chunk.payloadBytes, at + 16);
  }
}

/** Payload of NBD_REPLY_TYPE_ERROR. */
export function encodeErrorPayload(error: number, message: string): Buffer {
  const text = Buffer.from(message).subarray(0, nbd.NBD_MAX_STRING);
  const bytes = Buffer.alloc(6 + text.length);
  bytes.writeUInt32BE(error, 0);
  bytes.writeUInt16BE(text.length, 4);
  text.copy(bytes, 6);
  return bytes;
}

/** One descriptor of a block status reply. */
export interface StatusDescriptor {
  readonly lengthBytes: number;
  readonly flags: number;
}

/** Payload of NBD_REPLY_TYPE_BLOCK_STATUS (structured) or NBD_REPLY_TYPE_BLOCK_STATUS_EXT (extended). */
export function encodeBlockStatusPayload(
  contextId: number,
  descriptors: readonly StatusDescriptor[],
  mode: 'structured' | 'extended',
): Buffer {
  if (mode === 'structured') {
    const bytes = Buffer.alloc(4 + 8 * descriptors.length);
    bytes.writeUInt32BE(contextId, 0);
    descriptors.forEach(({ lengthBytes, flags }, index) => {
      bytes.writeUInt32BE(lengthBytes, 4 + 8 * index);
      bytes.writeUInt32BE(flags, 8 + 8 * index);
    });
    return bytes;
  }
  const bytes = Buffer.alloc(8 + 16 * descriptors.length);
  bytes.writeUInt32BE(contextId, 0);
  bytes.writeUInt32BE(descriptors.length, 4);
  descriptors.forEach(({ lengthBytes, flags }, index) => {
    bytes.writeBigUInt64BE(BigInt(lengthBytes), 8 + 16 * index);
    bytes.writeBigUInt64BE(BigInt(flags), 16 + 16 * index);
  });
  return bytes;
}

/** What a client finds at the front of a reply. */
export type ReplyHeader =
  | { readonly kind: 'simple'; readonly cookie: bigint; readonly error: number }
  | {
      readonly kind: 'chunk';
      readonly cookie: bigint;
      readonly flags: number;
      readonly type: number;
      readonly payloadBytes: number;
      /** Extended headers only: the offset of the request, repeated. */
      readonly requestOffset: bigint | null;
    };

/**
 * Length of the reply header whose first four bytes are given. Throws NbdProtocolError when the magic is
 * wrong, or not allowed by what was negotiated.
 */
export function replyHeaderLength(magic: number, mode: ReplyMode): number {
  if (mode === 'extended') {
    if (magic === nbd.NBD_EXTENDED_REPLY_MAGIC) return nbd.EXTENDED_REPLY_LENGTH;
  } else {
    if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC) return nbd.SIMPLE_REPLY_LENGTH;
    if (magic === nbd.NBD_STRUCTURED_REPLY_MAGIC && mode === 'structured') return nbd.STRUCTURED_REPLY_LENGTH;
  }
  throw new NbdProtocolError(`wrong reply magic 0x${magic.toString(16).padStart(8, '0')}`);
}

/** `bytes` has the length `replyHeaderLength` tells. */
export function decodeReplyHeader(bytes: Buffer): ReplyHeader {
  const magic = bytes.readUInt32BE(0);
  const cookie = bytes.readBigUInt64BE(8);
  if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC) return { kind: 'simple', cookie, error: bytes.readUInt32BE(4) };
  const flags = bytes.readUInt16BE(4);
  const type = bytes.readUInt16BE(6);
  if (magic === nbd.NBD_STRUCTURED_REPLY_MAGIC)
    return { kind: 'chunk', cookie, flags, type, payloadBytes: bytes.readUInt32BE(16), requestOffset: null };
  const length = bytes.readBigUInt64BE(24);
  if (length > 0xffff_ffffn) throw new NbdProtocolError(`a reply announces ${length} bytes`);
  return {
    kind: 'chunk',
    cookie,
    flags,
    type,
    payloadBytes: Number(length),
    requestOffset: bytes.readBigUInt64BE(16),
  };
}

/** Error value and message of any error chunk. Throws NbdProtocolError when the message exceeds the chunk. */
export function decodeErrorPayload(payload: Buffer): { error: number; message: string } {
  const length = payload.length >= 6 ? payload.readUInt16BE(4) : 0;
  if (payload.length < 6 + length) throw new NbdProtocolError('an error chunk is shorter than its message');
  return { error: payload.readUInt32BE(0), message: payload.toString('utf8', 6, 6 + length) };
}

/** Throws NbdProtocolError unless there is at least one descriptor and each has a length. */
export function decodeBlockStatusPayload(
  payload: Buffer,
  mode: 'structured' | 'extended',
): { contextId: number; descriptors: readonly StatusDescriptor[] } {
  const [fixed, each] = mode === 'extended' ? [8, 16] : [4, 8];
  const count = (payload.length - fixed) / each;
  if (!Number.isInteger(count) || count < 1)
    throw new NbdProtocolError(`a block status chunk of ${payload.length} bytes`);
  if (mode === 'extended' && payload.readUInt32BE(4) !== count)
    throw new NbdProtocolError('a block status chunk counts its descriptors wrongly');
  const descriptors: StatusDescriptor[] = [];
  for (let at = fixed; at < payload.length; at += each) {
    const lengthBytes = mode === 'extended' ? Number(payload.readBigUInt64BE(at)) : payload.readUInt32BE(at);
    const flags =
      mode === 'extended' ? Number(payload.readBigUInt64BE(at + 8)) : payload.readUInt32BE(at + 4);
    if (lengthBytes === 0) throw new NbdProtocolError('a block status descriptor of length zero');
    descriptors.push({ lengthBytes, flags });
  }
  return { contextId: payload.readUInt32BE(0), descriptors };
}
