/** Recorded NBD conversations (test/golden/nbd-*.txt), and a server without sockets to hold them with. */
import { readFileSync } from 'node:fs';
import { ByteQueue } from '../../nbd/byte-queue.ts';
import { HandshakeIntake } from '../../nbd/handshake-intake.ts';
import type { HandshakeEnvironment } from '../../nbd/handshake.ts';
import { ReplyBuffer } from '../../nbd/reply-buffer.ts';
import { TransmissionIntake } from '../../nbd/transmission-intake.ts';
import { MemoryDevice } from './memory-device.ts';
import { sourceOf } from './nbd-server.ts';

export interface Turn {
  readonly from: 'client' | 'server';
  readonly bytes: Buffer;
}

/** Consecutive lines of one side are one turn. */
export function readConversation(name: string): readonly Turn[] {
  const text = readFileSync(new URL(`../golden/${name}.txt`, import.meta.url), 'utf8');
  const turns: Turn[] = [];
  for (const line of text.split('\n')) {
    const match = /^([CS]): ((?:"[^"]*"|[^"#])*)/.exec(line);
    if (match === null) continue;
    const from = match[1] === 'C' ? 'client' : 'server';
    const bytes = Buffer.concat((match[2] ?? '').match(/"[^"]*"|\S+/g)?.map(decodeToken) ?? []);
    const last = turns.at(-1);
    if (last?.from === from) turns[turns.length - 1] = { from, bytes: Buffer.concat([last.bytes, bytes]) };
    else turns.push({ from, bytes });
  }
  if (turns.length === 0) throw new Error(`nothing in ${name}`);
  return turns;
}

export function allBytes(turns: readonly Turn[], from: Turn['from']): Buffer {
  return Buffer.concat(turns.filter((turn) => turn.from === from).map(({ bytes }) => bytes));
}

/** Hexadecimal, "text" and XX*N, as in the golden files. */
export function hex(text: string): Buffer {
  return Buffer.concat(text.match(/"[^"]*"|\S+/g)?.map(decodeToken) ?? []);
}

function decodeToken(token: string): Buffer {
  if (token.startsWith('"')) return Buffer.from(token.slice(1, -1));
  const repeated = /^([0-9a-f]{2})\*(\d+)$/.exec(token);
  if (repeated !== null) return Buffer.alloc(Number(repeated[2]), Number.parseInt(repeated[1] ?? '', 16));
  if (!/^([0-9a-f]{2})+$/.test(token)) throw new Error(`not hexadecimal: ${token}`);
  return Buffer.from(token, 'hex');
}

/** The server's protocol without its sockets: bytes in, bytes out. */
export class SocketlessServer {
  readonly device: MemoryDevice;
  readonly #queue = new ByteQueue();
  readonly #replies = new ReplyBuffer();
  readonly #handshake: HandshakeIntake;
  #transmission: TransmissionIntake | null = null;
  #output: Buffer = Buffer.alloc(0);
  /** How it went on after the last bytes. */
  ended: 'no' | 'closed' | 'disconnected' | 'abandoned' | 'tls' = 'no';

  constructor(device = new MemoryDevice(1024 * 1024), tls: HandshakeEnvironment['tls'] = 'off') {
    this.device = device;
    this.#handshake = new HandshakeIntake({ source: sourceOf(device), tls }, this.#replies);
    this.#collect();
  }

  /** Everything sent so far. */
  get output(): Buffer {
    return this.#output;
  }

  /** Throws NbdProtocolError as the intakes do. Answers what was sent in return. */
  feed(bytes: Buffer): Buffer {
    const before = this.#output.length;
    this.#queue.push(bytes);
    while (this.ended === 'no' && this.#transmission === null) {
      const next = this.#handshake.consume(this.#queue);
      if (next === null) break;
      if (next.kind === 'close') this.ended = 'closed';
      else if (next.kind === 'startTls') this.ended = 'tls';
      else if (next.kind === 'transmission')
        this.#transmission = new TransmissionIntake(next.negotiated, this.#replies, {
          mayAccept: () => true,
          completed: () => undefined,
        });
    }
    if (this.#transmission !== null) {
      const intaken = this.#transmission.consume(this.#queue);
      if (intaken.kind === 'ended') this.ended = 'disconnected';
      if (intaken.kind === 'abandoned') this.ended = 'abandoned';
    }
    this.#collect();
    return this.#output.subarray(before);
  }

  /** TLS is up. */
  secured(): void {
    this.#handshake.secured();
    this.ended = 'no';
  }

  #collect(): void {
    this.#output = Buffer.concat([this.#output, ...this.#replies.drain()]);
  }
}
