/**
 * The handshake phase as bytes <-> values ("Newstyle negotiation", "Option types", "Option reply types" in the
 * NBD document), for server and client. No socket, no state; what an option means is handshake.ts.
 */
import * as nbd from './constants.ts';
import { NbdProtocolError } from './protocol-error.ts';

export interface OptionHeader {
  readonly option: number;
  readonly lengthBytes: number;
}

/** An option of a client, with its data taken apart. */
export type ClientOption =
  | { readonly kind: 'exportName'; readonly exportName: string }
  | { readonly kind: 'abort' }
  | { readonly kind: 'list' }
  | { readonly kind: 'startTls' }
  | {
      readonly kind: 'info' | 'go';
      readonly exportName: string;
      /** NBD_INFO values the client asks for, known or not. */
      readonly infoRequests: readonly number[];
    }
  | { readonly kind: 'structuredReply' }
  | { readonly kind: 'extendedHeaders' }
  | {
      readonly kind: 'listMetaContext' | 'setMetaContext';
      readonly exportName: string;
      readonly queries: readonly string[];
    }
  /** Known, but its data breaks the rules of the document. */
  | { readonly kind: 'malformed'; readonly option: number; readonly reason: string }
  /** Longer than the server reads; its data was skipped. */
  | { readonly kind: 'tooBig'; readonly option: number }
  | { readonly kind: 'unknown'; readonly option: number };

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });
const noData = Buffer.alloc(0);

export function encodeServerGreeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(nbd.NBDMAGIC, 0);
  bytes.writeBigUInt64BE(nbd.IHAVEOPT, 8);
  bytes.writeUInt16BE(nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES, 16);
  return bytes;
}

/** The handshake flags of an 18-byte greeting. Throws NbdProtocolError for anything but newstyle. */
export function decodeServerGreeting(bytes: Buffer): number {
  if (bytes.readBigUInt64BE(0) !== nbd.NBDMAGIC) throw new NbdProtocolError('the server does not speak NBD');
  if (bytes.readBigUInt64BE(8) !== nbd.IHAVEOPT)
    throw new NbdProtocolError('the server speaks oldstyle NBD only');
  return bytes.readUInt16BE(16);
}

export function encodeClientFlags(flags: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(flags);
  return bytes;
}

/** Throws NbdProtocolError on any unknown bit ("the server MUST drop the TCP connection"). */
export function decodeClientFlags(bytes: Buffer): { fixedNewstyle: boolean; noZeroes: boolean } {
  const flags = bytes.readUInt32BE(0);
  if ((flags & ~(nbd.NBD_FLAG_C_FIXED_NEWSTYLE | nbd.NBD_FLAG_C_NO_ZEROES)) !== 0)
    throw new NbdProtocolError(`unknown client flags 0x${flags.toString(16)}`);
  return {
    fixedNewstyle: (flags & nbd.NBD_FLAG_C_FIXED_NEWSTYLE) !== 0,
    noZeroes: (flags & nbd.NBD_FLAG_C_NO_ZEROES) !== 0,
  };
}

export function encodeOption(option: number, data: Buffer = noData): Buffer {
  const header = Buffer.alloc(nbd.OPTION_HEADER_LENGTH);
  header.writeBigUInt64BE(nbd.IHAVEOPT, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

/** Throws NbdProtocolError when the magic is wrong. */
export function decodeOptionHeader(bytes: Buffer): OptionHeader {
  if (bytes.readBigUInt64BE(0) !== nbd.IHAVEOPT) throw new NbdProtocolError('wrong magic before an option');
  return { option: bytes.readUInt32BE(8), lengthBytes: bytes.readUInt32BE(12) };
}

/** Never throws: data that breaks the rules yields `malformed`. */
export function decodeOption(option: number, data: Buffer): ClientOption {
  try {
    return decodeKnownOption(option, data);
  } catch (error) {
    if (!(error instanceof MalformedOption)) throw error;
    return { kind: 'malformed', option, reason: error.message };
  }
}

export function encodeOptionReply(reply: OptionReply): Buffer {
  const header = Buffer.alloc(nbd.OPTION_REPLY_HEADER_LENGTH);
  header.writeBigUInt64BE(nbd.NBD_REP_MAGIC, 0);
  header.writeUInt32BE(reply.option, 8);
  header.writeUInt32BE(reply.type, 12);
  header.writeUInt32BE(reply.data.length, 16);
  return Buffer.concat([header, reply.data]);
}

/** Throws NbdProtocolError when the magic is wrong. */
export function decodeOptionReplyHeader(bytes: Buffer): {
  option: number;
  type: number;
  lengthBytes: number;
} {
  if (bytes.readBigUInt64BE(0) !== nbd.NBD_REP_MAGIC)
    throw new NbdProtocolError('wrong magic before an option reply');
  return { option: bytes.readUInt32BE(8), type: bytes.readUInt32BE(12), lengthBytes: bytes.readUInt32BE(16) };
}

/** The answer to EXPORT_NAME, which has no header. `zeroes`: 124 of them follow, unless NO_ZEROES was agreed. */
export function encodeExportNameReply(sizeBytes: number, transmissionFlags: number, zeroes: boolean): Buffer {
  const bytes = Buffer.alloc(zeroes ? 134 : 10);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0);
  bytes.writeUInt16BE(transmissionFlags, 8);
  return bytes;
}

/** Data of GO and INFO. */
export function encodeExportRequest(exportName: string, infoRequests: readonly number[]): Buffer {
  const name = Buffer.from(exportName);
  const bytes = Buffer.alloc(4 + name.length + 2 + 2 * infoRequests.length);
  bytes.writeUInt32BE(name.length, 0);
  name.copy(bytes, 4);
  bytes.writeUInt16BE(infoRequests.length, 4 + name.length);
  infoRequests.forEach((info, index) => bytes.writeUInt16BE(info, 6 + name.length + 2 * index));
  return bytes;
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function encodeMetaContextRequest(exportName: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([lengthAndString(exportName), count, ...queries.map(lengthAndString)]);
}

/** Data of NBD_REP_SERVER. */
export function encodeServerReply(name: string, description: string): Buffer {
  return Buffer.concat([lengthAndString(name), Buffer.from(description)]);
}

export function decodeServerReply(data: Buffer): { name: string; description: string } {
  const length = data.length >= 4 ? data.readUInt32BE(0) : 0;
  if (data.length < 4 + length) throw new NbdProtocolError('an export name exceeds its NBD_REP_SERVER');
  return { name: data.toString('utf8', 4, 4 + length), description: data.toString('utf8', 4 + length) };
}

/** Data of NBD_REP_META_CONTEXT. */
export function encodeMetaContextReply(id: number, name: string): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(id);
  return Buffer.concat([bytes, Buffer.from(name)]);
}

export function decodeMetaContextReply(data: Buffer): { id: number; name: string } {
  if (data.length < 4) throw new NbdProtocolError('an NBD_REP_META_CONTEXT is too short');
  return { id: data.readUInt32BE(0), name: data.toString('utf8', 4) };
}

/** Data of NBD_REP_INFO, as far as we know the information type. */
export type ExportInformation =
  | { readonly info: 'export'; readonly sizeBytes: number; readonly transmissionFlags: number }
  | { readonly info: 'name' | 'description'; readonly text: string }
  | {
      readonly info: 'blockSize';
      readonly minimumBytes: number;
      readonly preferredBytes: number;
      readonly maximumPayloadBytes: number;
    }
  | { readonly info: 'unknown'; readonly type: number };

export function encodeInformation(information: Exclude<ExportInformation, { info: 'unknown' }>): Buffer {
  switch (information.info) {
    case 'export': {
      const bytes = Buffer.alloc(12);
      bytes.writeUInt16BE(nbd.NBD_INFO_EXPORT, 0);
      bytes.writeBigUInt64BE(BigInt(information.sizeBytes), 2);
      bytes.writeUInt16BE(information.transmissionFlags, 10);
      return bytes;
    }
    case 'name':
    case 'description': {
      const type = Buffer.alloc(2);
      type.writeUInt16BE(information.info === 'name' ? nbd.NBD_INFO_NAME : nbd.NBD_INFO_DESCRIPTION);
      return Buffer.concat([type, Buffer.from(information.text)]);
    }
    case 'blockSize': {
      const bytes = Buffer.alloc(14);
      bytes.writeUInt16BE(nbd.NBD_INFO_BLOCK_SIZE, 0);
      bytes.writeUInt32BE(information.minimumBytes, 2);
      bytes.writeUInt32BE(information.preferredBytes, 6);
      bytes.writeUInt32BE(information.maximumPayloadBytes, 10);
      return bytes;
    }
    default:
      return information satisfies never;
  }
}

export function decodeInformation(data: Buffer): ExportInformation {
  if (data.length < 2) throw new NbdProtocolError('an NBD_REP_INFO is too short');
  const type = data.readUInt16BE(0);
  switch (type) {
    case nbd.NBD_INFO_EXPORT:
      requireLength(data, 12);
      return { info: 'export', sizeBytes: exportSize(data, 2), transmissionFlags: data.readUInt16BE(10) };
    case nbd.NBD_INFO_NAME:
      return { info: 'name', text: data.toString('utf8', 2) };
    case nbd.NBD_INFO_DESCRIPTION:
      return { info: 'description', text: data.toString('utf8', 2) };
    case nbd.NBD_INFO_BLOCK_SIZE:
      requireLength(data, 14);
      return {
        info: 'blockSize',
        minimumBytes: data.readUInt32BE(2),
        preferredBytes: data.readUInt32BE(6),
        maximumPayloadBytes: data.readUInt32BE(10),
      };
    default:
      return { info: 'unknown', type };
  }
}

/** The first ten bytes of the answer to EXPORT_NAME. */
export function decodeExportNameReply(bytes: Buffer): { sizeBytes: number; transmissionFlags: number } {
  return { sizeBytes: exportSize(bytes, 0), transmissionFlags: bytes.readUInt16BE(8) };
}

function exportSize(bytes: Buffer, at: number): number {
  const size = bytes.readBigUInt64BE(at);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new NbdProtocolError(`export size ${size} is too large`);
  return Number(size);
}

function requireLength(data: Buffer, length: number): void {
  if (data.length !== length)
    throw new NbdProtocolError(`an NBD_REP_INFO has ${data.length} bytes instead of ${length}`);
}

function lengthAndString(text: string): Buffer {
  const string = Buffer.from(text);
  const bytes = Buffer.alloc(4 + string.length);
  bytes.writeUInt32BE(string.length, 0);
  string.copy(bytes, 4);
  return bytes;
}

class MalformedOption extends Error {}

function decodeKnownOption(option: number, data: Buffer): ClientOption {
  switch (option) {
    case nbd.NBD_OPT_EXPORT_NAME:
      return { kind: 'exportName', exportName: exportNameOf(data) };
    case nbd.NBD_OPT_ABORT:
      // "a server SHOULD ignore any data sent by the client rather than rejecting the request"
      return { kind: 'abort' };
    case nbd.NBD_OPT_LIST:
      return withoutData({ kind: 'list' }, data);
    case nbd.NBD_OPT_STARTTLS:
      return withoutData({ kind: 'startTls' }, data);
    case nbd.NBD_OPT_STRUCTURED_REPLY:
      return withoutData({ kind: 'structuredReply' }, data);
    case nbd.NBD_OPT_EXTENDED_HEADERS:
      return withoutData({ kind: 'extendedHeaders' }, data);
    case nbd.NBD_OPT_INFO:
      return decodeExportRequest('info', data);
    case nbd.NBD_OPT_GO:
      return decodeExportRequest('go', data);
    case nbd.NBD_OPT_LIST_META_CONTEXT:
      return decodeMetaContextRequest('listMetaContext', data);
    case nbd.NBD_OPT_SET_META_CONTEXT:
      return decodeMetaContextRequest('setMetaContext', data);
    default:
      return { kind: 'unknown', option };
  }
}

function withoutData(option: ClientOption, data: Buffer): ClientOption {
  if (data.length > 0) throw new MalformedOption('this option takes no data');
  return option;
}

function decodeExportRequest(kind: 'info' | 'go', data: Buffer): ClientOption {
  const fields = new Fields(data);
  const exportName = exportNameOf(fields.bytes(fields.uint32('name length'), 'export name'));
  const infoRequests: number[] = [];
  for (let count = fields.uint16('number of information requests'); count > 0; count--)
    infoRequests.push(fields.uint16('information request'));
  fields.end();
  return { kind, exportName, infoRequests };
}

function decodeMetaContextRequest(kind: 'listMetaContext' | 'setMetaContext', data: Buffer): ClientOption {
  const fields = new Fields(data);
  const exportName = exportNameOf(fields.bytes(fields.uint32('name length'), 'export name'));
  const queries: string[] = [];
  for (let count = fields.uint32('number of queries'); count > 0; count--)
    // Not checked as UTF-8: a query that is none of ours is ignored, whatever it is.
    queries.push(fields.bytes(fields.uint32('query length'), 'query').toString('latin1'));
  fields.end();
  return { kind, exportName, queries };
}

function exportNameOf(bytes: Buffer): string {
  if (bytes.length > nbd.NBD_MAX_STRING)
    throw new MalformedOption(`an export name of ${bytes.length} bytes is too long`);
  if (bytes.includes(0)) throw new MalformedOption('the export name contains NUL');
  try {
    return utf8.decode(bytes);
  } catch {
    throw new MalformedOption('the export name is not UTF-8');
  }
}

/** Takes fields off the front of option data; running out of bytes, or having some left, is malformed. */
class Fields {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  uint32(what: string): number {
    return this.bytes(4, what).readUInt32BE(0);
  }

  uint16(what: string): number {
    return this.bytes(2, what).readUInt16BE(0);
  }

  bytes(length: number, what: string): Buffer {
    if (length > this.#data.length - this.#at)
      throw new MalformedOption(`the ${what} exceeds the option's length`);
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }

  end(): void {
    if (this.#at !== this.#data.length) throw new MalformedOption('the option has excess bytes');
  }
}
