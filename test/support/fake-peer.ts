/**
 * The other node as a test plays it: it knows the secret, proves itself as the real one does, and then says whatever the
 * test likes, in valid packets, in frames of any content with a right checksum, or in bytes.
 */
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import type { Packet, PeerState } from '../../replicator/core/packet.ts';
import { PeerAuth } from '../../replicator/shell/auth.ts';
import type { CoarseHash } from '../../replicator/shell/coarse-hash.ts';
import * as handshake from '../../replicator/shell/handshake.ts';
import { systemLinkClock } from '../../replicator/shell/link-clock.ts';
import { LinkConnection } from '../../replicator/shell/link-connection.ts';
import { packetPhase, PacketEncoder } from '../../replicator/wire/codec.ts';
import { frameMagic, headerBytes, headerLayout, supportedVersions } from '../../replicator/wire/constants.ts';
import { crc32c } from '../../replicator/wire/crc32c.ts';
import { patienceMs, within } from './node-process.ts';

export interface FakePeerOptions {
  readonly port: number;
  readonly resourceName: string;
  /** Whom it plays; has to sort first, since that one dials. */
  readonly name: string;
  readonly peerName: string;
  readonly secret: string;
}

export interface RawFrame {
  readonly type: number;
  readonly body?: Uint8Array;
  readonly payload?: Uint8Array;
  /** Otherwise what fits. */
  readonly sequence?: number;
  readonly bodyLength?: number;
  readonly payloadLength?: number;
  readonly flags?: number;
  readonly contentCrc?: number;
  readonly headerCrc?: number;
}

export class FakePeer {
  readonly socket: Socket;
  /** Resolves when the node has ended the connection. */
  readonly closed: Promise<void>;
  readonly #connection: LinkConnection;
  readonly #packets: PacketEncoder;
  /** As the real one has it. */
  readonly coarseHash: CoarseHash;
  readonly #payloads = new WeakMap<Packet, Buffer>();
  #heard: Packet[] = [];
  #isClosed = false;
  #wake: () => void = () => undefined;
  /** Of the next frame; hello and proof came before. */
  #sequence = 2;

  /** Resolves when the node has accepted the session. */
  static async dial(options: FakePeerOptions): Promise<FakePeer> {
    const socket = connect({ host: '127.0.0.1', port: options.port, noDelay: true });
    const connection = new LinkConnection({ socket, clock: systemLinkClock, closeTimeoutMs: 1000 });
    const identity = {
      resourceName: options.resourceName,
      nodeName: options.name,
      peerName: options.peerName,
      versions: supportedVersions,
    };
    const accepted = new Promise<FakePeer>((resolve, reject) => {
      connection.onEnded((_why, detail) => reject(new Error(detail)));
      socket.once('connect', () => {
        const auth = new PeerAuth(options.secret);
        const nonce = randomBytes(32);
        handshake.dial({ connection, identity, auth, nonce }, 'session', (outcome) => {
          if (outcome.kind === 'accepted') resolve(new FakePeer(socket, connection, outcome.coarseHash));
          else reject(new Error(outcome.kind === 'failed' ? outcome.detail : 'not a session'));
        });
      });
    });
    return within(patienceMs, 'a session with the node', accepted);
  }

  private constructor(socket: Socket, connection: LinkConnection, coarseHash: CoarseHash) {
    this.socket = socket;
    this.coarseHash = coarseHash;
    this.#connection = connection;
    this.#packets = new PacketEncoder(connection.frames);
    // Within the call that delivered the answer: packets may follow it in the same chunk.
    connection.become(
      packetPhase((packet, payload) => {
        this.#heard.push(packet);
        if (payload !== null) this.#payloads.set(packet, Buffer.from(payload));
        this.#wake();
      }),
    );
    this.closed = new Promise((resolve) => {
      const ended = (): void => {
        this.#isClosed = true;
        this.#wake();
        resolve();
      };
      connection.onEnded(ended);
      void connection.closed.then(ended);
    });
  }

  /** The next packet of this kind; others before it are passed over. Null when the connection ends first. */
  async heard<Kind extends Packet['kind']>(kind: Kind): Promise<Extract<Packet, { kind: Kind }> | null> {
    const find = async (): Promise<Extract<Packet, { kind: Kind }> | null> => {
      for (;;) {
        const packet = this.#heard.shift();
        if (packet !== undefined && isOfKind(packet, kind)) return packet;
        if (packet !== undefined) continue;
        if (this.#isClosed) return null;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    };
    return within(patienceMs, `the node to say ${kind}`, find());
  }

  /** What came with a packet that was heard; empty when nothing did. */
  payloadOf(packet: Packet): Buffer {
    return this.#payloads.get(packet) ?? Buffer.alloc(0);
  }

  /** The bytes of a packet, one frame, as the next to be sent. */
  encode(packet: Packet, payload: Uint8Array | null = null): Buffer {
    this.#packets.encode(packet, payload);
    this.#sequence += 1;
    return Buffer.concat(this.#packets.take());
  }

  /** A frame that our encoder would not make; the checksums are right unless others are given. */
  frame(raw: RawFrame): Buffer {
    const body = raw.body ?? new Uint8Array(0);
    const payload = raw.payload ?? new Uint8Array(0);
    const header = Buffer.alloc(headerBytes);
    header.writeUInt32BE(frameMagic, headerLayout.magic);
    header.writeUInt8(raw.type, headerLayout.type);
    header.writeUInt8(raw.flags ?? 0, headerLayout.flags);
    header.writeUInt32BE(raw.bodyLength ?? body.length, headerLayout.bodyLength);
    header.writeUInt32BE(raw.payloadLength ?? payload.length, headerLayout.payloadLength);
    header.writeBigUInt64BE(BigInt(raw.sequence ?? this.#sequence), headerLayout.sequence);
    header.writeUInt32BE(raw.contentCrc ?? crc32c(Buffer.concat([body, payload])), headerLayout.contentCrc);
    header.writeUInt32BE(raw.headerCrc ?? crc32c(header, 0, headerLayout.headerCrc), headerLayout.headerCrc);
    return Buffer.concat([header, body, payload]);
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  say(packet: Packet, payload: Uint8Array | null = null): void {
    this.send(this.encode(packet, payload));
  }

  /** What the node says of itself. */
  async introduced(): Promise<PeerState> {
    const packet = await this.heard('state');
    if (packet === null) throw new Error('the node ended the session before it introduced itself');
    return packet.state;
  }

  /** Both hold the same, and begin to mirror. */
  async establish(change: Partial<PeerState> = {}): Promise<PeerState> {
    const theirs = await this.introduced();
    this.say({ kind: 'state', state: { ...asEqual(theirs), ...change } });
    if ((await this.heard('syncReady')) === null) throw new Error('the node did not agree');
    this.say({ kind: 'syncReady' });
    if ((await this.heard('diskState')) === null) throw new Error('the node did not begin');
    return theirs;
  }

  /** Resolves with whether the node is still there to answer, after all that was sent. */
  async isHeard(): Promise<boolean> {
    this.say({ kind: 'ping' });
    return (await this.heard('pong')) !== null;
  }

  destroy(): void {
    this.#connection.destroy();
  }
}

/** A peer's state that leads to no resync, whoever says it. */
export function asEqual(theirs: PeerState): PeerState {
  return {
    ...theirs,
    role: 'Secondary',
    disk: 'UpToDate',
    exposed: 0n,
    writer: false,
    crashedPrimary: false,
    peerExcluded: false,
    dirtyBlocks: 0,
    discardMyData: false,
  };
}

function isOfKind<Kind extends Packet['kind']>(
  packet: Packet,
  kind: Kind,
): packet is Extract<Packet, { kind: Kind }> {
  return packet.kind === kind;
}
