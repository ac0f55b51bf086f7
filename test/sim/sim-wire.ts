/**
 * The production codec between two simulated nodes: what one sends is encoded to frames, what arrives is decoded from
 * them, with sequence numbers and checksums. A sector of the simulation holds 4 bytes where a real one holds 512, so
 * offsets and lengths of data go over the wire divided by 128: what a packet says and what it carries stay true to each
 * other, and the codec checks them as ever. The hash of a block is as long as the stamps of its sectors, and is those.
 */
import { PacketDecoder, PacketEncoder } from '../../replicator/wire/codec.ts';
import type { Packet, Payload, PeerState } from '../../replicator/core/packet.ts';
import type { Prng } from './prng.ts';
import { sectorBytes, SimDigests, SimPayload } from './sim-disk.ts';

const stampBytes = 4;
const scale = sectorBytes / stampBytes;

/** What may happen to a frame on its way. */
export type Tampering = 'flip' | 'truncate' | 'duplicate';

/** One packet as it travels: in production's bytes. */
export interface Frame {
  readonly chunks: readonly Uint8Array[];
  readonly tampering: Tampering | null;
}

/** One side's encoder and decoder for one session. */
export class WireEnd {
  readonly #encoder = new PacketEncoder();
  readonly #decoder: PacketDecoder;
  #delivered = 0;
  /** Bytes are missing in the stream: what follows is taken for them, and the error shows whenever they are complete. */
  #isShort = false;

  constructor(onPacket: (packet: Packet, payload: Payload | null) => void) {
    this.#decoder = new PacketDecoder((packet, payload) => {
      this.#delivered++;
      onPacket(scaled(packet, scale), payload === null ? null : received(packet, payload));
    });
  }

  encode(packet: Packet, payload: Payload | null): Frame {
    this.#encoder.encode(scaled(packet, 1 / scale), payload === null ? null : bytes(payload));
    return { chunks: this.#encoder.take(), tampering: null };
  }

  /** What is wrong with the stream; null as long as nothing is. `complaint`: the codec took what it must not take. */
  receive(frame: Frame): { readonly error: string | null; readonly complaint: string | null } {
    const before = this.#delivered;
    let error: string | null = null;
    for (const chunk of frame.chunks) error = this.#decoder.feed(chunk)?.message ?? null;
    const delivered = this.#delivered - before;
    switch (frame.tampering) {
      case null:
        return { error, complaint: null };
      case 'flip':
        if (delivered > 0) return { error, complaint: 'a frame with a flipped bit was delivered' };
        return { error, complaint: error === null && !this.#isShort ? 'a flipped bit went unnoticed' : null };
      case 'truncate':
        this.#isShort = true;
        return { error, complaint: delivered > 0 ? 'a truncated frame was delivered' : null };
      case 'duplicate':
        if (delivered > 1) return { error, complaint: 'a frame was delivered twice' };
        return { error, complaint: null };
      default:
        return frame.tampering satisfies never;
    }
  }

  stop(): void {
    this.#decoder.stop();
  }
}

/** The state a probe is answered with, through the codec as well. */
export function throughWire(state: PeerState): PeerState {
  let received: PeerState | null = null;
  const end = new WireEnd((packet) => {
    if (packet.kind === 'state') received = packet.state;
  });
  end.receive(end.encode({ kind: 'state', state }, null));
  return received ?? state;
}

export function tamper(frame: Frame, how: Tampering, prng: Prng): Frame {
  const whole = Uint8Array.from(frame.chunks.flatMap((chunk) => [...chunk]));
  switch (how) {
    case 'flip': {
      const at = prng.int(whole.length);
      whole[at] = (whole[at] ?? 0) ^ (1 << prng.int(8));
      return { chunks: [whole], tampering: how };
    }
    case 'truncate':
      return { chunks: [whole.subarray(0, prng.int(whole.length))], tampering: how };
    case 'duplicate':
      return { chunks: [whole, whole.slice()], tampering: how };
    default:
      return how satisfies never;
  }
}

/** In pieces as a network may deliver them. */
export function inPieces(frame: Frame, prng: Prng): Frame {
  const chunks = frame.chunks.flatMap((chunk) => {
    const at = prng.int(chunk.length + 1);
    return [chunk.subarray(0, at), chunk.subarray(at)];
  });
  return { ...frame, chunks };
}

function scaled(packet: Packet, by: number): Packet {
  switch (packet.kind) {
    case 'write':
    case 'read':
    case 'resyncRequest':
    case 'resyncData':
      return { ...packet, offset: packet.offset * by, length: packet.length * by };
    case 'scatteredData':
      return { ...packet, length: packet.length * by };
    default:
      return packet;
  }
}

function bytes(payload: Payload): Uint8Array {
  if (!(payload instanceof SimPayload || payload instanceof SimDigests))
    throw new Error('a payload that is none of the simulation');
  const { buffer, byteOffset, byteLength } = payload instanceof SimDigests ? payload.words : payload.sectors;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function received(packet: Packet, payload: Uint8Array): Payload {
  const stamps = new Uint32Array(payload.slice().buffer);
  const isHashes = packet.kind === 'digestRequest' || packet.kind === 'verifyDigests';
  // What the peer's hashes are of, the node knows that compares them with its own.
  return isHashes ? new SimDigests(stamps, 0, false) : new SimPayload(stamps);
}
