/**
 * An NBD client in the transmission phase: a promise per request, many in flight. Replies are checked as the
 * document asks of a client; a server that breaks the rules loses the connection.
 */
import type { Socket } from 'node:net';
import { PayloadAssembly } from './byte-queue.ts';
import type { ByteQueue } from './byte-queue.ts';
import { NbdClosedError, NbdRequestError } from './client-errors.ts';
import { ExpectedReply } from './client-reply.ts';
import type { NbdReply } from './client-reply.ts';
import * as nbd from './constants.ts';
import { NbdProtocolError } from './protocol-error.ts';
import { decodeReplyHeader, encodeRequest, replyHeaderLength } from './transmission-codec.ts';
import type { ReplyHeader, ReplyMode } from './transmission-codec.ts';

export interface NbdExportInfo {
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  /** The canonical name, as far as the server tells one. */
  readonly name: string;
  readonly description: string;
  readonly blockSize: {
    readonly minimumBytes: number;
    readonly preferredBytes: number;
    readonly maximumPayloadBytes: number;
  } | null;
}

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: bigint;
  /** Effect length; ignored where there is a payload. */
  readonly length?: bigint;
  readonly payload?: Uint8Array;
}

export interface BlockStatusExtent {
  readonly lengthBytes: number;
  readonly flags: number;
}

interface Pending {
  readonly expected: ExpectedReply;
  readonly resolve: (reply: NbdReply) => void;
  readonly reject: (error: Error) => void;
}

type Stage =
  | { readonly kind: 'magic' }
  | { readonly kind: 'header'; readonly magic: Buffer; readonly lengthBytes: number }
  | {
      readonly kind: 'payload';
      readonly header: ReplyHeader;
      readonly pending: Pending;
      readonly assembly: PayloadAssembly;
    };

export class NbdClient {
  readonly info: NbdExportInfo;
  readonly mode: ReplyMode;
  /** Resolves when the connection is gone, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #contexts: ReadonlyMap<number, string>;
  readonly #queue: ByteQueue;
  readonly #pending = new Map<bigint, Pending>();
  #nextCookie = 1n;
  #stage: Stage = { kind: 'magic' };
  #failure: Error | null = null;
  #corked = false;

  /** For NbdHaggling. */
  constructor(
    socket: Socket,
    info: NbdExportInfo,
    mode: ReplyMode,
    contexts: ReadonlyMap<number, string>,
    queue: ByteQueue,
  ) {
    this.#socket = socket;
    this.info = info;
    this.mode = mode;
    this.#contexts = contexts;
    this.#queue = queue;
    socket.on('data', (chunk: Buffer) => {
      queue.push(chunk);
      this.#consume();
    });
    socket.on('error', (error) => {
      this.#fail(new NbdClosedError(`NBD connection: ${error.message}`, { cause: error }));
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#fail(new NbdClosedError('the server closed the connection'));
        resolve();
      });
    });
  }

  /** Requests without an answer yet. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Whether the connection can still be used. */
  get isOpen(): boolean {
    return this.#failure === null;
  }

  /** Exactly `lengthBytes` bytes, at most what the server's maximum payload allows. */
  async read(
    offsetBytes: number,
    lengthBytes: number,
    options: { readonly dontFragment?: boolean } = {},
  ): Promise<Buffer> {
    const reply = await this.request({
      type: nbd.NBD_CMD_READ,
      flags: options.dontFragment === true ? nbd.NBD_CMD_FLAG_DF : 0,
      offset: BigInt(offsetBytes),
      length: BigInt(lengthBytes),
    });
    return reply.data;
  }

  async write(
    offsetBytes: number,
    data: Uint8Array,
    options: { readonly fua?: boolean } = {},
  ): Promise<void> {
    await this.request({
      type: nbd.NBD_CMD_WRITE,
      flags: fuaFlag(options.fua),
      offset: BigInt(offsetBytes),
      payload: data,
    });
  }

  async flush(): Promise<void> {
    await this.request({ type: nbd.NBD_CMD_FLUSH });
  }

  async trim(
    offsetBytes: number,
    lengthBytes: number,
    options: { readonly fua?: boolean } = {},
  ): Promise<void> {
    await this.#effect(nbd.NBD_CMD_TRIM, fuaFlag(options.fua), offsetBytes, lengthBytes);
  }

  async writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: { readonly fua?: boolean; readonly noHole?: boolean; readonly fastZero?: boolean } = {},
  ): Promise<void> {
    const flags =
      fuaFlag(options.fua) |
      (options.noHole === true ? nbd.NBD_CMD_FLAG_NO_HOLE : 0) |
      (options.fastZero === true ? nbd.NBD_CMD_FLAG_FAST_ZERO : 0);
    await this.#effect(nbd.NBD_CMD_WRITE_ZEROES, flags, offsetBytes, lengthBytes);
  }

  async cache(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#effect(nbd.NBD_CMD_CACHE, 0, offsetBytes, lengthBytes);
  }

  /** Extents by context name, from `offsetBytes` on; the server may describe less than was asked. */
  async blockStatus(
    offsetBytes: number,
    lengthBytes: number,
    options: { readonly reqOne?: boolean } = {},
  ): Promise<ReadonlyMap<string, readonly BlockStatusExtent[]>> {
    const flags = options.reqOne === true ? nbd.NBD_CMD_FLAG_REQ_ONE : 0;
    const reply = await this.#effect(nbd.NBD_CMD_BLOCK_STATUS, flags, offsetBytes, lengthBytes);
    return reply.statuses;
  }

  /** Any request, unchecked: the bounds and flags are the caller's business. */
  request(raw: RawRequest): Promise<NbdReply> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const cookie = this.#nextCookie;
    this.#nextCookie = BigInt.asUintN(64, cookie + 1n);
    const { type, offset = 0n, payload } = raw;
    const extended = this.mode === 'extended';
    const payloadFlag = extended && payload !== undefined ? nbd.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
    const flags = (raw.flags ?? 0) | payloadFlag;
    const length = payload === undefined ? (raw.length ?? 0n) : BigInt(payload.length);
    const request = { type, flags, cookie, offset, length };
    return new Promise((resolve, reject) => {
      const expected = new ExpectedReply(request, this.mode, this.#contexts);
      this.#pending.set(cookie, { expected, resolve, reject });
      this.#corkForThisTurn();
      this.#socket.write(encodeRequest(request, this.mode));
      if (payload !== undefined && payload.length > 0) this.#socket.write(payload);
    });
  }

  /** NBD_CMD_DISC: the server finishes what is in flight, answers it, and closes. */
  async disconnect(): Promise<void> {
    if (this.#failure === null) {
      const request = { type: nbd.NBD_CMD_DISC, flags: 0, cookie: 0n, offset: 0n, length: 0n };
      this.#socket.end(encodeRequest(request, this.mode));
    }
    await this.closed;
  }

  /** Hard disconnect, at once; requests in flight are rejected. */
  destroy(): void {
    this.#fail(new NbdClosedError('the client gave up the connection'));
  }

  #effect(type: number, flags: number, offsetBytes: number, lengthBytes: number): Promise<NbdReply> {
    return this.request({ type, flags, offset: BigInt(offsetBytes), length: BigInt(lengthBytes) });
  }

  /** Requests made in one turn leave together. */
  #corkForThisTurn(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#corked = false;
      this.#socket.uncork();
    });
  }

  #consume(): void {
    try {
      while (this.#failure === null && this.#consumeOnce());
    } catch (error) {
      if (!(error instanceof NbdProtocolError)) throw error;
      this.#fail(error);
    }
  }

  /** Answers whether there may be more. */
  #consumeOnce(): boolean {
    const stage = this.#stage;
    switch (stage.kind) {
      case 'magic': {
        if (this.#queue.length < 4) return false;
        const magic = this.#queue.take(4);
        const lengthBytes = replyHeaderLength(magic.readUInt32BE(0), this.mode);
        this.#stage = { kind: 'header', magic, lengthBytes };
        return true;
      }
      case 'header': {
        if (this.#queue.length < stage.lengthBytes - 4) return false;
        const rest = this.#queue.take(stage.lengthBytes - 4);
        this.#begin(decodeReplyHeader(Buffer.concat([stage.magic, rest])));
        return true;
      }
      case 'payload': {
        const payload = stage.assembly.fill(this.#queue);
        if (payload === null) return false;
        this.#finish(stage.header, stage.pending, payload);
        return true;
      }
      default:
        return stage satisfies never;
    }
  }

  #begin(header: ReplyHeader): void {
    const pending = this.#pending.get(header.cookie);
    if (pending === undefined) throw new NbdProtocolError('a reply to a request that is not in flight');
    const payloadBytes = pending.expected.payloadLength(header);
    if (payloadBytes === 0) this.#finish(header, pending, Buffer.alloc(0));
    else if (this.#queue.length >= payloadBytes)
      this.#finish(header, pending, this.#queue.take(payloadBytes));
    else this.#stage = { kind: 'payload', header, pending, assembly: new PayloadAssembly(payloadBytes) };
  }

  #finish(header: ReplyHeader, pending: Pending, payload: Buffer): void {
    this.#stage = { kind: 'magic' };
    const outcome = pending.expected.add(header, payload);
    if (outcome === null) return;
    this.#pending.delete(header.cookie);
    if (outcome instanceof NbdRequestError) pending.reject(outcome);
    else pending.resolve(outcome);
  }

  #fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#socket.destroy();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

function fuaFlag(fua: boolean | undefined): number {
  return fua === true ? nbd.NBD_CMD_FLAG_FUA : 0;
}
