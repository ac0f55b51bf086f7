/**
 * The numbers of the peer protocol: frame layout, packet types and bounds. docs/peer-protocol.md explains them.
 * A number that has been released never changes its meaning; a new packet kind takes an unused one.
 */
import type { PacketKind } from '../core/packet.ts';

/** First four bytes of every frame: "LKSP". */
export const frameMagic = 0x4c4b5350;
export const headerBytes = 32;

/** Byte positions inside the header. All integers are big-endian. */
export const headerLayout = {
  magic: 0,
  type: 4,
  flags: 5,
  reserved: 6,
  bodyLength: 8,
  payloadLength: 12,
  sequence: 16,
  contentCrc: 24,
  headerCrc: 28,
} as const;

/** Bound of every body, whatever its type; most types have a much smaller one of their own. */
export const maxBodyBytes = 1024 * 1024;

/** Most runs in one `bitmap` or `resyncStable` packet. With two varints of at most 6 bytes each they fit a body. */
export const maxRunsPerPacket = 65_536;

/** Offsets stay below 2^53, so a block index (4 KiB blocks) stays below 2^41. */
export const maxBlockIndex = 2 ** 41;

/** Bounds of text, in bytes of UTF-8. */
export const maxNameBytes = 255;
export const maxRuleBytes = 255;
export const maxRefusalTextBytes = 1024;

/** Range of protocol versions this code speaks. */
export interface VersionRange {
  readonly min: number;
  readonly max: number;
}
export const supportedVersions: VersionRange = { min: 2, max: 2 };

export const nonceBytes = 32;
export const proofBytes = 32;
/** Bound of all handshake frames of one direction together, headers included. */
export const maxHandshakeBytes = 4096;
export const maxHelloBytes = 1024;
export const maxAnswerBytes = 1024;

/** Frames before the session: see handshake-codec.ts. */
export const handshakeTypes = { hello: 0xe0, proof: 0xe1, answer: 0xe2, reject: 0xe3 } as const;

/** Frames of the session. */
export const packetTypes: Readonly<Record<PacketKind, number>> = {
  state: 0x01,
  bitmap: 0x02,
  syncStart: 0x03,
  syncReady: 0x04,
  syncFinished: 0x05,
  refused: 0x06,
  goodbye: 0x07,
  ping: 0x08,
  pong: 0x09,
  diskState: 0x0a,
  write: 0x10,
  received: 0x11,
  written: 0x12,
  writeFailed: 0x13,
  flush: 0x14,
  flushed: 0x15,
  flushFailed: 0x16,
  read: 0x18,
  readData: 0x19,
  readFailed: 0x1a,
  resyncRequest: 0x20,
  resyncData: 0x21,
  resyncFailed: 0x22,
  resyncStable: 0x23,
  resyncPause: 0x24,
  invalidate: 0x25,
  digestRequest: 0x26,
  resyncSame: 0x27,
  verifyStart: 0x28,
  verifyRequest: 0x29,
  verifyPoint: 0x2a,
  verifyDigests: 0x2b,
  verifyFailed: 0x2c,
  verifyFound: 0x2d,
  verifyEnd: 0x2e,
  verifyStop: 0x2f,
  newGeneration: 0x30,
  newGenerationDone: 0x31,
  peerDiskGone: 0x32,
  peerDiskGoneDone: 0x33,
  promoteRequest: 0x40,
  promoteReply: 0x41,
  handoverRequest: 0x42,
  handoverReply: 0x43,
  giveUpRequest: 0x44,
  giveUpReply: 0x45,
  giveUpEnded: 0x46,
  resyncLimit: 0x50,
  scatteredRequest: 0x51,
  scatteredData: 0x52,
  grow: 0x58,
  grown: 0x59,
};
