/**
 * A backing device in the simulation. Each 512-byte sector holds the stamp of the write that filled it, 0 for zeroes.
 * Writes go to a cache first (`visible`) and reach `stable` with a flush. A killed process leaves the cache as it is, with
 * writes under way done, undone or torn; a power cut keeps, tears or loses each write that was not flushed; a failed
 * flush drops what it should have saved, as kernels do.
 */
import type { DiskOutcome } from '../../replicator/core/event.ts';
import type { BlockRun, Digests, MirrorOp, Payload } from '../../replicator/core/packet.ts';
import { digestBytes } from '../../replicator/core/vocabulary.ts';
import type { Prng } from './prng.ts';
import type { World } from './world.ts';

export const sectorBytes = 512;
const sectorsPerBlock = 8;

export class SimPayload implements Payload {
  readonly sectors: Uint32Array;

  constructor(sectors: Uint32Array) {
    this.sectors = sectors;
  }

  get byteLength(): number {
    return this.sectors.length * sectorBytes;
  }
}

/** The stamps stand for their hashes. */
export class SimDigests implements Digests {
  readonly sectors: Uint32Array;

  constructor(sectors: Uint32Array) {
    this.sectors = sectors;
  }

  get byteLength(): number {
    return (this.sectors.length / sectorsPerBlock) * digestBytes;
  }

  differing(other: Payload): readonly BlockRun[] {
    if (!(other instanceof SimDigests)) throw new Error('compared with something else than hashes');
    const blocks = new Set<number>();
    this.sectors.forEach((stamp, sector) => {
      if (stamp !== other.sectors[sector]) blocks.add(Math.floor(sector / sectorsPerBlock));
    });
    return Array.from(blocks, (first) => ({ first, count: 1 }));
  }
}

interface DiskWrite {
  readonly first: number;
  readonly count: number;
  /** Null: zeroes. */
  readonly sectors: Uint32Array | null;
}

export interface DiskOptions {
  /** Operations take up to this long. */
  readonly latencyMs: number;
}

export class SimDisk {
  visible: Uint32Array;
  stable: Uint32Array;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #options: DiskOptions;
  readonly #name: string;
  /** Completed, in order, and not known to be stable. */
  #unflushed: DiskWrite[] = [];
  readonly #inFlight = new Set<DiskWrite>();
  /** Answers meant for an earlier process are not given. */
  #process = 0;
  #failing = false;

  constructor(world: World, name: string, sizeBytes: number, options: DiskOptions) {
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#name = name;
    this.#options = options;
    this.visible = new Uint32Array(sizeBytes / sectorBytes);
    this.stable = new Uint32Array(sizeBytes / sectorBytes);
  }

  get sectorCount(): number {
    return this.visible.length;
  }

  /** What lies beyond the device, of `fromBytes`, reads as zeroes then; false when the disk is broken. */
  grow(fromBytes: number, toBytes: number, done: (isGrown: boolean) => void): void {
    this.#later(() => {
      if (this.#failing) return done(false);
      for (const which of ['visible', 'stable'] as const) {
        const sectors = new Uint32Array(Math.max(toBytes / sectorBytes, this.sectorCount));
        sectors.set(this[which]);
        this[which] = sectors.fill(0, fromBytes / sectorBytes, toBytes / sectorBytes);
      }
      done(true);
    });
  }

  get isFailing(): boolean {
    return this.#failing;
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
      const isEmpty = other.count === 0 || write.count === 0;
      if (!isEmpty && other.first < write.first + write.count && write.first < other.first + other.count) {
        this.#world.violation(`${this.#name}: a local write overlaps another one under way`);
      }
    }
    this.#inFlight.add(write);
    this.#later(() => {
      this.#inFlight.delete(write);
      if (this.#failing) this.#apply(this.#torn(write));
      else this.#apply(write);
      done(this.#failing ? 'failed' : 'ok');
    });
  }

  read(offset: number, length: number, done: (sectors: Uint32Array | null) => void): void {
    const { first, count } = this.#sectors(offset, length);
    this.#later(() => done(this.#failing ? null : this.visible.slice(first, first + count)));
  }

  flush(done: (outcome: DiskOutcome) => void): void {
    const covered = this.#unflushed.length === 0 ? null : this.#unflushed.at(-1);
    this.#later(() => {
      // Another flush may have covered these meanwhile; then the last of them is not in the list any more.
      const count = covered === null || covered === undefined ? 0 : this.#unflushed.indexOf(covered) + 1;
      const writes = this.#unflushed.splice(0, count);
      if (this.#failing) this.#drop(writes);
      else for (const write of writes) copy(write, this.stable);
      done(this.#failing ? 'failed' : 'ok');
    });
  }

  fail(): void {
    this.#failing = true;
  }

  repair(): void {
    this.#failing = false;
  }

  kill(): void {
    this.#process++;
    for (const write of this.#inFlight) {
      const fate = this.#prng.int(3);
      if (fate === 0) this.#apply(write);
      if (fate === 1) this.#apply(this.#torn(write));
    }
    this.#inFlight.clear();
  }

  powerCut(): void {
    this.kill();
    for (const write of this.#unflushed) {
      const fate = this.#prng.int(3);
      if (fate === 0) copy(write, this.stable);
      if (fate === 1) copy(this.#torn(write), this.stable);
    }
    this.#unflushed = [];
    this.visible.set(this.stable);
  }

  #later(run: () => void): void {
    const process = this.#process;
    const delayMs = this.#prng.chance(0.3) ? 0 : (this.#prng.int(1000) / 1000) * this.#options.latencyMs;
    this.#world.after(delayMs, () => {
      if (process === this.#process) run();
    });
  }

  #apply(write: DiskWrite): void {
    copy(write, this.visible);
    this.#unflushed.push(write);
  }

  /** The kernel has given up on these: they are never written, and what is read is what was there before. */
  #drop(writes: readonly DiskWrite[]): void {
    for (const { first, count } of writes)
      this.visible.set(this.stable.subarray(first, first + count), first);
    for (const write of this.#unflushed) copy(write, this.visible);
  }

  /** A part of the write, from its beginning or its end. */
  #torn(write: DiskWrite): DiskWrite {
    const count = this.#prng.int(write.count + 1);
    const skip = this.#prng.chance(0.5) ? 0 : write.count - count;
    const sectors = write.sectors?.subarray(skip, skip + count) ?? null;
    return { first: write.first + skip, count, sectors };
  }

  #parse(op: MirrorOp, offset: number, length: number, payload: Payload | null): DiskWrite {
    const { first, count } = this.#sectors(offset, length);
    if (op === 'write') {
      if (!(payload instanceof SimPayload) || payload.sectors.length !== count) {
        throw new Error(`${this.#name}: write of ${length} bytes without its payload`);
      }
      return { first, count, sectors: payload.sectors };
    }
    if (payload !== null) throw new Error(`${this.#name}: ${op} with a payload`);
    if (op === 'zeroes') return { first, count, sectors: null };
    // Holes can be punched for whole blocks only.
    const from = Math.ceil(first / sectorsPerBlock) * sectorsPerBlock;
    const to = Math.floor((first + count) / sectorsPerBlock) * sectorsPerBlock;
    return { first: Math.min(from, first + count), count: Math.max(0, to - from), sectors: null };
  }

  #sectors(offset: number, length: number): { first: number; count: number } {
    const first = offset / sectorBytes;
    const count = length / sectorBytes;
    const isValid = Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count > 0;
    if (!isValid || first + count > this.sectorCount) {
      throw new Error(`${this.#name}: range ${offset}+${length} of ${this.sectorCount * sectorBytes} bytes`);
    }
    return { first, count };
  }
}

function copy(write: DiskWrite, into: Uint32Array): void {
  if (write.sectors === null) into.fill(0, write.first, write.first + write.count);
  else into.set(write.sectors, write.first);
}
