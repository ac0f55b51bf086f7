/** A TCP or Unix client that sends whatever bytes a test likes, and waits for what comes back. */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import type { ExecutionContext } from 'ava';
import { ByteQueue } from '../../nbd/byte-queue.ts';
import { hex } from './conversation.ts';

/** Client flags, then GO of r0 with simple replies; the server answers 18 + 32 + 20 bytes. */
export const goSimple = hex('00000003 "IHAVEOPT" 00000007 00000008 00000002 "r0" 0000');
export const goSimpleAnswerBytes = 18 + 32 + 20;

export class RawClient {
  readonly socket: Socket;
  /** Resolves when the connection is gone. */
  readonly closed: Promise<void>;
  readonly #queue = new ByteQueue();
  #isClosed = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk);
      this.#wake();
    });
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#isClosed = true;
        this.#wake();
        resolve();
      });
    });
  }

  static async connect(
    t: ExecutionContext,
    address: { readonly host: string; readonly port: number } | { readonly path: string },
    options: { readonly allowHalfOpen?: boolean } = {},
  ): Promise<RawClient> {
    const socket = createConnection({ ...address, ...options });
    t.teardown(() => socket.destroy());
    const client = new RawClient(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return client;
  }

  /** Connected, and in the transmission phase of r0 with simple replies. */
  static async inTransmission(
    t: ExecutionContext,
    address: { readonly host: string; readonly port: number } | { readonly path: string },
    options: { readonly allowHalfOpen?: boolean } = {},
  ): Promise<RawClient> {
    const client = await RawClient.connect(t, address, options);
    client.send(goSimple);
    await client.receive(goSimpleAnswerBytes);
    return client;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get receivedBytes(): number {
    return this.#queue.length;
  }

  send(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** The next `length` bytes; fewer when the connection ends before. */
  async receive(length: number): Promise<Buffer> {
    while (this.#queue.length < length && !this.#isClosed)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    return this.#queue.take(Math.min(length, this.#queue.length));
  }
}

/** A compact request. */
export function request(
  type: number,
  cookie: number,
  offset: number,
  length: number,
  payload?: Buffer,
): Buffer {
  const bytes = hex('25609513 00*24');
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(BigInt(cookie), 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return Buffer.concat([bytes, payload ?? Buffer.alloc(0)]);
}
