/**
 * The parts of a write's way that are computation and nothing else, each as a multiple of a reference loop that runs in
 * turn with it: such a ratio holds on other machines, nanoseconds do not. One that is far above what is on record has
 * become slower.
 */
import { TransmissionIntake } from '../../nbd/transmission-intake.ts';
import { ByteQueue } from '../../nbd/byte-queue.ts';
import type { BlockDevice } from '../../nbd/block-device.ts';
import { NBD_CMD_WRITE, NBD_REQUEST_MAGIC } from '../../nbd/constants.ts';
import { ReplyBuffer } from '../../nbd/reply-buffer.ts';
import { BlockBitmap } from '../../replicator/core/bitmap.ts';
import { PacketDecoder, PacketEncoder } from '../../replicator/wire/codec.ts';
import { crc32c } from '../../replicator/wire/crc32c.ts';
import { table } from './tables.ts';

interface Part {
  readonly name: string;
  /** Does it `count` times. */
  readonly pass: (count: number) => void;
  /** As a multiple of the reference loop, when it was last looked at. */
  readonly recorded: number;
}

export interface MicroResult {
  readonly name: string;
  readonly nanoseconds: number;
  readonly ratio: number;
  readonly recorded: number;
  readonly isSlower: boolean;
}

const block = Buffer.alloc(4096, 0x5a);
const batch = 64;
/** Marked and looked for all over a device of 16 GiB. */
const bitmapBlocks = 4 * 1024 * 1024;

export function runMicro(): MicroResult[] {
  return parts().map(measurePart);
}

export function microTable(results: readonly MicroResult[]): string {
  return table([
    ['', 'ns', 'of the reference', 'on record', ''],
    ...results.map(({ name, nanoseconds, ratio, recorded, isSlower }) => [
      name,
      nanoseconds.toFixed(0),
      ratio.toFixed(3),
      recorded.toFixed(3),
      isSlower ? 'SLOWER' : '',
    ]),
  ]);
}

/** Of all passes the quickest counts, of the reference too: it is the one that no other work has held up. */
function measurePart({ name, pass, recorded }: Part): MicroResult {
  let own = Infinity;
  let reference = Infinity;
  for (let round = 0; round < warmUpRounds + rounds; round++) {
    const times = [time(referenceLoop, passCount), time(pass, passCount)] as const;
    if (round < warmUpRounds) continue;
    reference = Math.min(reference, times[0]);
    own = Math.min(own, times[1]);
  }
  const ratio = own / reference;
  return {
    name,
    nanoseconds: (own / passCount) * 1e6,
    ratio,
    recorded,
    isSlower: ratio > slowerFrom * recorded,
  };
}

/** Beyond what another machine or noise may do. */
const slowerFrom = 1.6;
const warmUpRounds = 10;
const rounds = 41;
const passCount = 32 * batch;

/** Milliseconds. */
function time(pass: (count: number) => void, count: number): number {
  const before = performance.now();
  pass(count);
  return performance.now() - before;
}

/** A chain of dependent integer operations; no memory, no calls, so that it costs the same whatever was compiled before. */
function referenceLoop(count: number): void {
  let state = 0x2545f491;
  for (let at = 0; at < count * 1024; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
  }
  keep(state);
}

function parts(): Part[] {
  return [
    { name: 'crc32c of 4 KiB', pass: checksum, recorded: 0.46 },
    { name: 'encode a 4 KiB write packet', pass: encode, recorded: 0.64 },
    { name: 'decode a 4 KiB write packet', pass: decoding(), recorded: 0.67 },
    { name: 'encode a written packet', pass: encodeWritten, recorded: 0.077 },
    { name: 'bitmap: mark a block', pass: mark, recorded: 0.074 },
    { name: 'bitmap: find and clear a run', pass: findRuns, recorded: 0.39 },
    { name: 'NBD: take in a 4 KiB write, reply', pass: takingIn(), recorded: 0.2 },
  ];
}

function checksum(count: number): void {
  let sum = 0;
  for (let at = 0; at < count; at++) sum ^= crc32c(block);
  keep(sum);
}

function encode(count: number): void {
  const encoder = new PacketEncoder();
  for (let seq = 1; seq <= count; seq++) {
    encodeWrite(encoder, seq);
    if (seq % batch === 0) keep(encoder.take().length);
  }
}

function encodeWritten(count: number): void {
  const encoder = new PacketEncoder();
  for (let seq = 1; seq <= count; seq++) {
    encoder.encode({ kind: 'written', seq }, null);
    if (seq % batch === 0) keep(encoder.take().length);
  }
}

function encodeWrite(encoder: PacketEncoder, seq: number): void {
  const place = { offset: (seq % 1024) * block.length, length: block.length };
  encoder.encode({ kind: 'write', seq, op: 'write', ...place, fua: false, noHole: false }, block);
}

/** In chunks as a socket hands them out. */
function decoding(): (count: number) => void {
  const encoder = new PacketEncoder();
  for (let seq = 1; seq <= batch; seq++) encodeWrite(encoder, seq);
  const chunks = inChunks(Buffer.concat(encoder.take()));
  return (count) => {
    for (let done = 0; done < count; done += batch) {
      let packets = 0;
      const decoder = new PacketDecoder(() => packets++);
      for (const chunk of chunks) {
        const problem = decoder.feed(chunk);
        if (problem) throw problem;
      }
      if (packets !== batch) throw new Error(`decoded ${packets} packets of ${batch}`);
    }
  };
}

function mark(count: number): void {
  const bitmap = new BlockBitmap(bitmapBlocks);
  for (let at = 0; at < count; at++) bitmap.setRange(scattered(at), 1);
  keep(bitmap.countSet);
}

/** Each is marked, found from the start of its neighbourhood, and cleared, as a resync does. */
function findRuns(count: number): void {
  const bitmap = new BlockBitmap(bitmapBlocks);
  for (let at = 0; at < count; at++) {
    const first = scattered(at);
    bitmap.setRange(first, 1);
    const run = bitmap.nextRun(first - (first % 1024), 256);
    if (run === null) throw new Error('a marked block was not found');
    bitmap.clearRange(run.first, run.count);
  }
}

function scattered(at: number): number {
  return (Math.imul(at, 0x9e3779b1) >>> 0) % bitmapBlocks;
}

function takingIn(): (count: number) => void {
  const chunks = inChunks(Buffer.concat(Array.from({ length: batch }, (_, at) => writeRequest(at))));
  return (count) => {
    const replies = new ReplyBuffer();
    const queue = new ByteQueue();
    let completed = 0;
    const intake = new TransmissionIntake(
      {
        export: { name: 'bench', description: '', device: instantDevice, readOnly: false },
        mode: 'simple',
        allocation: false,
      },
      replies,
      { mayAccept: () => true, completed: () => completed++ },
    );
    for (let done = 0; done < count; done += batch) {
      for (const chunk of chunks) {
        queue.push(chunk);
        intake.consume(queue);
      }
      keep(replies.drain().length);
    }
    if (completed !== count) throw new Error(`${completed} of ${count} requests completed`);
  };
}

/** NBD protocol document, section "Request message". */
function writeRequest(at: number): Buffer {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(NBD_REQUEST_MAGIC, 0);
  header.writeUInt16BE(NBD_CMD_WRITE, 6);
  header.writeBigUInt64BE(BigInt(at), 8);
  header.writeBigUInt64BE(BigInt(at * block.length), 16);
  header.writeUInt32BE(block.length, 24);
  return Buffer.concat([header, block]);
}

const notAsked = (): never => {
  throw new Error('only writes are measured');
};
const instantDevice: BlockDevice = {
  sizeBytes: bitmapBlocks * block.length,
  write: (_offset, _data, _options, done) => done(null),
  read: notAsked,
  flush: notAsked,
  trim: notAsked,
  writeZeroes: notAsked,
  cache: notAsked,
  blockStatus: notAsked,
};

function inChunks(bytes: Buffer): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 65_536) chunks.push(bytes.subarray(at, at + 65_536));
  return chunks;
}

/** What is computed has to be wanted, or it is not computed. */
const kept = new Int32Array(1);
function keep(value: number): void {
  kept[0] = value;
}
