/**
 * The link to the peer of one resource: at most one session at a time, and probes apart from it. For sessions the
 * node whose name sorts first dials and the other listens, so that two nodes never open two sessions at once; both
 * listen for probes. Liveness of a session (pings, timeouts) is the core's business.
 */
import { randomBytes } from 'node:crypto';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import type { LinkDownReason, ProbeOutcome } from '../core/event.ts';
import type { Packet, PeerState } from '../core/packet.ts';
import { PacketEncoder, packetPhase } from '../wire/codec.ts';
import { nonceBytes, supportedVersions } from '../wire/constants.ts';
import type { VersionRange } from '../wire/constants.ts';
import type { Intent, Verdict } from '../wire/handshake-codec.ts';
import { PeerAuth } from './auth.ts';
import type { CoarseHash } from './coarse-hash.ts';
import * as handshake from './handshake.ts';
import type { DialOutcome, Identity, ListenOutcome } from './handshake.ts';
import { systemLinkClock } from './link-clock.ts';
import type { LinkClock } from './link-clock.ts';
import { LinkConnection } from './link-connection.ts';
import type { ReceiveInto, Receiver } from './link-connection.ts';
import type { Endpoint } from './resource-node.ts';

/** The first wait between two attempts to connect; it doubles up to `connectIntervalMs`. */
export const firstRetryMs = 100;
/** A session that lasted this long is dialled again at once when it is lost. */
export const stableSessionMs = 1000;
/** Incoming connections that have not proved themselves; one more pushes the oldest out. */
export const maxUnauthenticated = 16;
/** How long the last packets of a session that is being closed may take to reach the network. */
export const defaultCloseTimeoutMs = 2000;
/** A peer that leaves this much unread is treated as lost, rather than let it use up this node's memory. */
export const defaultMaxBufferedBytes = 1024 * 1024 * 1024;
/** Payloads up to here are copied rather than keep the memory of all that was received together with them. */
const copyBytesMax = 16 * 1024;
/** Failed incoming handshakes are reported this often at most: anybody can cause them. */
const incomingReportIntervalMs = 1000;
const keepAliveMs = 10_000;

export interface PeerLinkHooks {
  /** An authenticated session is up. Its packets, and its end, carry the same number. */
  onLinkUp(session: number): void;
  /** The session is over; nothing of it follows. Not called for sessions ended by `closeSession` or `stop`. */
  onLinkDown(session: number, why: LinkDownReason, detail: string): void;
  /** An attempt to connect failed, here or at the peer's hands; for display. */
  onLinkRefused(detail: string): void;
  /** The payload is handed over. */
  onPacket(session: number, packet: Packet, payload: Uint8Array | null): void;
  /** Whether the payloads of all `write` packets so far have been dealt with. */
  arePayloadsSettled(): boolean;
  /** Whether so much has arrived and is not dealt with that no more is to be read, until `goOn`. */
  isOverrun(): boolean;
  /** What `bufferedBytes` counted has been taken by the network, after it had not been for a while. */
  onDrain(): void;
}

export interface PeerLinkOptions {
  readonly resourceName: string;
  readonly nodeName: string;
  readonly peerName: string;
  /** 1 to 1024 bytes of UTF-8; never logged, never kept in the clear. */
  readonly secret: string;
  readonly listen: Endpoint;
  readonly peerAddress: Endpoint;
  /** The longest wait between two attempts to connect. */
  readonly connectIntervalMs: number;
  readonly probeTimeoutMs: number;
  /** For connecting and proving, from the first byte to the verdict. */
  readonly handshakeTimeoutMs: number;
  readonly hooks: PeerLinkHooks;
  readonly closeTimeoutMs?: number;
  readonly maxBufferedBytes?: number;
  readonly clock?: LinkClock;
  readonly versions?: VersionRange;
  readonly receiveInto?: ReceiveInto | undefined;
  /** When what one turn sends leaves; left out: at the end of each callback. */
  readonly atTurnEnd?: (then: () => void) => void;
}

export type ListenResult =
  | { readonly ok: true; readonly port: number }
  | { readonly ok: false; readonly reason: 'address-in-use' | 'cannot-listen'; readonly detail: string };

interface Session {
  readonly number: number;
  readonly connection: LinkConnection;
  readonly packets: PacketEncoder;
  readonly coarseHash: CoarseHash;
  readonly sinceMs: number;
}

export class PeerLink {
  /** Without the secret: what is derived from it is in `#auth`, and nowhere else. */
  readonly #options: Omit<PeerLinkOptions, 'secret'>;
  readonly #clock: LinkClock;
  readonly #auth: PeerAuth;
  readonly #identity: Identity;
  readonly #isDialler: boolean;
  readonly #server: Server;
  /** Every connection whose socket is still there, whatever its state. */
  readonly #connections = new Set<LinkConnection>();
  /** Incoming ones without a session, oldest first. */
  readonly #unauthenticated = new Set<LinkConnection>();
  #wanted = false;
  #stopped = false;
  #state: PeerState | null = null;
  #session: Session | null = null;
  #lastSession = 0;
  #retryMs: number;
  /** Gives up the attempt to connect that is under way or waited for; null when there is none. */
  #abandonDial: (() => void) | null = null;
  readonly #probes = new Set<() => void>();
  #reportedMs = -Infinity;

  constructor(options: PeerLinkOptions) {
    if (options.nodeName === options.peerName) throw new RangeError('a node is not its own peer');
    const { secret, ...rest } = options;
    this.#auth = new PeerAuth(secret);
    this.#options = rest;
    this.#clock = options.clock ?? systemLinkClock;
    this.#identity = {
      resourceName: options.resourceName,
      nodeName: options.nodeName,
      peerName: options.peerName,
      versions: options.versions ?? supportedVersions,
    };
    this.#isDialler = options.nodeName < options.peerName;
    this.#retryMs = Math.min(firstRetryMs, options.connectIntervalMs);
    this.#server = createServer(
      { noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs, pauseOnConnect: true },
      (socket) => this.#incoming(socket),
    );
  }

  /** Listens, for sessions (on one of the two nodes) and for probes (on both). */
  async start(): Promise<ListenResult> {
    const { host, port } = this.#options.listen;
    return new Promise((resolve) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => {
        const reason = error.code === 'EADDRINUSE' ? 'address-in-use' : 'cannot-listen';
        resolve({ ok: false, reason, detail: error.message });
      });
      this.#server.listen({ host, port }, () => {
        this.#server.removeAllListeners('error');
        this.#server.on('error', (error) => this.#report(error.message));
        const address = this.#server.address();
        resolve({ ok: true, port: typeof address === 'object' && address !== null ? address.port : port });
      });
    });
  }

  /** Keep trying to have a session, or stop trying and refuse incoming ones. The present session is not touched. */
  setWanted(wanted: boolean): void {
    this.#wanted = wanted;
    if (!wanted) {
      this.#abandonDial?.();
      this.#retryMs = Math.min(firstRetryMs, this.#options.connectIntervalMs);
    }
    this.#dialAfter(0);
  }

  /** What probes are answered with from now on. */
  publishState(state: PeerState): void {
    this.#state = state;
  }

  /**
   * Send a packet; it leaves with all others of this turn, or with the next `flush`. The payload's bytes must stay as
   * they are until `left`, if given, is called: then the link has no more use for them. A packet for a session that is
   * over goes nowhere: its sender will hear, or has heard, of the end; `left` may never be called then.
   */
  send(session: number, packet: Packet, payload: Uint8Array | null, left?: () => void): void {
    const current = this.#session;
    if (current?.number !== session) return;
    current.packets.encode(packet, payload);
    if (left !== undefined) current.connection.whenLeft(left);
    const max = this.#options.maxBufferedBytes ?? defaultMaxBufferedBytes;
    const { bufferedBytes } = current.connection;
    if (bufferedBytes > max) {
      current.connection.fail(`${this.#options.peerName} has left ${bufferedBytes} bytes unread`);
    } else {
      current.connection.flushSoon();
    }
  }

  /** A payload that came with a packet of the present session has been dealt with, and is looked at no more. */
  recycle(payload: Uint8Array): void {
    this.#session?.connection.recycle(payload);
  }

  /** What made `isOverrun` say so may be over. Harmless when it is not, or never was. */
  goOn(): void {
    this.#session?.connection.goOn();
  }

  /** Send what was collected now. */
  flush(): void {
    this.#session?.connection.flush();
  }

  /** Bytes of the present session that the network has not taken yet. */
  get bufferedBytes(): number {
    return this.#session?.connection.bufferedBytes ?? 0;
  }

  /**
   * End this session. What was sent before is handed to the network first, for at most `closeTimeoutMs`; a peer
   * that is silent anyway (Timeout, NetworkFailure) is not waited for. Nothing of the session is delivered from now
   * on, and onLinkDown is not called.
   */
  closeSession(session: number, why: LinkDownReason): void {
    const current = this.#session;
    if (current?.number !== session) return;
    this.#session = null;
    if (why === 'Timeout' || why === 'NetworkFailure') {
      current.connection.flush();
      current.connection.destroy();
    } else {
      current.connection.close();
    }
    this.#redial(current);
  }

  /** What both nodes of the present session hash with; null without one. */
  get coarseHash(): CoarseHash | null {
    return this.#session?.coarseHash ?? null;
  }

  /** A short authenticated look at the peer, whatever the state of the session. At most `probeTimeoutMs`. */
  async probe(): Promise<ProbeOutcome> {
    if (this.#stopped) return { kind: 'unreachable', detail: 'this node is stopping' };
    return new Promise((resolve) => {
      const settle = (outcome: ProbeOutcome): void => {
        this.#probes.delete(stopProbe);
        resolve(outcome);
      };
      const abandon = this.#call('probe', this.#options.probeTimeoutMs, (outcome, connection) => {
        connection?.close();
        settle(
          outcome.kind === 'state'
            ? { kind: 'answered', state: outcome.state }
            : { kind: 'unreachable', detail: outcome.kind === 'failed' ? outcome.detail : 'no state came' },
        );
      });
      const stopProbe = (): void => {
        abandon();
        settle({ kind: 'unreachable', detail: 'this node is stopping' });
      };
      this.#probes.add(stopProbe);
    });
  }

  /** Ends everything; resolves when no socket is left. No hook is called from now on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wanted = false;
    this.#abandonDial?.();
    for (const stopProbe of [...this.#probes]) stopProbe();
    const session = this.#session;
    this.#session = null;
    session?.connection.close();
    for (const connection of this.#unauthenticated) connection.destroy();
    const closed = [...this.#connections].map((connection) => connection.closed);
    if (this.#server.listening) {
      await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    }
    await Promise.all(closed);
  }

  /** Dial for a session if there is reason to, now or later. */
  #dialAfter(ms: number): void {
    if (!this.#isDialler || !this.#wanted || this.#stopped) return;
    if (this.#session !== null || this.#abandonDial !== null) return;
    if (ms > 0) {
      const cancel = this.#clock.after(ms, () => {
        this.#abandonDial = null;
        this.#dialAfter(0);
      });
      this.#abandonDial = () => {
        this.#abandonDial = null;
        cancel();
      };
      return;
    }
    const abandon = this.#call('session', this.#options.handshakeTimeoutMs, (outcome, connection) => {
      this.#abandonDial = null;
      if (outcome.kind === 'accepted' && connection !== null) {
        this.#open(connection, outcome.coarseHash);
        return;
      }
      connection?.close();
      const detail = outcome.kind === 'failed' ? outcome.detail : 'the peer answered something else';
      this.#dialLater();
      this.#options.hooks.onLinkRefused(detail);
    });
    this.#abandonDial = () => {
      this.#abandonDial = null;
      abandon();
    };
  }

  #dialLater(): void {
    const waitMs = this.#retryMs;
    this.#retryMs = Math.min(this.#retryMs * 2, this.#options.connectIntervalMs);
    this.#dialAfter(waitMs);
  }

  /** After a session: at once if it had worked, else as after a failed attempt, lest two nodes spin. */
  #redial(lost: Session): void {
    if (this.#clock.nowMs() - lost.sinceMs >= stableSessionMs) {
      this.#retryMs = Math.min(firstRetryMs, this.#options.connectIntervalMs);
      this.#dialAfter(0);
    } else {
      this.#dialLater();
    }
  }

  /**
   * Connect and go through the dialler's part of the handshake. `done` is called once, unless the returned function
   * is called before; the connection, if there is one, is the callee's from then on.
   */
  #call(
    intent: Intent,
    timeoutMs: number,
    done: (
      outcome: DialOutcome | { readonly kind: 'failed'; readonly detail: string },
      connection: LinkConnection | null,
    ) => void,
  ): () => void {
    const { host, port } = this.#options.peerAddress;
    const dial = (receiver: Receiver): Socket =>
      connect({
        ...{ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs },
        onread: {
          buffer: () => receiver.nextBuffer(),
          callback: (byteCount) => {
            receiver.received(byteCount);
            return true;
          },
        },
      });
    const connection = this.#adopt(dial);
    const cancelDeadline = this.#clock.after(timeoutMs, () => {
      connection.destroy();
      done({ kind: 'failed', detail: `${host}:${port} did not answer within ${timeoutMs} ms` }, null);
    });
    connection.onEnded((_why, detail) => {
      cancelDeadline();
      done({ kind: 'failed', detail: `${host}:${port}: ${detail}` }, null);
    });
    connection.onConnect(() => {
      handshake.dial(this.#handshakeOptions(connection), intent, (outcome) => {
        cancelDeadline();
        done(outcome, connection);
      });
    });
    return () => {
      cancelDeadline();
      connection.destroy();
    };
  }

  #incoming(accepted: Socket): void {
    const connection = this.#adopt((receiver) => {
      const own = this.#options.receiveInto?.(accepted, {}, receiver) ?? null;
      return own ?? accepted.resume();
    });
    if (this.#stopped) {
      connection.destroy();
      return;
    }
    // The oldest has to go rather than the newest: whoever holds connections open without proving anything
    // cannot keep the peer out by it, since the peer needs one round trip only.
    for (const oldest of this.#unauthenticated) {
      if (this.#unauthenticated.size < maxUnauthenticated) break;
      this.#unauthenticated.delete(oldest);
      oldest.destroy();
    }
    this.#unauthenticated.add(connection);
    const { remote } = connection;
    const { handshakeTimeoutMs } = this.#options;
    const cancelDeadline = this.#clock.after(handshakeTimeoutMs, () => {
      connection.destroy();
      this.#report(`${remote} did not prove itself within ${handshakeTimeoutMs} ms`);
    });
    void connection.closed.then(() => {
      cancelDeadline();
      this.#unauthenticated.delete(connection);
    });
    connection.onEnded((_why, detail) => this.#report(`from ${remote}: ${detail}`));
    const conclude = (outcome: ListenOutcome): void => {
      cancelDeadline();
      if (outcome.kind === 'accepted') {
        this.#unauthenticated.delete(connection);
        this.#open(connection, outcome.coarseHash);
        return;
      }
      connection.close();
      if (outcome.kind === 'failed') this.#report(`from ${remote}: ${outcome.detail}`);
    };
    connection.become(
      handshake.listen(this.#handshakeOptions(connection), (intent) => this.#judge(intent), conclude),
    );
  }

  /** What an authenticated caller gets. */
  #judge(intent: Intent): Verdict {
    if (intent === 'probe') {
      return this.#state === null
        ? { kind: 'refused', reason: 'no-state' }
        : { kind: 'state', state: this.#state };
    }
    if (this.#isDialler) return { kind: 'refused', reason: 'wrong-direction' };
    return this.#wanted ? { kind: 'accepted' } : { kind: 'refused', reason: 'stand-alone' };
  }

  /** An authenticated connection becomes the session. */
  #open(connection: LinkConnection, coarseHash: CoarseHash): void {
    const old = this.#session;
    if (old !== null) {
      // The peer has dialled anew, so it has given up the session this node still believed in.
      this.#session = null;
      old.connection.destroy();
      this.#options.hooks.onLinkDown(old.number, 'NetworkFailure', 'the peer has opened a new connection');
    }
    // The hook may have changed its mind about wanting a session at all.
    if (!this.#wanted || this.#stopped) {
      connection.close();
      return;
    }
    const { hooks } = this.#options;
    const number = ++this.#lastSession;
    const session: Session = {
      number,
      connection,
      packets: new PacketEncoder(connection.frames),
      coarseHash,
      sinceMs: this.#clock.nowMs(),
    };
    this.#session = session;
    connection.settledWhen(() => hooks.arePayloadsSettled());
    connection.overrunWhen(() => hooks.isOverrun());
    connection.become(
      packetPhase((packet, payload) => {
        if (payload === null || packet.kind === 'write') return hooks.onPacket(number, packet, payload);
        if (payload.length <= copyBytesMax) return hooks.onPacket(number, packet, new Uint8Array(payload));
        connection.keep();
        hooks.onPacket(number, packet, payload);
      }),
    );
    connection.onDrain(() => hooks.onDrain());
    connection.onEnded((why, detail) => {
      this.#session = null;
      this.#redial(session);
      hooks.onLinkDown(number, why, detail);
    });
    hooks.onLinkUp(number);
  }

  #adopt(socket: (receiver: Receiver) => Socket): LinkConnection {
    const { closeTimeoutMs = defaultCloseTimeoutMs, atTurnEnd } = this.#options;
    const connection = new LinkConnection({ socket, clock: this.#clock, closeTimeoutMs, atTurnEnd });
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
    return connection;
  }

  #handshakeOptions(connection: LinkConnection): handshake.HandshakeOptions {
    return { connection, identity: this.#identity, auth: this.#auth, nonce: randomBytes(nonceBytes) };
  }

  #report(detail: string): void {
    const nowMs = this.#clock.nowMs();
    if (this.#stopped || nowMs - this.#reportedMs < incomingReportIntervalMs) return;
    this.#reportedMs = nowMs;
    this.#options.hooks.onLinkRefused(detail);
  }
}
