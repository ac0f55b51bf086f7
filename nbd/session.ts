/**
 * One connection of a client: its socket (and TLS over it), its timers, flow control both ways, and its end.
 * What the bytes mean is handshake-intake.ts and transmission-intake.ts.
 */
import type { Socket } from 'node:net';
import { ByteQueue } from './byte-queue.ts';
import { hasOtherSideEnded } from './connection-end.ts';
import type { HandshakeEnvironment } from './handshake.ts';
import { HandshakeIntake } from './handshake-intake.ts';
import type { NbdLimits } from './limits.ts';
import { NbdProtocolError } from './protocol-error.ts';
import type { ReceiveBuffer, ReceivePool } from './receive-buffers.ts';
import { receiveInto } from './receive-socket.ts';
import { ReplyBuffer } from './reply-buffer.ts';
import type { StartTls } from './tls.ts';
import { TransmissionIntake } from './transmission-intake.ts';

export type NbdLog = (level: 'debug' | 'info' | 'warn' | 'error', message: string) => void;

export interface SessionHost {
  readonly environment: HandshakeEnvironment;
  /** Null exactly when `environment.tls` is 'off'. */
  readonly startTls: StartTls | null;
  readonly limits: NbdLimits;
  /** Shared by all sessions. */
  readonly receivePool: ReceivePool;
  readonly log: NbdLog;
  /** The handshake is over and the client uses an export. */
  transmissionBegan(session: Session): void;
  /** The connection is gone. Requests of it may still be at the device. */
  closed(session: Session): void;
  /** The connection is gone and the device has completed everything it got from it. */
  settled(session: Session): void;
}

type Phase =
  | { readonly kind: 'handshake'; readonly intake: HandshakeIntake }
  /** STARTTLS was acknowledged; plaintext is discarded until TLS takes over. */
  | { readonly kind: 'startingTls'; readonly intake: HandshakeIntake }
  | { readonly kind: 'transmission'; readonly intake: TransmissionIntake }
  /** Nothing more is taken in. Replies of what is in flight go out, then the socket is closed. */
  | { readonly kind: 'finishing'; readonly intake: TransmissionIntake | null }
  /** Our side is shut down behind the last reply; once that has left, the client has `lingerMs` to close its own. */
  | { readonly kind: 'lingering' }
  | { readonly kind: 'closed' };

/** As much as Node reads at once otherwise: a connection that is closed with input unread is reset. */
const handshakeBufferBytes = 64 * 1024;
const transmissionBufferBytes = 256 * 1024;
/** With less room than this the next bytes go to another buffer: as much as Node reads at once otherwise. */
const receiveBytesMin = 64 * 1024;

export class Session {
  readonly #host: SessionHost;
  readonly #queue = new ByteQueue();
  readonly #replies = new ReplyBuffer();
  /** Being received into up to `#filled`, and retained for that; null where Node's own buffers are used (TLS). */
  #filling: ReceiveBuffer | null = null;
  #filled = 0;
  /** What is received goes straight into a payload. */
  #isDirect = false;
  #socket: Socket;
  #phase: Phase;
  /** The export in use; null during the handshake. */
  #exportName: string | null = null;
  /** Kept apart from the phase: a device may still be at work for a connection long gone. */
  #transmission: TransmissionIntake | null = null;
  /** The handshake timer, then none, then the one that ends lingering. */
  #timer: NodeJS.Timeout | undefined;
  #consuming = false;
  #wakeScheduled = false;
  /** Reading is stopped until a request may be taken in again. */
  #throttled = false;
  #peerEnded = false;
  /** Our side wants the session to end: a client that reads nothing is not waited for. */
  #fenced = false;
  #lingerTimed = false;
  #settled = false;
  #settledWaiters: (() => void)[] = [];

  /** `accepted` with `pauseOnConnect`; see `acceptOptions`. */
  constructor(accepted: Socket, host: SessionHost) {
    this.#host = host;
    this.#phase = { kind: 'handshake', intake: new HandshakeIntake(host.environment, this.#replies) };
    // TLS reads the socket by itself, and may take over at any time.
    const receiver = {
      nextBuffer: () => this.#nextBuffer(),
      received: (count: number) => this.#received(count),
    };
    const own = host.startTls === null ? receiveInto(accepted, { allowHalfOpen: true }, receiver) : null;
    const socket = own ?? accepted;
    this.#socket = socket;
    this.#timer = setTimeout(() => {
      this.destroy('the handshake took too long');
    }, host.limits.handshakeTimeoutMs);
    this.#attach(socket);
    if (own === null) socket.resume();
    this.#flush();
  }

  get exportName(): string | null {
    return this.#exportName;
  }

  get inTransmission(): boolean {
    return this.#exportName !== null && this.#phase.kind !== 'closed';
  }

  /**
   * Ends the session from our side. When this returns, no further request is executed, received or not; those at
   * the device are answered as it completes them. Resolves when all have completed and the connection is gone.
   */
  fence(): Promise<void> {
    this.#queue.clear();
    this.#fenced = true;
    this.#finish();
    // It may have taken leave by itself before, and have been given all the time it wants.
    if (this.#phase.kind === 'lingering') this.#endSoon();
    return new Promise((resolve) => {
      this.#settledWaiters.push(resolve);
      this.#settle();
    });
  }

  /** Hard disconnect, at once. */
  destroy(reason: string): void {
    if (this.#phase.kind === 'closed') return;
    this.#host.log('debug', `NBD connection closed: ${reason}`);
    this.#close();
  }

  #attach(socket: Socket): void {
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    // Errors are answered by 'close', which follows. A client may vanish at any point, that is no news.
    socket.on('error', (error) => {
      this.destroy(error.message);
    });
    socket.on('close', () => {
      this.destroy('the client is gone');
    });
  }

  #nextBuffer(): Buffer {
    const room = this.#phase.kind === 'transmission' ? this.#phase.intake.room : null;
    this.#isDirect = room !== null;
    if (room !== null) return room;
    const isShort = this.#phase.kind === 'handshake';
    let filling = this.#filling;
    // Nobody else uses it: all that was received into it has been dealt with.
    if (filling?.uses === 1) this.#filled = 0;
    if (filling === null || filling.bytes.length - this.#filled < (isShort ? 1 : receiveBytesMin)) {
      filling?.release();
      filling = this.#host.receivePool.take(isShort ? handshakeBufferBytes : transmissionBufferBytes);
      this.#filling = filling;
      this.#filled = 0;
    }
    return this.#filled === 0 ? filling.bytes : filling.bytes.subarray(this.#filled);
  }

  #received(byteCount: number): void {
    const filling = this.#filling;
    if (this.#isDirect) {
      if (this.#phase.kind !== 'transmission') return;
      this.#phase.intake.advance(byteCount);
      this.#consume();
    } else if (filling !== null) {
      const from = this.#filled;
      this.#filled += byteCount;
      this.#take(filling.bytes.subarray(from, from + byteCount), filling);
    }
  }

  readonly #onData = (chunk: Buffer): void => this.#take(chunk, null);

  #take(chunk: Buffer, owner: ReceiveBuffer | null): void {
    switch (this.#phase.kind) {
      case 'handshake':
      case 'transmission':
        this.#queue.push(chunk, owner);
        this.#consume();
        return;
      // Plaintext behind STARTTLS is nobody's, and after the end there is nobody to read for.
      case 'startingTls':
      case 'finishing':
      case 'lingering':
      case 'closed':
        return;
      default:
        this.#phase satisfies never;
    }
  }

  /** The client closed its half: what is at the device is finished, then the connection is closed. */
  readonly #onEnd = (): void => {
    this.#peerEnded = true;
    switch (this.#phase.kind) {
      case 'handshake':
      case 'startingTls':
        this.destroy('the client closed the connection');
        return;
      case 'transmission':
        this.#consume();
        return;
      // A socket that has ended both ways destroys itself, after its last reply.
      case 'lingering':
      case 'finishing':
      case 'closed':
        return;
      default:
        this.#phase satisfies never;
    }
  };

  /** Takes in what can be taken in, then sends what came of it: all replies of a chunk leave together. */
  #consume(): void {
    if (this.#consuming) return;
    this.#consuming = true;
    try {
      while (this.#consumeOnce());
    } catch (error) {
      // Anything else is a bug of ours or of the device, and must not be survived.
      if (!(error instanceof NbdProtocolError)) throw error;
      this.destroy(error.message);
    } finally {
      this.#consuming = false;
    }
    this.#flush();
    this.#finishIfIdle();
  }

  /** Answers whether there may be more to do. */
  #consumeOnce(): boolean {
    const phase = this.#phase;
    if (phase.kind === 'handshake') {
      const next =
        this.#repliesPending() < this.#host.limits.maxReplyBytes ? phase.intake.consume(this.#queue) : null;
      if (next === null) {
        this.#setThrottled(this.#repliesPending() >= this.#host.limits.maxReplyBytes);
        return false;
      }
      switch (next.kind) {
        case 'continue':
          return true;
        case 'startTls':
          this.#startTls(phase.intake);
          return false;
        case 'close':
          this.#host.log('debug', `NBD handshake ended: ${next.reason}`);
          this.#finish();
          return false;
        case 'transmission':
          clearTimeout(this.#timer);
          this.#exportName = next.negotiated.export.name;
          this.#transmission = new TransmissionIntake(
            next.negotiated,
            this.#replies,
            {
              mayAccept: () => this.#mayAccept(),
              completed: () => {
                this.#wake();
              },
            },
            this.#filling === null ? null : this.#host.receivePool,
          );
          this.#phase = { kind: 'transmission', intake: this.#transmission };
          this.#host.transmissionBegan(this);
          return true;
        default:
          return next satisfies never;
      }
    }
    if (phase.kind !== 'transmission') return false;
    if (this.#throttled && this.#mayAccept() && this.#hasClientLeft()) {
      // What has waited here was never answered, so the client may have sent it again on another connection, and newer
      // data after it: executed now, it would land over that.
      this.#host.log('debug', 'NBD connection ended while requests of it waited: they are not executed');
      this.#finish();
      return false;
    }
    const intaken = phase.intake.consume(this.#queue);
    switch (intaken.kind) {
      case 'starved':
        this.#setThrottled(false);
        if (this.#peerEnded) this.#finish();
        return false;
      case 'throttled':
        this.#setThrottled(true);
        return false;
      case 'ended':
        this.#finish();
        return false;
      case 'abandoned':
        this.destroy(intaken.reason);
        return false;
      default:
        return intaken satisfies never;
    }
  }

  #hasClientLeft(): boolean {
    return this.#peerEnded || hasOtherSideEnded(this.#socket);
  }

  #mayAccept(): boolean {
    const intake = this.#transmission;
    const { limits } = this.#host;
    return (
      intake !== null &&
      intake.requestsInFlight < limits.maxRequestsInFlight &&
      intake.bytesInFlight < limits.maxBytesInFlight &&
      this.#repliesPending() < limits.maxReplyBytes
    );
  }

  /** Bytes of replies that the client has not taken yet, as far as we can tell. */
  #repliesPending(): number {
    return this.#replies.length + this.#socket.writableLength;
  }

  #setThrottled(throttled: boolean): void {
    if (this.#throttled === throttled) return;
    this.#throttled = throttled;
    if (throttled) this.#socket.pause();
    else this.#socket.resume();
  }

  /** A request completed. Outside of #consume its reply, and those of the same turn, leave when the turn ends. */
  #wake(): void {
    if (this.#consuming || this.#wakeScheduled) return;
    this.#wakeScheduled = true;
    process.nextTick(() => {
      this.#wakeScheduled = false;
      if (this.#throttled) this.#consume();
      else {
        this.#flush();
        this.#finishIfIdle();
      }
      this.#settle();
    });
  }

  /** Called when the kernel took replies: there may be room for those of further requests. */
  readonly #written = (): void => {
    if (this.#throttled) this.#consume();
  };

  #flush(): void {
    if (this.#replies.length === 0 || this.#phase.kind === 'closed') return;
    const parts = this.#replies.drain();
    const lent = this.#replies.takeLent();
    const written =
      lent.length === 0
        ? this.#written
        : () => {
            for (const data of lent) this.#transmission?.recycle(data);
            this.#written();
          };
    const [only] = parts;
    if (parts.length === 1 && only !== undefined) {
      this.#socket.write(only, written);
      return;
    }
    this.#socket.cork();
    for (const [index, part] of parts.entries()) {
      if (index === parts.length - 1) this.#socket.write(part, written);
      else this.#socket.write(part);
    }
    this.#socket.uncork();
  }

  #startTls(intake: HandshakeIntake): void {
    const { startTls } = this.#host;
    if (startTls === null) throw new Error('STARTTLS was acknowledged without TLS');
    this.#phase = { kind: 'startingTls', intake };
    this.#queue.clear();
    const plain = this.#socket;
    // From here TLS reads the socket itself; what is pending on it goes there and fails there if it is plaintext.
    plain.off('data', this.#onData);
    plain.off('end', this.#onEnd);
    plain.pause();
    const parts = Buffer.concat(this.#replies.drain());
    plain.write(parts, (error) => {
      if (error || this.#phase.kind !== 'startingTls') return;
      startTls(plain, (secure) => {
        if (this.#phase.kind !== 'startingTls') {
          secure.destroy();
          return;
        }
        this.#socket = secure;
        intake.secured();
        this.#phase = { kind: 'handshake', intake };
        this.#attach(secure);
      });
    });
  }

  /** No input from here on. */
  #finish(): void {
    switch (this.#phase.kind) {
      case 'handshake':
      case 'startingTls':
        this.#phase = { kind: 'finishing', intake: null };
        break;
      case 'transmission':
        this.#phase.intake.stop();
        this.#phase = { kind: 'finishing', intake: this.#phase.intake };
        break;
      case 'finishing':
      case 'lingering':
      case 'closed':
        return;
      default:
        this.#phase satisfies never;
    }
    clearTimeout(this.#timer);
    this.#queue.clear();
    if (!this.#consuming) {
      this.#flush();
      this.#finishIfIdle();
    }
  }

  #finishIfIdle(): void {
    const phase = this.#phase;
    if (phase.kind !== 'finishing' || this.#consuming) return;
    if (phase.intake !== null && phase.intake.requestsInFlight > 0) return;
    this.#flush();
    this.#phase = { kind: 'lingering' };
    // Closing with unread input would reset the connection and take the last replies with it. So: shut down our
    // side, read on (and throw away) until the client closes, but not for ever. Replies to what a client has asked for
    // before it took leave are its own, and may take as long as those of one that stays.
    if (this.#fenced || phase.intake === null) this.#endSoon();
    this.#socket.end(() => {
      if (this.#phase.kind === 'lingering') this.#endSoon();
    });
    this.#socket.resume();
  }

  #endSoon(): void {
    if (this.#lingerTimed) return;
    this.#lingerTimed = true;
    this.#timer = setTimeout(() => {
      this.destroy('the client did not close its side');
    }, this.#host.limits.lingerMs);
  }

  #close(): void {
    this.#phase = { kind: 'closed' };
    clearTimeout(this.#timer);
    this.#queue.clear();
    this.#transmission?.mute();
    this.#socket.destroy();
    this.#filling?.release();
    this.#filling = null;
    this.#host.closed(this);
    this.#settle();
  }

  #settle(): void {
    if (this.#phase.kind !== 'closed') return;
    if (this.#transmission !== null && this.#transmission.requestsInFlight > 0) return;
    if (!this.#settled) {
      this.#settled = true;
      this.#host.settled(this);
    }
    const waiters = this.#settledWaiters;
    this.#settledWaiters = [];
    for (const resolve of waiters) resolve();
  }
}
