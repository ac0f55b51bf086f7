/** The NBD server: listeners on TCP and Unix sockets, and the bounds on the connections they bring. */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import type { ExportSource } from './export.ts';
import { defaultLimits } from './limits.ts';
import type { NbdLimits } from './limits.ts';
import { ReceivePool } from './receive-buffers.ts';
import { Session } from './session.ts';
import type { NbdLog, SessionHost } from './session.ts';
import { createStartTls } from './tls.ts';
import type { NbdTlsOptions } from './tls.ts';
import { listenOnUnixSocket } from './unix-socket.ts';
import type { UnixListener } from './unix-socket.ts';

export interface NbdServerOptions {
  readonly source: ExportSource;
  /** No TLS without it. */
  readonly tls?: NbdTlsOptions;
  /** What is not given is as in `defaultLimits`. */
  readonly limits?: Partial<NbdLimits>;
  readonly log?: NbdLog;
  /** Called with the number of connections in the transmission phase, on every change. */
  readonly onClientCount?: (count: number) => void;
}

export interface NbdServer {
  /** `port` 0 lets the system choose. Resolves with the port in use; rejects when it cannot listen. */
  listenTcp(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /** Mode 0600; a stale socket file is replaced. Rejects when another server answers there. */
  listenUnix(path: string): Promise<void>;
  /** Connections in the transmission phase. */
  readonly clientCount: number;
  /** Connections of any kind. */
  readonly connectionCount: number;
  /**
   * Ends the connections in the transmission phase (of one export, by its canonical name, or of all). On return no
   * request of theirs that is not at the device yet will ever be executed. Resolves once the device has completed
   * the others, which it should make happen soon (ESHUTDOWN will do), and the connections are gone; requests left
   * behind by clients that went away earlier are waited for as well.
   */
  disconnectClients(exportName?: string): Promise<void>;
  /** Stops listening, removes the socket file, and ends all connections as `disconnectClients` does. */
  close(): Promise<void>;
}

/** Throws when the TLS options do not fit together. */
export function createNbdServer(options: NbdServerOptions): NbdServer {
  return new ListeningServer(options);
}

const KEEP_ALIVE_MS = 60_000;
/** What an export's connections have been received into and nobody uses just now; the rest is given back. */
const receivePoolBytes = 8 * 1024 * 1024;

class ListeningServer implements NbdServer {
  readonly #limits: NbdLimits;
  readonly #log: NbdLog;
  readonly #onClientCount: (count: number) => void;
  readonly #host: SessionHost;
  readonly #listeners = new Set<Server>();
  readonly #unixListeners = new Set<UnixListener>();
  /** Insertion order is age. */
  readonly #handshaking = new Set<Session>();
  readonly #clients = new Set<Session>();
  /** Clients, and connections that are gone while the device still works for them. */
  readonly #unsettled = new Set<Session>();
  #closing = false;

  constructor(options: NbdServerOptions) {
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#log = options.log ?? (() => undefined);
    this.#onClientCount = options.onClientCount ?? (() => undefined);
    const { tls } = options;
    this.#host = {
      environment: {
        source: options.source,
        tls: tls === undefined ? 'off' : tls.required ? 'required' : 'optional',
      },
      startTls: tls === undefined ? null : createStartTls(tls),
      limits: this.#limits,
      receivePool: new ReceivePool(receivePoolBytes),
      log: this.#log,
      transmissionBegan: (session) => {
        this.#handshaking.delete(session);
        this.#clients.add(session);
        this.#unsettled.add(session);
        this.#onClientCount(this.#clients.size);
      },
      closed: (session) => {
        this.#handshaking.delete(session);
        if (this.#clients.delete(session)) this.#onClientCount(this.#clients.size);
      },
      settled: (session) => {
        this.#unsettled.delete(session);
      },
    };
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  get connectionCount(): number {
    return this.#clients.size + this.#handshaking.size;
  }

  async listenTcp(host: string, port: number): Promise<{ readonly host: string; readonly port: number }> {
    const listener = this.#createListener();
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      listener.listen({ host, port }, () => {
        listener.off('error', reject);
        resolve();
      });
    });
    await this.#keepListener(listener);
    const address = listener.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP listener without a port');
    return { host: address.address, port: address.port };
  }

  async listenUnix(path: string): Promise<void> {
    const listener = this.#createListener();
    let bound: UnixListener;
    try {
      bound = await listenOnUnixSocket(listener, path);
    } catch (error) {
      listener.close();
      throw error;
    }
    if (this.#closing) await bound.remove();
    await this.#keepListener(listener);
    this.#unixListeners.add(bound);
  }

  async disconnectClients(exportName?: string): Promise<void> {
    const chosen = [...this.#unsettled].filter(
      (session) => exportName === undefined || session.exportName === exportName,
    );
    await Promise.all(chosen.map((session) => session.fence()));
  }

  async close(): Promise<void> {
    this.#closing = true;
    const listenersClosed = [...this.#listeners].map(closeListener);
    for (const session of [...this.#handshaking]) session.destroy('the server is closing');
    const removed = [...this.#unixListeners].map((listener) => listener.remove());
    this.#unixListeners.clear();
    await Promise.all([this.disconnectClients(), ...listenersClosed, ...removed]);
    this.#listeners.clear();
  }

  #createListener(): Server {
    // Half-open, so that a client that has shut down its sending side still gets its replies.
    const listener = createServer({
      ...{ allowHalfOpen: true, noDelay: true, keepAlive: true },
      // Nothing is read before the session has said where to.
      pauseOnConnect: true,
    });
    listener.on('connection', (socket) => {
      this.#accept(socket);
    });
    return listener;
  }

  async #keepListener(listener: Server): Promise<void> {
    if (this.#closing) {
      await closeListener(listener);
      throw new Error('the NBD server is closing');
    }
    this.#listeners.add(listener);
    // Running out of descriptors, for example: the connections there are go on.
    listener.on('error', (error) => {
      this.#log('warn', `NBD listener: ${error.message}`);
    });
  }

  #accept(socket: Socket): void {
    const { maxConnections, maxHandshaking } = this.#limits;
    // One that is gone holds its payloads for as long as the device has not answered: clients that come back again and
    // again while it is suspended would fill the memory.
    const isFull = this.#unsettled.size + this.#handshaking.size >= maxConnections;
    const [oldest] = this.#handshaking;
    if (this.#closing || (isFull && oldest === undefined)) {
      socket.on('error', () => undefined);
      socket.destroy();
      return;
    }
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    if (isFull || this.#handshaking.size >= maxHandshaking)
      oldest?.destroy('too many connections are in their handshake');
    this.#handshaking.add(new Session(socket, this.#host));
  }
}

function closeListener(listener: Server): Promise<void> {
  return new Promise((resolve) => {
    listener.close(() => {
      resolve();
    });
  });
}
