/**
 * Received bytes of one connection in the transmission phase -> requests in flight -> replies. Knows no socket.
 * It holds what the phase needs between chunks: a payload half received, the requests at the device.
 */
import type { AllocationExtent, DeviceError } from './block-device.ts';
import { PayloadAssembly } from './byte-queue.ts';
import type { ByteQueue } from './byte-queue.ts';
import type { Negotiated } from './handshake.ts';
import type { ReceiveBuffer, ReceivePool } from './receive-buffers.ts';
import type { ReplyBuffer } from './reply-buffer.ts';
import { decodeRequest, requestHeaderLength } from './transmission-codec.ts';
import type { ReplyMode, Request } from './transmission-codec.ts';
import {
  deviceErrorValue,
  execute,
  replyBlockStatus,
  replyData,
  replyDone,
  replyError,
  validate,
  validateStatusPayload,
} from './transmission.ts';
import type { Command, Completion, RequestRefusal } from './transmission.ts';

export interface TransmissionHost {
  /** Whether one more request may be taken in; asked before each. */
  mayAccept(): boolean;
  /** A request completed: its reply was written, unless nobody is left to read it. */
  completed(): void;
}

export type Intaken =
  /** All input is used up, or what is left is not a whole header yet. */
  | { readonly kind: 'starved' }
  /** The host refused one more request: call again when it would accept one. */
  | { readonly kind: 'throttled' }
  /** NBD_CMD_DISC, or `stop` was called: nothing more will be taken in. */
  | { readonly kind: 'ended' }
  /** The stream cannot be followed any further. */
  | { readonly kind: 'abandoned'; readonly reason: string };

type Stage =
  | { readonly kind: 'header' }
  /** `command` is null for a status query: its payload is still to be checked. */
  | {
      readonly kind: 'payload';
      readonly request: Request;
      readonly command: Command | null;
      readonly payloadBytes: number;
      /** Null for a short one: it is waited for in the queue, where it mostly comes to lie in one piece. */
      readonly assembly: PayloadAssembly | null;
    }
  | {
      readonly kind: 'drain';
      readonly request: Request;
      readonly refusal: RequestRefusal;
      leftBytes: number;
    };

/** Longer payloads are assembled, and received straight into their place. */
const queuedBytesMax = 32 * 1024;
/** Less room than this is not worth a read of its own. */
const directBytesMin = 16 * 1024;

const header: Stage = { kind: 'header' };
const starved: Intaken = { kind: 'starved' };

export class TransmissionIntake {
  readonly negotiated: Negotiated;
  readonly #replies: ReplyBuffer;
  readonly #host: TransmissionHost;
  readonly #pool: ReceivePool | null;
  readonly #headerBytes: number;
  #stage: Stage = header;
  #stopped = false;
  #muted = false;
  #requestsInFlight = 0;
  #bytesInFlight = 0;

  /** `pool`: for payloads that come in many chunks; null leaves those to the garbage collector. */
  constructor(
    negotiated: Negotiated,
    replies: ReplyBuffer,
    host: TransmissionHost,
    pool: ReceivePool | null = null,
  ) {
    this.#pool = pool;
    this.negotiated = negotiated;
    this.#replies = replies;
    this.#host = host;
    this.#headerBytes = requestHeaderLength(negotiated.mode);
  }

  /** Requests given to the device and not completed yet. */
  get requestsInFlight(): number {
    return this.#requestsInFlight;
  }

  /** Payload bytes, either way, of the requests in flight. */
  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /**
   * From here on no request is executed, whatever was received already: the connection is superseded. A write
   * that its client has sent again elsewhere must not land here later, over newer data.
   */
  stop(): void {
    this.#stopped = true;
    this.#stage = header;
  }

  /** Nobody is left to read replies. */
  mute(): void {
    this.stop();
    this.#muted = true;
  }

  /** Throws NbdProtocolError when the bytes are not NBD. */
  consume(queue: ByteQueue): Intaken {
    // A completion within a call to the device may stop us, so this is looked at before every request.
    while (!this.#stopped) {
      const stage = this.#stage;
      switch (stage.kind) {
        case 'header': {
          if (queue.length < this.#headerBytes) return starved;
          if (!this.#host.mayAccept()) return { kind: 'throttled' };
          const result = this.#begin(
            decodeRequest(queue.take(this.#headerBytes), this.negotiated.mode),
            queue,
          );
          if (result !== null) return result;
          break;
        }
        case 'payload': {
          if (stage.assembly === null) {
            if (queue.length < stage.payloadBytes) return starved;
            this.#stage = header;
            this.#receivedQueued(stage.request, stage.command, queue, stage.payloadBytes);
            break;
          }
          const payload = stage.assembly.fill(queue);
          if (payload === null) return starved;
          this.#stage = header;
          this.#received(stage.request, stage.command, payload, stage.assembly.owner);
          break;
        }
        case 'drain':
          stage.leftBytes -= queue.skip(stage.leftBytes);
          if (stage.leftBytes > 0) return starved;
          this.#stage = header;
          this.#refuse(stage.request, stage.refusal);
          break;
        default:
          return stage satisfies never;
      }
    }
    return { kind: 'ended' };
  }

  /** A whole header is here; its payload, if any, may not be. */
  #begin(request: Request, queue: ByteQueue): Intaken | null {
    const intake = validate(request, this.negotiated);
    switch (intake.kind) {
      case 'execute':
        this.#execute(request, intake.command, null);
        return null;
      case 'receive':
      case 'receiveStatusQuery': {
        const command = intake.kind === 'receive' ? intake.command : null;
        const { payloadBytes } = intake;
        if (queue.length >= payloadBytes) this.#receivedQueued(request, command, queue, payloadBytes);
        else {
          const assembly =
            payloadBytes > queuedBytesMax ? new PayloadAssembly(payloadBytes, this.#pool) : null;
          this.#stage = { kind: 'payload', request, command, payloadBytes, assembly };
        }
        return null;
      }
      case 'refuse':
        if (intake.drainBytes === 0) this.#refuse(request, intake.refusal);
        else this.#stage = { kind: 'drain', request, refusal: intake.refusal, leftBytes: intake.drainBytes };
        return null;
      case 'disconnect':
        this.stop();
        return null;
      case 'abandon':
        return { kind: 'abandoned', reason: intake.reason };
      default:
        return intake satisfies never;
    }
  }

  /** Where the bytes that come next may go at once: the rest of a long payload. Null: to the queue. */
  get room(): Buffer | null {
    if (this.#stage.kind !== 'payload' || this.#stage.assembly === null) return null;
    const { room } = this.#stage.assembly;
    return room.length < directBytesMin ? null : room;
  }

  /** That many bytes have been put into `room`. */
  advance(byteCount: number): void {
    if (this.#stage.kind === 'payload') this.#stage.assembly?.advance(byteCount);
  }

  #receivedQueued(request: Request, command: Command | null, queue: ByteQueue, payloadBytes: number): void {
    const payload = queue.takeRetained(payloadBytes);
    this.#received(request, command, payload, queue.takenOwner);
  }

  /** `owner` was retained for the payload. */
  #received(request: Request, command: Command | null, payload: Buffer, owner: ReceiveBuffer | null): void {
    if (command !== null) {
      this.#execute(request, command, payload, owner);
      return;
    }
    owner?.release();
    const query = validateStatusPayload(request, payload, this.negotiated);
    if (query.kind === 'refused') this.#refuse(request, query);
    else this.#execute(request, query, null);
  }

  #refuse(request: Request, refusal: RequestRefusal): void {
    replyError(this.#replies, this.negotiated.mode, request, refusal.error, refusal.message);
  }

  #execute(
    request: Request,
    command: Command,
    payload: Buffer | null,
    owner: ReceiveBuffer | null = null,
  ): void {
    const inFlight = new InFlight(this, request, command, owner);
    this.#requestsInFlight += 1;
    this.#bytesInFlight += heldBytes(command);
    execute(this.negotiated.export.device, command, payload, inFlight);
  }

  /** For InFlight: its request is over. Answers where to put the reply, null when nobody reads it. */
  leave(command: Command): ReplyBuffer | null {
    this.#requestsInFlight -= 1;
    this.#bytesInFlight -= heldBytes(command);
    return this.#muted ? null : this.#replies;
  }

  /** Data of a read that has been copied or sent. */
  recycle(data: Uint8Array): void {
    this.negotiated.export.device.recycle?.(data);
  }

  /** For InFlight: its reply, if any, was written. */
  left(): void {
    this.#host.completed();
  }
}

function heldBytes(command: Command): number {
  return command.kind === 'read' || command.kind === 'write' ? command.lengthBytes : 0;
}

/** A request at the device. */
class InFlight implements Completion {
  readonly #intake: TransmissionIntake;
  readonly #request: Request;
  readonly #command: Command;
  /** Whose memory its payload is, retained for it. */
  readonly #owner: ReceiveBuffer | null;
  #settled = false;

  constructor(intake: TransmissionIntake, request: Request, command: Command, owner: ReceiveBuffer | null) {
    this.#intake = intake;
    this.#request = request;
    this.#command = command;
    this.#owner = owner;
  }

  done(error: DeviceError | null, dataFree = false): void {
    const replies = this.#settle();
    if (dataFree) this.#owner?.release();
    if (replies !== null) {
      if (error === null) replyDone(replies, this.#mode, this.#request);
      else this.#fail(replies, error);
    }
    this.#intake.left();
  }

  readDone(error: DeviceError | null, data: Uint8Array | null): void {
    const replies = this.#settle();
    if (replies !== null) {
      if (error === null) {
        const expected = this.#command.kind === 'read' ? this.#command.lengthBytes : -1;
        if (data?.length !== expected)
          throw new Error(`the device answered a read of ${expected} bytes with ${data?.length}`);
        if (replyData(replies, this.#mode, this.#request, data)) this.#intake.recycle(data);
      } else this.#fail(replies, error);
    }
    this.#intake.left();
  }

  statusDone(error: DeviceError | null, extents: readonly AllocationExtent[]): void {
    const replies = this.#settle();
    if (replies !== null) {
      if (error === null) {
        const lengthBytes = this.#command.kind === 'blockStatus' ? this.#command.lengthBytes : -1;
        replyBlockStatus(replies, this.#mode, this.#request, lengthBytes, extents);
      } else this.#fail(replies, error);
    }
    this.#intake.left();
  }

  get #mode(): ReplyMode {
    return this.#intake.negotiated.mode;
  }

  #fail(replies: ReplyBuffer, error: DeviceError): void {
    const value = deviceErrorValue(error, this.#command);
    replyError(replies, this.#mode, this.#request, value, `${this.#command.kind} failed: ${error}`);
  }

  #settle(): ReplyBuffer | null {
    // A second completion would answer somebody else's request: a bug, and not one to live with.
    if (this.#settled) throw new Error(`the device completed a ${this.#command.kind} twice`);
    this.#settled = true;
    return this.#intake.leave(this.#command);
  }
}
