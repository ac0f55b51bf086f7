/**
 * A TCP proxy between two nodes under test, with the faults of a network as methods and promises instead of sleeps:
 * every `await` here ends when the thing has happened. Loopback only.
 */
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';

/** toTarget: from who connected to the proxy, to whom the proxy connects. */
export type Direction = 'toTarget' | 'toClient';

interface Pair {
  readonly client: Socket;
  readonly target: Socket;
  readonly frozen: Set<Direction>;
  readonly held: Set<Direction>;
}

interface Waiter {
  readonly isDone: () => boolean;
  readonly resolve: () => void;
}

export class TcpProxy {
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  readonly #sockets = new Set<Socket>();
  readonly #bytes: Record<Direction, number> = { toTarget: 0, toClient: 0 };
  readonly #corrupt: Record<Direction, number> = { toTarget: 0, toClient: 0 };
  readonly #frozenNew = new Set<Direction>();
  #waiters: Waiter[] = [];
  #targetPort: number;
  #cut = false;
  #port = 0;
  #accepted = 0;
  #refused = 0;

  private constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client));
  }

  /** Listens on a port of 127.0.0.1 the system chooses. The target need not listen yet. */
  static async start(targetPort = 0): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    const address = proxy.#server.address();
    if (typeof address !== 'object' || address === null) throw new Error('the proxy has no port');
    proxy.#port = address.port;
    return proxy;
  }

  get port(): number {
    return this.#port;
  }

  /** Bytes forwarded so far; swallowed ones do not count. */
  bytes(direction: Direction): number {
    return this.#bytes[direction];
  }

  /** Connections that are open, frozen ones included. */
  get connections(): number {
    return this.#pairs.size;
  }

  /** Connections that have reached the target since the start. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Where connections made from now on go. */
  setTarget(port: number): void {
    this.#targetPort = port;
  }

  /** The cable is pulled: all connections are reset, new ones as soon as they come. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) reset(socket);
  }

  /** New connections go through again, whatever `cut` or `freeze` said. Frozen ones stay frozen. */
  heal(): void {
    this.#cut = false;
    this.#frozenNew.clear();
  }

  /**
   * Half-open: present connections stay open, but their bytes (and their end) are swallowed. With `includeNew`,
   * so are those of connections made before `heal`: a black hole.
   */
  freeze(options: { readonly direction?: Direction; readonly includeNew?: boolean } = {}): void {
    const directions: Direction[] = options.direction ? [options.direction] : ['toTarget', 'toClient'];
    for (const direction of directions) {
      for (const pair of this.#pairs) {
        pair.frozen.add(direction);
        // A paused source would stay paused, and its bytes pile up at the sender instead of being lost.
        sourceOf(pair, direction).resume();
      }
      if (options.includeNew === true) this.#frozenNew.add(direction);
    }
  }

  /** A receiver that takes nothing: the bytes of present connections pile up at the sender, until `letGo`. */
  hold(direction: Direction): void {
    for (const pair of this.#pairs) {
      pair.held.add(direction);
      sourceOf(pair, direction).pause();
    }
  }

  letGo(direction: Direction): void {
    for (const pair of this.#pairs) {
      pair.held.delete(direction);
      sourceOf(pair, direction).resume();
    }
  }

  /** Flips one bit of the byte that comes after `skipBytes` more bytes in this direction. */
  corrupt(direction: Direction, skipBytes = 0): void {
    this.#corrupt[direction] = skipBytes + 1;
  }

  /** Resolves when `count` connections in all have reached the target since the start. */
  async connected(count: number): Promise<void> {
    await this.#until(() => this.#accepted >= count);
  }

  /** Resolves when `count` connections in all have been refused by `cut` since the start. */
  async refused(count: number): Promise<void> {
    await this.#until(() => this.#refused >= count);
  }

  /** Resolves when `count` bytes in all have been forwarded in this direction since the start. */
  async forwarded(direction: Direction, count: number): Promise<void> {
    await this.#until(() => this.#bytes[direction] >= count);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(client: Socket): void {
    this.#track(client);
    if (this.#cut) {
      reset(client);
      this.#refused += 1;
      this.#changed();
      return;
    }
    const target = connect({
      host: '127.0.0.1',
      port: this.#targetPort,
      allowHalfOpen: true,
      noDelay: true,
    });
    this.#track(target);
    const pair: Pair = { client, target, frozen: new Set(this.#frozenNew), held: new Set() };
    this.#pairs.add(pair);
    target.once('connect', () => {
      this.#accepted += 1;
      this.#changed();
    });
    this.#forward(pair, 'toTarget', client, target);
    this.#forward(pair, 'toClient', target, client);
  }

  #forward(pair: Pair, direction: Direction, from: Socket, to: Socket): void {
    from.on('data', (chunk: Buffer) => {
      if (pair.frozen.has(direction)) return;
      this.#damage(direction, chunk);
      if (!to.write(chunk)) {
        from.pause();
        to.once('drain', () => {
          if (!pair.held.has(direction)) from.resume();
        });
      }
      this.#bytes[direction] += chunk.length;
      this.#changed();
    });
    from.on('end', () => {
      if (!pair.frozen.has(direction)) to.end();
    });
    from.on('close', (hadError: boolean) => {
      if (pair.frozen.has(direction)) return;
      this.#pairs.delete(pair);
      if (hadError) reset(to);
      else if (to.writable) to.end();
    });
  }

  #damage(direction: Direction, chunk: Buffer): void {
    const at = this.#corrupt[direction] - 1;
    if (at < 0) return;
    if (at >= chunk.length) {
      this.#corrupt[direction] -= chunk.length;
      return;
    }
    chunk.writeUInt8(chunk.readUInt8(at) ^ 0x10, at);
    this.#corrupt[direction] = 0;
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
  }

  async #until(isDone: () => boolean): Promise<void> {
    if (isDone()) return;
    await new Promise<void>((resolve) => this.#waiters.push({ isDone, resolve }));
  }

  #changed(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      if (!waiter.isDone()) return true;
      waiter.resolve();
      return false;
    });
  }
}

/** A socket that has sent its end cannot be reset any more: the attempt fails and leaves its handle open. */
function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

function sourceOf(pair: Pair, direction: Direction): Socket {
  return direction === 'toTarget' ? pair.client : pair.target;
}
