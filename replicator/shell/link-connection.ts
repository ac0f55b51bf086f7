/**
 * One TCP connection between peers: frames in and out of a socket, and its end. It does not know what the frames
 * mean. Once it has ended, for whatever reason, nothing of it is delivered any more.
 */
import type { Socket, SocketConstructorOpts } from 'node:net';
import type { LinkDownReason } from '../core/event.ts';
import { FrameDecoder } from '../wire/frame-decoder.ts';
import type { FramePhase } from '../wire/frame-decoder.ts';
import { FrameEncoder } from '../wire/frame-encoder.ts';
import type { HandshakeConnection } from './handshake.ts';
import type { LinkClock } from './link-clock.ts';

/** Receives into memory of this side (`onread` of a socket). */
export interface Receiver {
  /** Where the next bytes go: not empty. Asked for before each read. */
  nextBuffer(): Buffer;
  /** That many bytes were put at the beginning of the last `nextBuffer`. */
  received(byteCount: number): void;
}

/** Hands an accepted, paused and untouched socket's connection to one that receives so; null where that cannot be. */
export type ReceiveInto = (
  accepted: Socket,
  options: SocketConstructorOpts,
  receiver: Receiver,
) => Socket | null;

export interface LinkConnectionOptions {
  /** A socket, or what makes one that receives through the receiver. */
  readonly socket: Socket | ((receiver: Receiver) => Socket);
  readonly clock: LinkClock;
  /** How long `close` waits for the other side to take what was sent. */
  readonly closeTimeoutMs: number;
  /** When what was encoded is sent; left out: at the end of the running callback. */
  readonly atTurnEnd?: ((then: () => void) => void) | undefined;
}

/** Room for what a client has in flight at queue 32 with 4 KiB each. */
const receiveBytes = 256 * 1024;

export class LinkConnection implements HandshakeConnection {
  readonly frames = new FrameEncoder();
  /** Settles when the socket is gone. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #options: LinkConnectionOptions;
  readonly #decoder = new FrameDecoder({ bounds: new Map(), deliver: () => undefined });
  #onEnded: (why: LinkDownReason, detail: string) => void = () => undefined;
  #onDrain: () => void = () => undefined;
  #ended = false;
  #feeding = false;
  #receiveBuffer: Buffer | null = null;
  /** What is received goes straight into a payload. */
  #isDirect = false;
  /** Somebody keeps a view of what is being fed. */
  #isKept = false;
  #areSettled: () => boolean = () => false;
  #isOverrun: () => boolean = () => false;
  #isHeldBack = false;
  #flushScheduled = false;
  /** To be told when what is encoded so far has left. */
  #leaving: (() => void)[] = [];

  constructor(options: LinkConnectionOptions) {
    this.#options = options;
    const receiver = {
      nextBuffer: () => this.#nextBuffer(),
      received: (count: number) => this.#received(count),
    };
    this.#socket = typeof options.socket === 'function' ? options.socket(receiver) : options.socket;
    this.closed = new Promise((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.on('data', (chunk: Buffer) => this.#feed(chunk));
    this.#socket.on('drain', () => {
      if (!this.#ended) this.#onDrain();
    });
    this.#socket.on('end', () => this.#end('BrokenPipe', this.#endDetail()));
    this.#socket.on('error', (error) => this.#end('NetworkFailure', error.message));
    this.#socket.on('close', () => this.#end('NetworkFailure', 'the connection was closed'));
  }

  /** Bytes that have not been handed to the network yet. */
  get bufferedBytes(): number {
    return this.frames.pendingBytes + this.#socket.writableLength;
  }

  get remote(): string {
    return `${this.#socket.remoteAddress ?? 'a closed connection'}:${this.#socket.remotePort ?? 0}`;
  }

  become(phase: FramePhase): void {
    this.#decoder.become(phase);
  }

  /**
   * Asked after payloads were delivered: whether all of them have been dealt with, so that their memory may be received
   * into again. Those told by `keep` are not asked about.
   */
  settledWhen(areSettled: () => boolean): void {
    this.#areSettled = areSettled;
  }

  /** Asked after input was dealt with: whether no more of it is wanted until `goOn`. */
  overrunWhen(isOverrun: () => boolean): void {
    this.#isOverrun = isOverrun;
  }

  /** More is wanted, unless it turns out that it is not. */
  goOn(): void {
    if (!this.#isHeldBack || this.#isOverrun()) return;
    this.#isHeldBack = false;
    this.#socket.resume();
  }

  /** The payload that is being delivered will be looked at later, for who knows how long. */
  keep(): void {
    this.#isKept = true;
  }

  /** Nobody looks at this payload of its own memory any more. */
  recycle(payload: Uint8Array): void {
    this.#decoder.recycle(payload);
  }

  /** For a socket that is being dialled. */
  onConnect(connected: () => void): void {
    this.#socket.once('connect', connected);
  }

  /** Called once, unless this side ends the connection itself by `close` or `destroy`. */
  onEnded(ended: (why: LinkDownReason, detail: string) => void): void {
    this.#onEnded = ended;
  }

  /** Called when all that was buffered, after the socket had been full, is with the network. */
  onDrain(drained: () => void): void {
    this.#onDrain = drained;
  }

  /** Send all that was encoded so far, in one system call where the network takes it. */
  flush(): void {
    if (this.frames.pendingBytes === 0) return;
    const chunks = this.frames.take();
    const leaving = this.#leaving;
    if (leaving.length > 0) this.#leaving = [];
    if (this.#socket.destroyed || !this.#socket.writable) return;
    const last = leaving.length === 0 ? -1 : chunks.length - 1;
    if (chunks.length > 1) this.#socket.cork();
    // Called after those of all writes before it; with an error when some of it may never have left.
    for (let at = 0; at < chunks.length; at++) {
      const chunk = chunks[at];
      if (chunk === undefined) break;
      if (at === last) this.#socket.write(chunk, (error) => error || leaving.forEach((left) => left()));
      else this.#socket.write(chunk);
    }
    if (chunks.length > 1) this.#socket.uncork();
    // Nothing left behind in the socket: the kernel has its own copy of all of it.
    if (this.#socket.writableLength === 0) this.frames.reuse();
  }

  /**
   * `left` is called once the kernel has its own copy of all that was encoded up to now, and not at all where that is not
   * certain. To be called right after encoding.
   */
  whenLeft(left: () => void): void {
    this.#leaving.push(left);
  }

  /** Send at the end of the present input chunk if there is one, else of this turn. */
  flushSoon(): void {
    if (this.#feeding || this.#flushScheduled) return;
    this.#flushScheduled = true;
    const flush = (): void => {
      this.#flushScheduled = false;
      this.flush();
    };
    if (this.#options.atTurnEnd === undefined) process.nextTick(flush);
    else this.#options.atTurnEnd(flush);
  }

  /** Hand over what was sent, then end. Nothing is delivered from now on, and `onEnded` is not called. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#decoder.stop();
    this.flush();
    // Input is still read (and dropped): a socket closed with unread input is reset, and a reset may overtake
    // the last packets, the peer's reason for not mistaking this for a failure.
    if (this.#isHeldBack) this.#socket.resume();
    this.#socket.end();
    const cancel = this.#options.clock.after(this.#options.closeTimeoutMs, () => this.#socket.destroy());
    this.#socket.once('close', cancel);
  }

  /** End at once. `onEnded` is not called. */
  destroy(): void {
    this.#ended = true;
    this.#decoder.stop();
    this.#socket.destroy();
  }

  /** End at once because of a failure this side has found; `onEnded` is called, but not before this returns. */
  fail(detail: string): void {
    this.#socket.destroy(new Error(detail));
  }

  #nextBuffer(): Buffer {
    // Once it has ended, the payload that was to be filled is nowhere any more, and what comes is only dropped.
    const room = this.#ended ? null : this.#decoder.room;
    this.#isDirect = room !== null;
    if (room !== null) return Buffer.from(room.buffer, room.byteOffset, room.length);
    this.#receiveBuffer ??= Buffer.allocUnsafeSlow(receiveBytes);
    return this.#receiveBuffer;
  }

  #received(byteCount: number): void {
    if (this.#isDirect) return this.#feed(byteCount);
    if (this.#receiveBuffer === null) return;
    this.#isKept = false;
    this.#feed(this.#receiveBuffer.subarray(0, byteCount));
    // Given away rather than received into again, unless it is certain that nobody looks at it any more.
    if (this.#decoder.takeHasLentView() && !this.#isCertainlyFree()) this.#receiveBuffer = null;
  }

  /** With the end of a session its writes are forgotten, though some may still be on their way to the disk: nobody can say then. */
  #isCertainlyFree(): boolean {
    return !this.#isKept && !this.#ended && this.#areSettled();
  }

  /** A number: that many bytes came straight into a payload. */
  #feed(chunk: Buffer | number): void {
    if (this.#ended) return;
    this.#feeding = true;
    const error = typeof chunk === 'number' ? this.#decoder.advance(chunk) : this.#decoder.feed(chunk);
    this.#feeding = false;
    if (error !== null) return this.#end('ProtocolError', error.message);
    this.flush();
    if (this.#ended || this.#isHeldBack || !this.#isOverrun()) return;
    this.#isHeldBack = true;
    this.#socket.pause();
  }

  #end(why: LinkDownReason, detail: string): void {
    if (this.#ended) return;
    this.destroy();
    this.#onEnded(why, detail);
  }

  #endDetail(): string {
    return this.#decoder.isInsideFrame
      ? 'the other side closed the connection in the middle of a packet'
      : 'the other side closed the connection';
  }
}
