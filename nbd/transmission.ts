/**
 * The transmission phase, the server's side: `validate` turns a request header into a command the device may be
 * given (or a refusal), `execute` hands it to the device and never checks again, the `reply...` functions write the
 * answer. Bytes are transmission-codec.ts; flow control and sockets are session.ts.
 */
import type { AllocationExtent, BlockDevice, DeviceError } from './block-device.ts';
import * as nbd from './constants.ts';
import { ALLOCATION_CONTEXT_ID } from './handshake.ts';
import type { Negotiated } from './handshake.ts';
import type { ReplyBuffer } from './reply-buffer.ts';
import {
  carriesPayload,
  chunkHeaderLength,
  encodeBlockStatusPayload,
  encodeErrorPayload,
  writeChunkHeader,
  writeSimpleReply,
} from './transmission-codec.ts';
import type { ReplyMode, Request, StatusDescriptor } from './transmission-codec.ts';

/** A request that passed every check; offset and length lie within the device. */
export type Command =
  | { readonly kind: 'read'; readonly offsetBytes: number; readonly lengthBytes: number }
  | {
      readonly kind: 'write';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly fua: boolean;
    }
  | { readonly kind: 'flush' }
  | {
      readonly kind: 'trim';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly fua: boolean;
    }
  | { readonly kind: 'cache'; readonly offsetBytes: number; readonly lengthBytes: number }
  | {
      readonly kind: 'writeZeroes';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly fua: boolean;
      readonly noHole: boolean;
      readonly fastZero: boolean;
    }
  | {
      readonly kind: 'blockStatus';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly reqOne: boolean;
    };

export interface RequestRefusal {
  readonly kind: 'refused';
  /** NBD error value. */
  readonly error: number;
  readonly message: string;
}

/** What to do about a request header. */
export type Intake =
  | { readonly kind: 'execute'; readonly command: Command }
  /** Read `payloadBytes` first: they are the data of a write. */
  | { readonly kind: 'receive'; readonly command: Command; readonly payloadBytes: number }
  /** Read `payloadBytes` first, then ask `validateStatusPayload`. */
  | { readonly kind: 'receiveStatusQuery'; readonly payloadBytes: number }
  /** Throw away `drainBytes` of payload, then answer the error; the connection stays usable. */
  | { readonly kind: 'refuse'; readonly refusal: RequestRefusal; readonly drainBytes: number }
  | { readonly kind: 'disconnect' }
  /** The stream is not worth following any further. */
  | { readonly kind: 'abandon'; readonly reason: string };

/** Most descriptors in one block status reply. Fewer than the document's 2^20 allows: it bounds the work of one request. */
export const MAX_STATUS_DESCRIPTORS = 4096;

export function validate(request: Request, negotiated: Negotiated): Intake {
  const { mode } = negotiated;
  if (request.type === nbd.NBD_CMD_DISC) return { kind: 'disconnect' };
  const payload = carriesPayload(request, mode);
  // "A server SHOULD initiate hard disconnect if a client sets the PAYLOAD_LEN flag and uses a length larger than
  // [the] maximum payload": 64 bits of payload cannot be waited for. A compact one is finite and is drained.
  if (payload && mode === 'extended' && request.length > nbd.MAXIMUM_PAYLOAD_SIZE)
    return { kind: 'abandon', reason: `a payload of ${request.length} bytes` };

  if (payload && request.type === nbd.NBD_CMD_BLOCK_STATUS && negotiated.allocation) {
    const flags = checkFlags(request, mode, true);
    // One context exists, so one id; a list that is longer repeats or invents one.
    if (flags === null && request.length === 12n) return { kind: 'receiveStatusQuery', payloadBytes: 12 };
    return refuseAfter(flags ?? refused(nbd.NBD_EINVAL, 'malformed block status payload'), request);
  }
  const command = check(request, negotiated);
  if (command.kind === 'refused') {
    if (payload) return refuseAfter(command, request);
    return { kind: 'refuse', refusal: command, drainBytes: 0 };
  }
  if (payload) return { kind: 'receive', command, payloadBytes: Number(request.length) };
  return { kind: 'execute', command };
}

/**
 * BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: effect length and the context ids to answer for
 * (extended headers, NBD_FLAG_BLOCK_STATUS_PAYLOAD). `payload` has 12 bytes.
 */
export function validateStatusPayload(
  request: Request,
  payload: Buffer,
  negotiated: Negotiated,
): Command | RequestRefusal {
  if (payload.readUInt32BE(8) !== ALLOCATION_CONTEXT_ID)
    return refused(nbd.NBD_EINVAL, 'unknown metadata context id');
  const flags = request.flags & ~nbd.NBD_CMD_FLAG_PAYLOAD_LEN;
  return check({ ...request, flags, length: payload.readBigUInt64BE(0) }, negotiated);
}

/** Where the outcome of a command goes; exactly one call. */
export interface Completion {
  /** `dataFree`: see WriteDone. */
  done(error: DeviceError | null, dataFree?: boolean): void;
  readDone(error: DeviceError | null, data: Uint8Array | null): void;
  statusDone(error: DeviceError | null, extents: readonly AllocationExtent[]): void;
}

const durable = { fua: true } as const;
const cached = { fua: false } as const;

/** `payload` is the data of a write, handed over; null for everything else. */
export function execute(
  device: BlockDevice,
  command: Command,
  payload: Uint8Array | null,
  completion: Completion,
): void {
  switch (command.kind) {
    case 'read':
      device.read(command.offsetBytes, command.lengthBytes, (error, data) => {
        completion.readDone(error, data);
      });
      return;
    case 'write':
      if (payload?.length !== command.lengthBytes) throw new Error('a write without its payload');
      device.write(command.offsetBytes, payload, command.fua ? durable : cached, (error, dataFree) => {
        completion.done(error, dataFree);
      });
      return;
    case 'flush':
      device.flush((error) => {
        completion.done(error);
      });
      return;
    case 'trim':
      device.trim(command.offsetBytes, command.lengthBytes, command.fua ? durable : cached, (error) => {
        completion.done(error);
      });
      return;
    case 'cache':
      device.cache(command.offsetBytes, command.lengthBytes, (error) => {
        completion.done(error);
      });
      return;
    case 'writeZeroes': {
      const { offsetBytes, lengthBytes, fua, noHole, fastZero } = command;
      device.writeZeroes(offsetBytes, lengthBytes, { fua, noHole, fastZero }, (error) => {
        completion.done(error);
      });
      return;
    }
    case 'blockStatus': {
      const { offsetBytes, lengthBytes, reqOne } = command;
      const most = reqOne ? 1 : MAX_STATUS_DESCRIPTORS;
      device.blockStatus(offsetBytes, lengthBytes, most, (error, extents) => {
        completion.statusDone(error, extents);
      });
      return;
    }
    default:
      command satisfies never;
  }
}

export function replyDone(replies: ReplyBuffer, mode: ReplyMode, request: Request): void {
  if (mode === 'simple') writeSimple(replies, 0, request.cookie);
  else writeChunk(replies, mode, nbd.NBD_REPLY_TYPE_NONE, 0, request);
}

/** A simple reply has no room for `message`. */
export function replyError(
  replies: ReplyBuffer,
  mode: ReplyMode,
  request: Request,
  error: number,
  message: string,
): void {
  if (mode === 'simple') {
    writeSimple(replies, error, request.cookie);
    return;
  }
  const payload = encodeErrorPayload(error, message);
  writeChunk(replies, mode, nbd.NBD_REPLY_TYPE_ERROR, payload.length, request);
  replies.append(payload);
}

/** One content chunk whatever its length, which satisfies NBD_CMD_FLAG_DF. Answers whether the data was copied. */
export function replyData(
  replies: ReplyBuffer,
  mode: ReplyMode,
  request: Request,
  data: Uint8Array,
): boolean {
  if (mode === 'simple') {
    writeSimple(replies, 0, request.cookie);
  } else {
    writeChunk(replies, mode, nbd.NBD_REPLY_TYPE_OFFSET_DATA, 8 + data.length, request);
    const at = replies.reserve(8);
    replies.page.writeBigUInt64BE(request.offset, at);
  }
  return replies.append(data);
}

/** Neighbours of equal state are told as one. Throws when the device broke its contract: a bug, not an error. */
export function replyBlockStatus(
  replies: ReplyBuffer,
  mode: ReplyMode,
  request: Request,
  lengthBytes: number,
  extents: readonly AllocationExtent[],
): void {
  if (mode === 'simple') throw new Error('block status without structured replies');
  const descriptors: StatusDescriptor[] = [];
  let covered = 0;
  for (const extent of extents) {
    if (!(extent.lengthBytes > 0)) throw new Error('the device told an extent of length zero');
    covered += extent.lengthBytes;
    const flags = (extent.hole ? nbd.NBD_STATE_HOLE : 0) | (extent.zero ? nbd.NBD_STATE_ZERO : 0);
    const last = descriptors.at(-1);
    if (last?.flags === flags)
      descriptors[descriptors.length - 1] = { flags, lengthBytes: last.lengthBytes + extent.lengthBytes };
    else descriptors.push({ flags, lengthBytes: extent.lengthBytes });
  }
  if (descriptors.length === 0 || covered > lengthBytes)
    throw new Error(`the device told ${extents.length} extents of ${covered} bytes for ${lengthBytes}`);
  const payload = encodeBlockStatusPayload(ALLOCATION_CONTEXT_ID, descriptors, mode);
  const type = mode === 'extended' ? nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT : nbd.NBD_REPLY_TYPE_BLOCK_STATUS;
  writeChunk(replies, mode, type, payload.length, request);
  replies.append(payload);
}

const errorValues: Record<DeviceError, number> = {
  EIO: nbd.NBD_EIO,
  ENOSPC: nbd.NBD_ENOSPC,
  EPERM: nbd.NBD_EPERM,
  EINVAL: nbd.NBD_EINVAL,
  ENOTSUP: nbd.NBD_ENOTSUP,
  ESHUTDOWN: nbd.NBD_ESHUTDOWN,
};

/** ENOTSUP may be told for WRITE_ZEROES with FAST_ZERO only. */
export function deviceErrorValue(error: DeviceError, command: Command): number {
  const mayBeUnsupported = command.kind === 'writeZeroes' && command.fastZero;
  return error === 'ENOTSUP' && !mayBeUnsupported ? nbd.NBD_EINVAL : errorValues[error];
}

function refused(error: number, message: string): RequestRefusal {
  return { kind: 'refused', error, message };
}

function refuseAfter(refusal: RequestRefusal, request: Request): Intake {
  return { kind: 'refuse', refusal, drainBytes: Number(request.length) };
}

/** Flags each command documents, beside FUA, which is accepted on all of them once advertised. */
function allowedFlags(type: number, mode: ReplyMode, statusPayload: boolean): number | null {
  switch (type) {
    case nbd.NBD_CMD_READ:
      return mode === 'simple' ? 0 : nbd.NBD_CMD_FLAG_DF;
    case nbd.NBD_CMD_WRITE:
      return mode === 'extended' ? nbd.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
    case nbd.NBD_CMD_FLUSH:
    case nbd.NBD_CMD_TRIM:
    case nbd.NBD_CMD_CACHE:
      return 0;
    case nbd.NBD_CMD_WRITE_ZEROES:
      return nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO;
    case nbd.NBD_CMD_BLOCK_STATUS:
      return nbd.NBD_CMD_FLAG_REQ_ONE | (statusPayload ? nbd.NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    default:
      return null;
  }
}

function checkFlags(request: Request, mode: ReplyMode, statusPayload: boolean): RequestRefusal | null {
  const allowed = allowedFlags(request.type, mode, statusPayload);
  if (allowed === null) return refused(nbd.NBD_EINVAL, `unknown command ${request.type}`);
  const excess = request.flags & ~(allowed | nbd.NBD_CMD_FLAG_FUA);
  if (excess === 0) return null;
  return refused(nbd.NBD_EINVAL, `command flags 0x${excess.toString(16)} are not valid here`);
}

/** Every rule about a request but its payload. Errors as "Error values" in the NBD document asks for them. */
function check(request: Request, negotiated: Negotiated): Command | RequestRefusal {
  const { mode } = negotiated;
  const { device, readOnly } = negotiated.export;
  const { type, flags } = request;
  const wrongFlags = checkFlags(request, mode, false);
  if (wrongFlags !== null) return wrongFlags;

  if (type === nbd.NBD_CMD_FLUSH) {
    if (request.offset !== 0n || Number(request.length) !== 0)
      return refused(nbd.NBD_EINVAL, 'flush takes neither offset nor length');
    return { kind: 'flush' };
  }
  const writes = type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES || type === nbd.NBD_CMD_TRIM;
  if (writes && readOnly) return refused(nbd.NBD_EPERM, 'the export is read-only');
  if (type === nbd.NBD_CMD_WRITE && mode === 'extended' && (flags & nbd.NBD_CMD_FLAG_PAYLOAD_LEN) === 0)
    return refused(nbd.NBD_EINVAL, 'a write without NBD_CMD_FLAG_PAYLOAD_LEN');
  if (type === nbd.NBD_CMD_BLOCK_STATUS && !negotiated.allocation)
    return refused(nbd.NBD_EINVAL, 'no metadata context was selected for this export');

  // The one place where 64 bits become numbers. Mixed comparisons are exact, and what passes the first is at most
  // the device's size, a safe integer; so no sum here can wrap or round.
  const { sizeBytes } = device;
  const beyond =
    request.offset > sizeBytes ||
    request.length > sizeBytes ||
    Number(request.length) > sizeBytes - Number(request.offset);
  if (beyond) {
    const error =
      type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES ? nbd.NBD_ENOSPC : nbd.NBD_EINVAL;
    return refused(error, `the request goes beyond the export's ${sizeBytes} bytes`);
  }
  const offsetBytes = Number(request.offset);
  const lengthBytes = Number(request.length);
  // Unspecified by the document; a status of nothing could not be answered with an extent of some length.
  if (lengthBytes === 0) return refused(nbd.NBD_EINVAL, 'the request has length zero');

  const fua = (flags & nbd.NBD_CMD_FLAG_FUA) !== 0;
  switch (type) {
    case nbd.NBD_CMD_READ:
      if (lengthBytes > nbd.MAXIMUM_PAYLOAD_SIZE)
        return refused(mode === 'simple' ? nbd.NBD_EINVAL : nbd.NBD_EOVERFLOW, tooLong('read'));
      return { kind: 'read', offsetBytes, lengthBytes };
    case nbd.NBD_CMD_WRITE:
      if (lengthBytes > nbd.MAXIMUM_PAYLOAD_SIZE) return refused(nbd.NBD_EINVAL, tooLong('write'));
      return { kind: 'write', offsetBytes, lengthBytes, fua };
    case nbd.NBD_CMD_TRIM:
      return { kind: 'trim', offsetBytes, lengthBytes, fua };
    case nbd.NBD_CMD_CACHE:
      return { kind: 'cache', offsetBytes, lengthBytes };
    case nbd.NBD_CMD_WRITE_ZEROES:
      return {
        kind: 'writeZeroes',
        offsetBytes,
        lengthBytes,
        fua,
        noHole: (flags & nbd.NBD_CMD_FLAG_NO_HOLE) !== 0,
        fastZero: (flags & nbd.NBD_CMD_FLAG_FAST_ZERO) !== 0,
      };
    case nbd.NBD_CMD_BLOCK_STATUS:
      return {
        kind: 'blockStatus',
        offsetBytes,
        lengthBytes,
        reqOne: (flags & nbd.NBD_CMD_FLAG_REQ_ONE) !== 0,
      };
    default:
      throw new Error(`command ${type} passed the check of its flags`);
  }
}

function tooLong(what: string): string {
  return `a ${what} may carry at most ${nbd.MAXIMUM_PAYLOAD_SIZE} bytes`;
}

function writeSimple(replies: ReplyBuffer, error: number, cookie: bigint): void {
  const at = replies.reserve(nbd.SIMPLE_REPLY_LENGTH);
  writeSimpleReply(replies.page, at, error, cookie);
}

/** Every reply of ours is a single chunk, so it is the last as well. */
function writeChunk(
  replies: ReplyBuffer,
  mode: 'structured' | 'extended',
  type: number,
  payloadBytes: number,
  request: Request,
): void {
  const at = replies.reserve(chunkHeaderLength(mode));
  writeChunkHeader(replies.page, at, mode, { flags: nbd.NBD_REPLY_FLAG_DONE, type, payloadBytes }, request);
}
