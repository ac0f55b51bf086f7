/**
 * Option haggling, the client's side: one method per option, as a caller wants them; `go` and `exportName` end it
 * and yield an NbdClient. Most callers want `connectNbd` of client.ts, which chooses the options.
 */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { ByteQueue } from './byte-queue.ts';
import { NbdClosedError, NbdOptionError } from './client-errors.ts';
import { NbdClient } from './client-session.ts';
import type { NbdExportInfo } from './client-session.ts';
import * as nbd from './constants.ts';
import {
  decodeExportNameReply,
  decodeInformation,
  decodeMetaContextReply,
  decodeOptionReplyHeader,
  decodeServerGreeting,
  decodeServerReply,
  encodeClientFlags,
  encodeExportRequest,
  encodeMetaContextRequest,
  encodeOption,
} from './handshake-codec.ts';
import type { OptionReply } from './handshake-codec.ts';
import { NbdProtocolError } from './protocol-error.ts';
import type { ReplyMode } from './transmission-codec.ts';

export type NbdAddress = { readonly host: string; readonly port: number } | { readonly path: string };

export interface NbdClientTlsOptions {
  /** Authorities that the server's certificate is checked against; the system's without it. */
  readonly caPem?: string;
  readonly certPem?: string;
  /** Never logged. */
  readonly keyPem?: string;
  /** Name the server's certificate must be for, when it is not the host connected to. */
  readonly serverName?: string;
}

/** Longest option reply that is read. */
const MAX_REPLY_BYTES = 1 << 20;
/** Most replies to one option. */
const MAX_REPLIES = 65_536;
const ALL_INFORMATION = [nbd.NBD_INFO_NAME, nbd.NBD_INFO_DESCRIPTION, nbd.NBD_INFO_BLOCK_SIZE];

export class NbdHaggling {
  #socket: Socket;
  readonly #host: string | null;
  readonly #queue = new ByteQueue();
  readonly #noZeroes: boolean;
  #waiting: {
    readonly length: number;
    readonly resolve: () => void;
    readonly reject: (e: Error) => void;
  } | null = null;
  #closed: Error | null = null;
  #mode: ReplyMode = 'simple';
  #contexts: ReadonlyMap<number, string> = new Map();
  #timer: NodeJS.Timeout | undefined;

  private constructor(socket: Socket, host: string | null, flags: { noZeroes: boolean }) {
    this.#socket = socket;
    this.#host = host;
    this.#noZeroes = flags.noZeroes;
    this.#attach(socket);
  }

  /** Connects and exchanges flags. The haggling as a whole has `timeoutMs`. */
  static async connect(
    address: NbdAddress,
    { timeoutMs = 10_000, noZeroes = true }: { timeoutMs?: number; noZeroes?: boolean } = {},
  ): Promise<NbdHaggling> {
    const socket = 'path' in address ? createConnection(address.path) : createConnection(address);
    socket.setNoDelay(true);
    const haggling = new NbdHaggling(socket, 'path' in address ? null : address.host, { noZeroes });
    haggling.#timer = setTimeout(() => {
      haggling.#fail(new NbdClosedError(`the NBD handshake took longer than ${timeoutMs} ms`));
    }, timeoutMs);
    const flags = decodeServerGreeting(await haggling.#read(18));
    if ((flags & nbd.NBD_FLAG_FIXED_NEWSTYLE) === 0)
      throw haggling.#fail(new NbdProtocolError('the server does not offer fixed newstyle'));
    socket.write(
      encodeClientFlags(nbd.NBD_FLAG_C_FIXED_NEWSTYLE | (noZeroes ? nbd.NBD_FLAG_C_NO_ZEROES : 0)),
    );
    return haggling;
  }

  /** What was negotiated so far. */
  get mode(): ReplyMode {
    return this.#mode;
  }

  async startTls(options: NbdClientTlsOptions): Promise<void> {
    await this.#simpleOption(nbd.NBD_OPT_STARTTLS);
    if (this.#queue.length > 0)
      throw this.#fail(new NbdProtocolError('the server sent plaintext after STARTTLS'));
    const plain = this.#socket;
    plain.off('data', this.#onData);
    const name = options.serverName ?? this.#host;
    const secure = connectTls({
      socket: plain,
      ...(options.caPem === undefined ? {} : { ca: options.caPem }),
      ...(options.certPem === undefined ? {} : { cert: options.certPem }),
      ...(options.keyPem === undefined ? {} : { key: options.keyPem }),
      ...(name === null ? {} : { host: name }),
      minVersion: 'TLSv1.2',
    });
    this.#socket = secure;
    this.#attach(secure);
    await new Promise<void>((resolve, reject) => {
      secure.once('secureConnect', resolve);
      this.#waiting = { length: Infinity, resolve, reject };
    });
    this.#waiting = null;
    this.#mode = 'simple';
    this.#contexts = new Map();
  }

  async structuredReply(): Promise<void> {
    await this.#simpleOption(nbd.NBD_OPT_STRUCTURED_REPLY);
    this.#mode = 'structured';
  }

  async extendedHeaders(): Promise<void> {
    await this.#simpleOption(nbd.NBD_OPT_EXTENDED_HEADERS);
    this.#mode = 'extended';
  }

  async list(): Promise<readonly { readonly name: string; readonly description: string }[]> {
    const replies = await this.option(nbd.NBD_OPT_LIST);
    return replies
      .filter(({ type }) => type === nbd.NBD_REP_SERVER)
      .map(({ data }) => decodeServerReply(data));
  }

  async listMetaContexts(exportName: string, queries: readonly string[] = []): Promise<readonly string[]> {
    const replies = await this.option(
      nbd.NBD_OPT_LIST_META_CONTEXT,
      encodeMetaContextRequest(exportName, queries),
    );
    return replies
      .filter(({ type }) => type === nbd.NBD_REP_META_CONTEXT)
      .map(({ data }) => decodeMetaContextReply(data).name);
  }

  /** Answers the names the server selected. */
  async setMetaContexts(exportName: string, queries: readonly string[]): Promise<readonly string[]> {
    this.#contexts = new Map();
    const replies = await this.option(
      nbd.NBD_OPT_SET_META_CONTEXT,
      encodeMetaContextRequest(exportName, queries),
    );
    const selected = replies
      .filter(({ type }) => type === nbd.NBD_REP_META_CONTEXT)
      .map(({ data }) => decodeMetaContextReply(data));
    this.#contexts = new Map(selected.map(({ id, name }) => [id, name]));
    return selected.map(({ name }) => name);
  }

  async info(exportName: string): Promise<NbdExportInfo> {
    const replies = await this.option(nbd.NBD_OPT_INFO, encodeExportRequest(exportName, ALL_INFORMATION));
    return exportInfo(replies, exportName);
  }

  /** Enters the transmission phase. Throws NbdOptionError when the server refuses; the haggling goes on then. */
  async go(exportName: string): Promise<NbdClient> {
    const replies = await this.option(nbd.NBD_OPT_GO, encodeExportRequest(exportName, ALL_INFORMATION));
    return this.#enterTransmission(exportInfo(replies, exportName));
  }

  /** The old way in: a refusal is a closed connection. */
  async exportName(exportName: string): Promise<NbdClient> {
    this.#socket.write(encodeOption(nbd.NBD_OPT_EXPORT_NAME, Buffer.from(exportName)));
    const reply = decodeExportNameReply(await this.#read(10));
    if (!this.#noZeroes) await this.#read(124);
    return this.#enterTransmission({ ...reply, name: exportName, description: '', blockSize: null });
  }

  /** Takes leave politely. */
  async abort(): Promise<void> {
    // A server may close without an answer.
    await this.#simpleOption(nbd.NBD_OPT_ABORT).catch(() => undefined);
    this.destroy();
  }

  destroy(): void {
    this.#fail(new NbdClosedError('the haggling was given up'));
  }

  /** Any option: its replies up to the acknowledgement. Throws NbdOptionError when the last one is an error. */
  async option(option: number, data?: Buffer): Promise<readonly OptionReply[]> {
    this.#socket.write(encodeOption(option, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const header = decodeOptionReplyHeader(await this.#read(nbd.OPTION_REPLY_HEADER_LENGTH));
      if (header.lengthBytes > MAX_REPLY_BYTES || replies.length > MAX_REPLIES || header.option !== option)
        throw this.#fail(new NbdProtocolError(`a reply that does not fit option ${option}`));
      const reply = { ...header, data: await this.#read(header.lengthBytes) };
      if (reply.type === nbd.NBD_REP_ACK) return replies;
      if (reply.type >= 0x8000_0000)
        throw new NbdOptionError(option, reply.type, reply.data.toString('utf8'));
      replies.push(reply);
    }
  }

  async #simpleOption(option: number): Promise<void> {
    await this.option(option);
  }

  #enterTransmission(info: NbdExportInfo): NbdClient {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    socket.off('data', this.#onData);
    socket.off('error', this.#onError);
    socket.off('close', this.#onClose);
    return new NbdClient(socket, info, this.#mode, this.#contexts, this.#queue);
  }

  #attach(socket: Socket): void {
    socket.on('data', this.#onData);
    socket.on('error', this.#onError);
    socket.on('close', this.#onClose);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#queue.push(chunk);
    if (this.#waiting !== null && this.#queue.length >= this.#waiting.length) this.#waiting.resolve();
  };

  readonly #onError = (error: Error): void => {
    this.#fail(new NbdClosedError(`NBD connection: ${error.message}`, { cause: error }));
  };

  readonly #onClose = (): void => {
    this.#fail(new NbdClosedError('the server closed the connection'));
  };

  async #read(length: number): Promise<Buffer> {
    if (this.#queue.length < length) {
      if (this.#closed !== null) throw this.#closed;
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { length, resolve, reject };
      });
      this.#waiting = null;
    }
    return this.#queue.take(length);
  }

  #fail(error: Error): Error {
    if (this.#closed !== null) return this.#closed;
    this.#closed = error;
    clearTimeout(this.#timer);
    this.#socket.destroy();
    this.#waiting?.reject(error);
    return error;
  }
}

function exportInfo(replies: readonly OptionReply[], asked: string): NbdExportInfo {
  let name = asked;
  let description = '';
  let size: { sizeBytes: number; transmissionFlags: number } | null = null;
  let blockSize: NbdExportInfo['blockSize'] = null;
  for (const reply of replies) {
    if (reply.type !== nbd.NBD_REP_INFO) continue;
    const information = decodeInformation(reply.data);
    switch (information.info) {
      case 'export':
        size = { sizeBytes: information.sizeBytes, transmissionFlags: information.transmissionFlags };
        break;
      case 'name':
        name = information.text;
        break;
      case 'description':
        description = information.text;
        break;
      case 'blockSize':
        blockSize = {
          minimumBytes: information.minimumBytes,
          preferredBytes: information.preferredBytes,
          maximumPayloadBytes: information.maximumPayloadBytes,
        };
        break;
      case 'unknown':
        break;
      default:
        information satisfies never;
    }
  }
  if (size === null) throw new NbdProtocolError('the server left out NBD_INFO_EXPORT');
  return { ...size, name, description, blockSize };
}
