/**
 * Blocks that say which write made them: a header of run, block index and sequence number, filled up with copies of
 * it, and a checksum over all at the end. A block of anything else, torn or misplaced, is told apart.
 */
import { crc32 } from 'node:zlib';

/** Bytes of a stamped block. */
export const stampedBytes = 4096;

export interface Stamp {
  /** Tells the runs apart that have used a device, 0 to 2^32 - 1. */
  readonly run: number;
  readonly block: number;
  /** 1 for the first write of a run; 0 stands for what was there before. */
  readonly sequence: number;
}

export type StampReading =
  | { readonly kind: 'stamp'; readonly stamp: Stamp }
  /** Nothing but zeroes: never written, or lost. */
  | { readonly kind: 'zeroes' }
  /** Neither: part of one write and part of another, or not from here at all. */
  | { readonly kind: 'torn' };

export function writeStamp(stamp: Stamp): Buffer {
  const bytes = Buffer.allocUnsafe(stampedBytes);
  bytes.writeUInt32BE(magic, 0);
  bytes.writeUInt32BE(stamp.run, 4);
  bytes.writeBigUInt64BE(BigInt(stamp.block), 8);
  bytes.writeBigUInt64BE(BigInt(stamp.sequence), 16);
  for (let filled = headerBytes; filled < stampedBytes; filled *= 2) bytes.copy(bytes, filled, 0, filled);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, checksumAt)), checksumAt);
  return bytes;
}

export function readStamp(block: Uint8Array): StampReading {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  if (bytes.equals(zeroes)) return { kind: 'zeroes' };
  if (bytes.length !== stampedBytes || bytes.readUInt32BE(0) !== magic) return { kind: 'torn' };
  if (bytes.readUInt32BE(checksumAt) !== crc32(bytes.subarray(0, checksumAt))) return { kind: 'torn' };
  return {
    kind: 'stamp',
    stamp: {
      run: bytes.readUInt32BE(4),
      block: Number(bytes.readBigUInt64BE(8)),
      sequence: Number(bytes.readBigUInt64BE(16)),
    },
  };
}

const magic = 0x6c6f636b;
const headerBytes = 24;
const checksumAt = stampedBytes - 4;
const zeroes = Buffer.alloc(stampedBytes);
