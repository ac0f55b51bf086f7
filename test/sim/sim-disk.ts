/**
 * A backing device in the simulation. Each 512-byte sector holds the stamp of the write that filled it, 0 for zeroes.
 * Writes go to a cache first (`visible`) and reach `stable` with a flush. A killed process leaves the cache as it is, with
 * writes under way done, undone or torn; a power cut keeps, tears or loses each write that was not flushed; a failed
 * flush drops what it should have saved, as kernels do. What else goes wrong is asked for: disk-faults.ts.
 */
import { blocksOfDigests } from '../../replicator/core/blocks.ts';
import type { DiskOutcome } from '../../replicator/core/event.ts';
import type { BlockRun, Digests, MirrorOp, Payload } from '../../replicator/core/packet.ts';
import { coarseBlocks, digestBytes } from '../../replicator/core/vocabulary.ts';
import { DiskFaults, sectorsPerBlock } from './disk-faults.ts';
import type { Prng } from './prng.ts';
import type { World } from './world.ts';

export const sectorBytes = 512;

/** What a run of sectors holds: each its own stamp, or all the same one. */
export class SimPayload implements Payload {
  readonly count: number;
  /** Of all sectors; without meaning when they are listed. */
  readonly value: number;
  /** Null: all hold `value`. */
  readonly listed: Uint32Array | null;

  constructor(listed: Uint32Array | null, count = listed?.length ?? 0, value = 0) {
    this.listed = listed;
    this.count = count;
    this.value = value;
  }

  /** `count` sectors of one write. */
  static of(count: number, value: number): SimPayload {
    return new SimPayload(null, count, value);
  }

  get byteLength(): number {
    return this.count * sectorBytes;
  }

  get sectors(): Uint32Array {
    return this.listed ?? new Uint32Array(this.count).fill(this.value);
  }
}

/** The hash of a block is the stamps of its sectors, which are as many bytes; a coarse one is mixed from all of them. */
export class SimDigests implements Digests {
  readonly words: Uint32Array;
  readonly #blockCount: number;
  readonly #coarse: boolean;

  constructor(words: Uint32Array, blockCount: number, coarse: boolean) {
    this.words = words;
    this.#blockCount = blockCount;
    this.#coarse = coarse;
  }

  static of(sectors: Uint32Array, coarse: boolean): SimDigests {
    const blockCount = sectors.length / sectorsPerBlock;
    return new SimDigests(coarse ? mixed(sectors) : sectors, blockCount, coarse);
  }

  get byteLength(): number {
    return (this.words.length / sectorsPerBlock) * digestBytes;
  }

  differing(other: Payload): readonly BlockRun[] {
    if (!(other instanceof SimDigests)) throw new Error('compared with something else than hashes');
    const [ours, theirs] = [this.words, other.words];
    // As the real ones: one run for all hashes next to each other.
    const runs: { readonly first: number; count: number }[] = [];
    for (let word = 0; word < ours.length; word++) {
      if (ours[word] === theirs[word]) continue;
      const index = Math.floor(word / sectorsPerBlock);
      const last = runs.at(-1);
      if (last !== undefined && last.first + last.count === index) last.count++;
      else runs.push({ first: index, count: 1 });
      word = (index + 1) * sectorsPerBlock - 1;
    }
    return blocksOfDigests(runs, this.#blockCount, this.#coarse);
  }
}

/** A word of the hash for each place in a block, of the stamps that all the blocks have there. */
function mixed(sectors: Uint32Array): Uint32Array {
  const sectorsPerHash = coarseBlocks * sectorsPerBlock;
  const words = new Uint32Array(Math.ceil(sectors.length / sectorsPerHash) * sectorsPerBlock);
  for (let sector = 0; sector < sectors.length; sector++) {
    const at = Math.floor(sector / sectorsPerHash) * sectorsPerBlock + (sector % sectorsPerBlock);
    const mix = Math.imul((words[at] ?? 0) ^ (sectors[sector] ?? 0), 0x9e3779b1);
    words[at] = mix ^ (mix >>> 15);
  }
  return words;
}

interface DiskWrite {
  readonly first: number;
  readonly count: number;
  /** Null: all hold `value`. */
  readonly sectors: Uint32Array | null;
  readonly value: number;
}

interface UnflushedWrite extends DiskWrite {
  /** Ascending in order of completion. */
  readonly order: number;
}

export interface DiskOptions {
  /** Operations take up to this long. */
  readonly latencyMs: number;
  /** Beyond the device, for it to grow. */
  readonly roomBytes?: number;
}

export interface DiskListener {
  /** `visible` or `stable` has changed there, or may have. */
  onChanged(first: number, count: number): void;
}

export class SimDisk {
  /** Of the device as it was at first; faults keep to these. */
  readonly sectorCount: number;
  /** With the room that it may grow into. */
  readonly visible: Uint32Array;
  /** So far it has grown. */
  readySectors: number;
  readonly stable: Uint32Array;
  readonly faults: DiskFaults;
  listener: DiskListener | null = null;
  /** Counts changes of `visible`. */
  version = 0;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #options: DiskOptions;
  readonly #name: string;
  /** Completed, in order, and not known to be stable. */
  #unflushed: UnflushedWrite[] = [];
  #order = 0;
  readonly #inFlight: DiskWrite[] = [];
  /** Answers meant for an earlier process are not given. */
  #process = 0;
  /** Operations of the present process that have not been answered. */
  #underWay = 0;
  #failing = false;

  constructor(world: World, name: string, sizeBytes: number, options: DiskOptions) {
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#name = name;
    this.#options = options;
    this.sectorCount = sizeBytes / sectorBytes;
    this.visible = new Uint32Array(this.sectorCount + (options.roomBytes ?? 0) / sectorBytes);
    this.stable = this.visible.slice();
    this.readySectors = this.sectorCount;
    this.faults = new DiskFaults(world, this.sectorCount);
  }

  get isFailing(): boolean {
    return this.#failing;
  }

  /** Nothing is under way. */
  get isIdle(): boolean {
    return this.#underWay === 0;
  }

  write(
    op: MirrorOp,
    offset: number,
    length: number,
    payload: Payload | null,
    done: (outcome: DiskOutcome) => void,
  ): void {
    const write = this.#parse(op, offset, length, payload);
    for (const other of this.#inFlight) {
      const isApart = other.first >= write.first + write.count || write.first >= other.first + other.count;
      if (!isApart && other.count > 0 && write.count > 0)
        this.#world.violation('contract', `${this.#name}: a local write overlaps another one under way`);
    }
    this.#inFlight.push(write);
    this.#later(() => {
      const last = this.#inFlight.pop();
      if (last !== undefined && last !== write) this.#inFlight[this.#inFlight.indexOf(write)] = last;
      const failed = this.#failing || this.faults.takeFailure('write');
      if (failed) for (const piece of this.#torn(write)) this.#apply(piece);
      else this.#applyWhole(write);
      done(failed ? 'failed' : 'ok');
    });
  }

  read(offset: number, length: number, done: (sectors: Uint32Array | null) => void): void {
    const first = this.#sector(offset, length);
    const count = length / sectorBytes;
    this.#later(() => {
      const failed =
        this.#failing || this.faults.takeFailure('read') || this.faults.isUnreadable(first, count);
      done(failed ? null : imageOf(this.visible, first, count));
    });
  }

  /**
   * The first piece of the range, of data or of a hole, in blocks: the data, or how many sectors the hole has. Neither when
   * the range cannot be read.
   */
  readPiece(
    offset: number,
    length: number,
    done: (sectors: Uint32Array | null, holeSectors: number) => void,
  ): void {
    const first = this.#sector(offset, length);
    const count = length / sectorBytes;
    this.#later(() => {
      if (this.#failing || this.faults.takeFailure('read') || this.faults.isUnreadable(first, count))
        return done(null, 0);
      const { visible } = this;
      const [from, end] = [first, first + count];
      const isHole = isZero(visible, from, Math.min(from + sectorsPerBlock, end));
      let to = from + sectorsPerBlock;
      while (to < end && isZero(visible, to, Math.min(to + sectorsPerBlock, end)) === isHole)
        to += sectorsPerBlock;
      to = Math.min(to, end);
      if (isHole) done(null, to - from);
      else done(visible.slice(from, to), 0);
    });
  }

  flush(done: (outcome: DiskOutcome) => void): void {
    const covered = this.#order;
    this.#later(() => {
      // Another flush may have covered some of these meanwhile.
      const unflushed = this.#unflushed;
      let count = 0;
      while (count < unflushed.length && (unflushed[count]?.order ?? Infinity) <= covered) count++;
      const writes = count === 0 ? [] : unflushed.splice(0, count);
      const failed = this.#failing || this.faults.takeFailure('flush');
      if (failed) this.#drop(writes);
      else for (const write of writes) this.#settle(write);
      for (const write of writes) this.#changed(write);
      done(failed ? 'failed' : 'ok');
    });
  }

  /** What lies between the device, of `fromBytes`, and its new end reads as zeroes then; false: it has failed. */
  grow(fromBytes: number, toBytes: number, done: (isGrown: boolean) => void): void {
    this.#later(() => {
      const [first, end] = [fromBytes / sectorBytes, toBytes / sectorBytes];
      if (this.#failing || end > this.visible.length) return done(false);
      this.readySectors = Math.max(this.readySectors, end);
      this.visible.fill(0, first, end);
      this.stable.fill(0, first, end);
      this.#changed({ first, count: end - first, sectors: null, value: 0 });
      done(true);
    });
  }

  fail(): void {
    this.#failing = true;
  }

  /** Nothing is wrong with it any more, but for what is lost. */
  repair(): void {
    this.#failing = false;
    this.faults.repair();
  }

  kill(): void {
    this.#process++;
    this.#underWay = 0;
    for (const write of this.#inFlight) {
      const fate = this.#prng.int(3);
      if (fate === 0) this.#applyWhole(write);
      if (fate === 1) for (const piece of this.#torn(write)) this.#apply(piece);
    }
    this.#inFlight.length = 0;
  }

  powerCut(): void {
    this.kill();
    const writes = this.#unflushed;
    this.#unflushed = [];
    for (const write of writes) {
      const fate = this.#prng.int(3);
      if (fate === 0) copy(write, this.stable);
      if (fate === 1) for (const piece of this.#torn(write)) copy(piece, this.stable);
    }
    for (const write of writes) this.#revert(write);
    for (const write of writes) this.#changed(write);
  }

  /** Another disk, with this on it. */
  replace(sectors: Uint32Array): void {
    this.powerCut();
    this.repair();
    this.readySectors = this.visible.length;
    for (const image of [this.visible, this.stable]) {
      image.fill(0);
      image.set(sectors);
    }
    this.version++;
    this.listener?.onChanged(0, this.visible.length);
  }

  #later(run: () => void): void {
    this.#underWay++;
    const process = this.#process;
    const usualMs = this.#prng.chance(0.3) ? 0 : (this.#prng.int(1000) / 1000) * this.#options.latencyMs;
    this.#world.after(this.faults.delay(usualMs), () => {
      if (process !== this.#process) return;
      this.#underWay--;
      run();
    });
  }

  #applyWhole(write: DiskWrite): void {
    const to = this.faults.misdirected(write.first, write.count, this.#order + 1);
    if (to === null) {
      this.#apply(write);
      this.faults.onWritten(write.first, write.count);
    } else {
      this.#apply({ first: to, count: write.count, sectors: write.sectors, value: write.value });
    }
  }

  #apply(write: DiskWrite): void {
    const { first, count, sectors, value } = write;
    copy(write, this.visible);
    this.#unflushed.push({ first, count, sectors, value, order: ++this.#order });
    this.#changed(write);
  }

  #settle(write: UnflushedWrite): void {
    copy(write, this.stable);
    this.faults.onStable(write.first, write.count, write.order);
  }

  #changed(write: DiskWrite): void {
    this.version++;
    this.listener?.onChanged(write.first, write.count);
  }

  /** The kernel has given up on these: they are never written, and what is read is what was there before. */
  #drop(writes: readonly DiskWrite[]): void {
    for (const write of writes) this.#revert(write);
    for (const write of this.#unflushed) copy(write, this.visible);
  }

  #revert(write: DiskWrite): void {
    const end = write.first + write.count;
    this.visible.set(this.stable.subarray(write.first, end), write.first);
  }

  /** What is left of a write cut short: its beginning, its end, or pieces anywhere, each of any number of sectors. */
  #torn(write: DiskWrite): readonly DiskWrite[] {
    const { count } = write;
    if (count === 0) return [];
    const shape = this.#prng.int(3);
    const size = this.#prng.int(count + 1);
    if (shape === 0) return [part(write, 0, size)];
    if (shape === 1) return [part(write, count - size, size)];
    const pieces: DiskWrite[] = [];
    let isKept = this.#prng.chance(0.5);
    for (let at = 0; at < count; isKept = !isKept) {
      const length = Math.min(count - at, this.#prng.between(1, Math.max(1, count >> 2)));
      if (isKept) pieces.push(part(write, at, length));
      at += length;
    }
    return pieces;
  }

  #parse(op: MirrorOp, offset: number, length: number, payload: Payload | null): DiskWrite {
    const first = this.#sector(offset, length);
    const count = length / sectorBytes;
    if (op === 'write') {
      if (!(payload instanceof SimPayload) || payload.count !== count) {
        throw new Error(`${this.#name}: write of ${length} bytes without its payload`);
      }
      return { first, count, sectors: payload.listed, value: payload.value };
    }
    if (payload !== null) throw new Error(`${this.#name}: ${op} with a payload`);
    if (op === 'zeroes') return { first, count, sectors: null, value: 0 };
    // Holes can be punched for whole blocks only.
    const from = Math.ceil(first / sectorsPerBlock) * sectorsPerBlock;
    const to = Math.floor((first + count) / sectorsPerBlock) * sectorsPerBlock;
    return {
      first: Math.min(from, first + count),
      count: Math.max(0, to - from),
      sectors: null,
      value: 0,
    };
  }

  #sector(offset: number, length: number): number {
    const first = offset / sectorBytes;
    const count = length / sectorBytes;
    const isValid = Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count > 0;
    if (!isValid || first + count > this.visible.length) {
      throw new Error(
        `${this.#name}: range ${offset}+${length} of ${this.visible.length * sectorBytes} bytes`,
      );
    }
    return first;
  }
}

function part(write: DiskWrite, skip: number, count: number): DiskWrite {
  const sectors = write.sectors?.subarray(skip, skip + count) ?? null;
  return { first: write.first + skip, count, sectors, value: write.value };
}

/** Nobody writes to what was read, so that all that is empty can be this. */
let zeroes = new Uint32Array(4096);

/** Most of a device is empty: that is not worth a copy. */
function imageOf(sectors: Uint32Array, first: number, count: number): Uint32Array {
  if (!isZero(sectors, first, first + count)) return sectors.slice(first, first + count);
  if (zeroes.length < count) zeroes = new Uint32Array(2 * count);
  return zeroes.subarray(0, count);
}

export function isZero(sectors: Uint32Array, first: number, end: number): boolean {
  for (let sector = first; sector < end; sector++) if (sectors[sector] !== 0) return false;
  return true;
}

/** Up to this many sectors, a loop is faster than the call that does the same. */
const few = 64;

function copy(write: DiskWrite, into: Uint32Array): void {
  const { first, count, sectors, value } = write;
  if (count > few) {
    if (sectors === null) into.fill(value, first, first + count);
    else into.set(sectors, first);
  } else if (sectors === null) {
    for (let i = 0; i < count; i++) into[first + i] = value;
  } else {
    for (let i = 0; i < count; i++) into[first + i] = sectors[i] ?? 0;
  }
}
