/**
 * Packets of a session <-> bytes. The encoder keeps what was encoded until it is taken, so that everything of one
 * turn leaves together; the decoder takes the stream in pieces of any size. Neither knows a socket.
 */
import { payloadKinds } from '../core/packet.ts';
import type { Packet, PacketKind } from '../core/packet.ts';
import { packetTypes } from './constants.ts';
import { FrameDecoder } from './frame-decoder.ts';
import type { FrameBounds, FramePhase } from './frame-decoder.ts';
import { FrameEncoder } from './frame-encoder.ts';
import { packetBodies } from './packet-body.ts';
import type { PacketBody, PacketOf } from './packet-body.ts';
import type { ProtocolError } from './protocol-error.ts';

export type OnPacket = (packet: Packet, payload: Uint8Array | null) => void;

export class PacketEncoder {
  readonly #frames: FrameEncoder;

  /** `frames` may have carried the handshake; its sequence numbers go on. */
  constructor(frames: FrameEncoder = new FrameEncoder()) {
    this.#frames = frames;
  }

  get pendingBytes(): number {
    return this.#frames.pendingBytes;
  }

  /**
   * Append a packet. The payload is not copied: its bytes must stay as they are until they have been sent.
   * Throws RangeError for a packet that cannot be: a bug of this node.
   */
  encode(packet: Packet, payload: Uint8Array | null): void {
    // Those of every write apart, where the compiler sees what they are.
    if (packet.kind === 'write') encodeWrite(this.#frames, packet, payload);
    else if (packet.kind === 'written') encodeWritten(this.#frames, packet);
    else encodeKind(this.#frames, packet.kind, packet, payload);
  }

  /** Everything since the last call, in order. */
  take(): readonly Uint8Array[] {
    return this.#frames.take();
  }
}

export class PacketDecoder {
  readonly #frames: FrameDecoder;

  constructor(onPacket: OnPacket) {
    this.#frames = new FrameDecoder(packetPhase(onPacket));
  }

  /** See FrameDecoder.feed. */
  feed(chunk: Uint8Array): ProtocolError | null {
    return this.#frames.feed(chunk);
  }

  stop(): void {
    this.#frames.stop();
  }
}

/** A connection in its session: packets and nothing else are acceptable. */
export function packetPhase(onPacket: OnPacket): FramePhase {
  return {
    bounds: packetBounds,
    deliver(type, body, payload) {
      if (type === packetTypes.write) {
        const write = packetBodies.write.read(body, payload === null ? 0 : payload.length);
        body.finish();
        onPacket(write, payload);
        return;
      }
      if (type === packetTypes.written) {
        const written = packetBodies.written.read(body, 0);
        body.finish();
        onPacket(written, payload);
        return;
      }
      // The bounds hold exactly the types of this table.
      const kind = kindOfType[type] as PacketKind;
      const packet = packetBodies[kind].read(body, payload === null ? 0 : payload.length);
      body.finish();
      onPacket(packet, payload);
    },
  };
}

const packetBounds = new Map<number, FrameBounds>();
const kindOfType: PacketKind[] = [];
for (const kind of Object.keys(packetBodies) as PacketKind[]) {
  const { bodyBytesMin, bodyBytesMax, payloadBytesMax } = packetBodies[kind];
  packetBounds.set(packetTypes[kind], { name: kind, bodyBytesMin, bodyBytesMax, payloadBytesMax });
  kindOfType[packetTypes[kind]] = kind;
}
if (packetBounds.size !== Object.keys(packetTypes).length) throw new Error('two packet kinds share a type');

function encodeWrite(frames: FrameEncoder, packet: PacketOf<'write'>, payload: Uint8Array | null): void {
  const body = packetBodies.write;
  checkPayload('write', payload, packet.op === 'write' ? packet.length : 0);
  body.write(frames.begin(body.bodyBytesMax), packet);
  frames.end(packetTypes.write, payload);
}

function encodeWritten(frames: FrameEncoder, packet: PacketOf<'written'>): void {
  const body = packetBodies.written;
  body.write(frames.begin(body.bodyBytesMax), packet);
  frames.end(packetTypes.written, null);
}

function encodeKind<Kind extends PacketKind>(
  frames: FrameEncoder,
  kind: Kind,
  packet: PacketOf<Kind>,
  payload: Uint8Array | null,
): void {
  const body: PacketBody<Kind> = packetBodies[kind];
  checkPayload(kind, payload, body.payloadBytes === undefined ? null : body.payloadBytes(packet));
  const writer = frames.begin(body.bodyBytes === undefined ? body.bodyBytesMax : body.bodyBytes(packet));
  body.write(writer, packet);
  frames.end(packetTypes[kind], payload);
}

/** `expected` is null where the packet does not say how long its payload is. */
function checkPayload(kind: PacketKind, payload: Uint8Array | null, expected: number | null): void {
  const length = payload === null ? 0 : payload.length;
  const isRight = expected === null ? length > 0 === payloadKinds.has(kind) : length === expected;
  if (!isRight) throw new RangeError(`${kind} with a payload of ${length} bytes, ${expected ?? 'other'} due`);
}
