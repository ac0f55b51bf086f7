/**
 * What the bytes in the .hex files next to this one mean. The bytes were written by hand from
 * docs/peer-protocol.md; no code of ours made them.
 */
import { readFileSync } from 'node:fs';
import type { Packet, PacketKind } from '../../../replicator/core/packet.ts';

export interface GoldenPacket {
  /** File name without `.hex`. */
  readonly name: string;
  readonly packet: Packet;
  /** Hex. */
  readonly payload?: string;
}

const kinds: { readonly [Kind in PacketKind]: readonly GoldenPacket[] } = {
  state: [
    {
      name: 'state',
      packet: {
        kind: 'state',
        state: {
          sizeBytes: 10 * 1024 ** 3,
          protocol: 'C',
          role: 'Primary',
          disk: 'UpToDate',
          origin: 'settled',
          current: 0x1111111111111111n,
          bitmap: [0x2222222222222222n],
          history: [0xa3a3a3a3a3a3a3a3n, 1n],
          exposed: 0n,
          writer: true,
          crashedPrimary: true,
          linked: true,
          peerExcluded: false,
          dirtyBlocks: 5,
          discardMyData: true,
          partedAsPrimary: true,
          'after-sb-0pri': 'discard-sorts-first',
          'after-sb-1pri': 'violently-as0p',
          'after-sb-2pri': 'call-pri-lost-after-sb',
        },
      },
    },
  ],
  bitmap: [
    {
      name: 'bitmap',
      packet: {
        kind: 'bitmap',
        runs: [
          { first: 5, count: 1 },
          { first: 6, count: 2 },
          { first: 308, count: 128 },
        ],
        last: true,
      },
    },
  ],
  syncStart: [
    {
      name: 'syncStart',
      packet: { kind: 'syncStart', current: 0x0102030405060708n, history: [0x1111111111111111n] },
    },
  ],
  syncReady: [{ name: 'syncReady', packet: { kind: 'syncReady' } }],
  syncFinished: [{ name: 'syncFinished', packet: { kind: 'syncFinished', current: 0xffffffffffffffffn } }],
  refused: [{ name: 'refused', packet: { kind: 'refused', rule: 'split-brain' } }],
  goodbye: [{ name: 'goodbye', packet: { kind: 'goodbye', reason: 'shutdown', outdate: true } }],
  ping: [{ name: 'ping', packet: { kind: 'ping' } }],
  pong: [{ name: 'pong', packet: { kind: 'pong' } }],
  diskState: [{ name: 'diskState', packet: { kind: 'diskState', disk: 'Outdated', role: 'Secondary' } }],
  write: [
    {
      name: 'write',
      packet: { kind: 'write', seq: 7, op: 'write', offset: 4608, length: 5, fua: true, noHole: false },
      payload: '68656c6c6f',
    },
    {
      name: 'write-trim',
      packet: { kind: 'write', seq: 8, op: 'trim', offset: 0, length: 2 ** 40, fua: false, noHole: false },
    },
    {
      name: 'write-zeroes',
      packet: {
        kind: 'write',
        seq: Number.MAX_SAFE_INTEGER,
        op: 'zeroes',
        offset: 2 ** 32,
        length: 4096,
        fua: true,
        noHole: true,
      },
    },
  ],
  received: [{ name: 'received', packet: { kind: 'received', seq: 9 } }],
  written: [{ name: 'written', packet: { kind: 'written', seq: 4294967298 } }],
  writeFailed: [{ name: 'writeFailed', packet: { kind: 'writeFailed', seq: 10 } }],
  flush: [{ name: 'flush', packet: { kind: 'flush', epoch: 11 } }],
  flushed: [{ name: 'flushed', packet: { kind: 'flushed', epoch: 12 } }],
  flushFailed: [{ name: 'flushFailed', packet: { kind: 'flushFailed', epoch: 13 } }],
  read: [{ name: 'read', packet: { kind: 'read', id: 14, offset: 513, length: 32 * 1024 * 1024 } }],
  readData: [{ name: 'readData', packet: { kind: 'readData', id: 15 }, payload: '00ff80' }],
  readFailed: [{ name: 'readFailed', packet: { kind: 'readFailed', id: 16 } }],
  resyncRequest: [
    { name: 'resyncRequest', packet: { kind: 'resyncRequest', id: 17, offset: 8192, length: 65536 } },
  ],
  resyncData: [
    {
      name: 'resyncData',
      packet: { kind: 'resyncData', id: 18, offset: 12288, length: 4, zero: false },
      payload: 'deadbeef',
    },
    {
      name: 'resyncData-zero',
      packet: { kind: 'resyncData', id: 19, offset: 0, length: 1024 * 1024, zero: true },
    },
  ],
  scatteredRequest: [
    {
      name: 'scatteredRequest',
      packet: {
        kind: 'scatteredRequest',
        id: 25,
        runs: [
          { first: 3, count: 1 },
          { first: 5, count: 2 },
        ],
      },
    },
  ],
  scatteredData: [
    {
      name: 'scatteredData',
      packet: {
        kind: 'scatteredData',
        id: 25,
        runs: [
          { first: 3, count: 1 },
          { first: 5, count: 1 },
        ],
        length: 4,
        zero: false,
      },
      payload: 'deadbeef',
    },
    {
      name: 'scatteredData-zero',
      packet: { kind: 'scatteredData', id: 25, runs: [{ first: 6, count: 1 }], length: 4096, zero: true },
    },
  ],
  digestRequest: [
    {
      name: 'digestRequest',
      packet: { kind: 'digestRequest', id: 24, offset: 8192, length: 4097, coarse: false },
      payload: '11'.repeat(32) + '22'.repeat(32),
    },
    {
      name: 'digestRequest-coarse',
      packet: { kind: 'digestRequest', id: 24, offset: 8192, length: 135168, coarse: true },
      payload: '11'.repeat(32) + '22'.repeat(32),
    },
  ],
  resyncSame: [
    {
      name: 'resyncSame',
      packet: {
        kind: 'resyncSame',
        id: 24,
        runs: [
          { first: 2, count: 1 },
          { first: 7, count: 300 },
        ],
      },
    },
  ],
  resyncFailed: [{ name: 'resyncFailed', packet: { kind: 'resyncFailed', id: 20 } }],
  resyncStable: [
    {
      name: 'resyncStable',
      packet: {
        kind: 'resyncStable',
        runs: [
          { first: 1000, count: 16 },
          { first: 3, count: 1 },
        ],
      },
    },
  ],
  resyncPause: [{ name: 'resyncPause', packet: { kind: 'resyncPause', paused: true } }],
  resyncLimit: [
    {
      name: 'resyncLimit',
      packet: { kind: 'resyncLimit', windowBytes: 65536, bytesPerSecond: 1638400, reason: 'minimum' },
    },
    {
      name: 'resyncLimit-idle',
      packet: { kind: 'resyncLimit', windowBytes: 8388608, bytesPerSecond: null, reason: 'idle' },
    },
  ],
  invalidate: [{ name: 'invalidate', packet: { kind: 'invalidate' } }],
  verifyStart: [{ name: 'verifyStart', packet: { kind: 'verifyStart' } }],
  verifyRequest: [
    {
      name: 'verifyRequest',
      packet: { kind: 'verifyRequest', id: 25, offset: 1048576, length: 65536, mark: true, coarse: false },
    },
  ],
  verifyPoint: [{ name: 'verifyPoint', packet: { kind: 'verifyPoint', id: 25 } }],
  verifyDigests: [
    {
      name: 'verifyDigests',
      packet: { kind: 'verifyDigests', id: 25 },
      payload: '5a'.repeat(32),
    },
  ],
  verifyFailed: [{ name: 'verifyFailed', packet: { kind: 'verifyFailed', id: 26 } }],
  verifyFound: [
    {
      name: 'verifyFound',
      packet: {
        kind: 'verifyFound',
        runs: [
          { first: 0, count: 1 },
          { first: 130, count: 2 },
        ],
        last: true,
      },
    },
  ],
  verifyStop: [{ name: 'verifyStop', packet: { kind: 'verifyStop' } }],
  verifyEnd: [{ name: 'verifyEnd', packet: { kind: 'verifyEnd' } }],
  newGeneration: [
    { name: 'newGeneration', packet: { kind: 'newGeneration', current: 0x8000000000000001n, history: [] } },
  ],
  newGenerationDone: [
    { name: 'newGenerationDone', packet: { kind: 'newGenerationDone', current: 0x8000000000000001n } },
  ],
  peerDiskGone: [
    {
      name: 'peerDiskGone',
      packet: {
        kind: 'peerDiskGone',
        current: 2n,
        history: [0x1111111111111111n, 0x2222222222222222n],
      },
    },
  ],
  peerDiskGoneDone: [{ name: 'peerDiskGoneDone', packet: { kind: 'peerDiskGoneDone', current: 2n } }],
  promoteRequest: [{ name: 'promoteRequest', packet: { kind: 'promoteRequest', id: 21 } }],
  promoteReply: [{ name: 'promoteReply', packet: { kind: 'promoteReply', id: 21, granted: true } }],
  handoverRequest: [
    {
      name: 'handoverRequest',
      packet: { kind: 'handoverRequest', id: 22, force: false, dryRun: true },
    },
  ],
  handoverReply: [
    { name: 'handoverReply', packet: { kind: 'handoverReply', id: 22, refusal: null } },
    {
      name: 'handoverReply-refused',
      packet: {
        kind: 'handoverReply',
        id: 23,
        refusal: { code: 'device-in-use', reason: 'ä bb', nextStep: 'ok' },
      },
    },
  ],
  giveUpRequest: [{ name: 'giveUpRequest', packet: { kind: 'giveUpRequest', id: 24 } }],
  giveUpReply: [{ name: 'giveUpReply', packet: { kind: 'giveUpReply', id: 24, granted: true } }],
  giveUpEnded: [{ name: 'giveUpEnded', packet: { kind: 'giveUpEnded' } }],
  grow: [{ name: 'grow', packet: { kind: 'grow', id: 24, sizeBytes: 10 * 1024 ** 3 } }],
  grown: [
    { name: 'grown', packet: { kind: 'grown', id: 24, refusal: null } },
    {
      name: 'grown-refused',
      packet: {
        kind: 'grown',
        id: 25,
        refusal: { code: 'backing-too-small', reason: 'b', nextStep: 'c' },
      },
    },
  ],
};

export const goldenPackets: readonly GoldenPacket[] = Object.values(kinds).flat();

export function goldenPayload(golden: GoldenPacket): Uint8Array | null {
  return golden.payload === undefined ? null : Buffer.from(golden.payload, 'hex');
}

/** The bytes of `NAME.hex`: what follows `#` on a line is a comment. */
export function goldenBytes(name: string): Buffer {
  const text = readFileSync(new URL(`${name}.hex`, import.meta.url), 'utf8');
  return Buffer.from(text.replaceAll(/#.*$/gm, '').replaceAll(/\s/g, ''), 'hex');
}
