/**
 * What the client may expect to read. Every write has a stamp and an interval from its issue to its end; the end of one
 * that was never answered is when the client gave it up. A sector may hold what a write put there unless a later
 * acknowledged one, issued after that write's end, has replaced it. Losses that the design does not promise to survive
 * (both machines without power, an operator's force) take the promise back from writes, not the possibility.
 *
 * Tables with one number for each sector say at once that a value is right; only when they do not, all writes are looked
 * through for what the rule above says exactly.
 */
import { sectorsPerBlock } from './disk-faults.ts';

export type WriteOp = 'write' | 'trim' | 'zeroes';

export interface WriteRecord {
  /** Also what its sectors hold; 0 for zeroes and trims. */
  readonly value: number;
  readonly stamp: number;
  readonly first: number;
  readonly count: number;
  readonly issued: number;
  /** `underWay` until then. */
  ended: number;
  /** Acknowledged, and it may not be lost. Never for a trim, which promises nothing. */
  firm: boolean;
  /** Acknowledged as being on stable storage. */
  durable: boolean;
  /** Under way when caches were lost: it may have been in one of them, though the answer still comes. */
  atRisk: boolean;
}

/** Later than any moment. */
const underWay = 0x3fff_ffff;
/** Sectors are known to have been written or not in pieces of this size. */
export const pieceSectors = 128;
/** What a request of this many sectors or more touches, unless it is a write, counts as never written. */
const wideSectors = 16_384;

export class Expectations {
  /** Counts events; simulated time may stand still between two of them. */
  #clock = 0;
  /** By stamp, less one. */
  readonly #records: WriteRecord[] = [];
  /** Acknowledged and not known to be on stable storage. */
  readonly #unflushed = new Set<WriteRecord>();
  readonly #underWay = new Set<WriteRecord>();
  /** Of each sector: when the latest of its firm writes was issued, 0 if there is none. */
  readonly #firm: Uint32Array;
  /** The same of those that are durable. */
  readonly #durable: Uint32Array;
  /** Of each sector: when the latest zeroes or trim that is over ended, 0 if there was none. */
  readonly #zeroed: Uint32Array;
  readonly #touched: Uint8Array;
  /** Blocks of which nothing is expected, by when that began: until a write of a later time covers them that is on stable storage. */
  readonly #spoiled = new Map<number, number>();
  /** All that ever were: an older copy may still hold what was wrong. */
  readonly #everSpoiled = new Set<number>();

  constructor(sectorCount: number) {
    this.#firm = new Uint32Array(sectorCount);
    this.#durable = new Uint32Array(sectorCount);
    this.#zeroed = new Uint32Array(sectorCount);
    this.#touched = new Uint8Array(Math.ceil(sectorCount / pieceSectors));
  }

  get now(): number {
    return this.#clock;
  }

  /** A read begins; answers the moment that its result is judged by. */
  readIssued(): number {
    return ++this.#clock;
  }

  issue(op: WriteOp, first: number, count: number): WriteRecord {
    const stamp = this.#records.length + 1;
    const record: WriteRecord = {
      value: op === 'write' ? stamp : 0,
      stamp,
      first,
      count,
      issued: ++this.#clock,
      ended: underWay,
      firm: false,
      durable: false,
      atRisk: false,
    };
    this.#records.push(record);
    this.#underWay.add(record);
    if (op === 'write' || count < wideSectors) {
      const end = Math.ceil((first + count) / pieceSectors);
      for (let piece = Math.floor(first / pieceSectors); piece < end; piece++) this.#touched[piece] = 1;
    }
    return record;
  }

  acknowledged(record: WriteRecord, op: WriteOp, fua: boolean): void {
    this.#end(record);
    if (op === 'trim' || (record.atRisk && !fua)) return;
    record.firm = true;
    raise(this.#firm, record);
    if (fua) this.#settle(record);
    else this.#unflushed.add(record);
  }

  givenUp(record: WriteRecord): void {
    this.#end(record);
  }

  #end(record: WriteRecord): void {
    record.ended = ++this.#clock;
    this.#underWay.delete(record);
    if (record.value === 0) this.#zeroed.fill(record.ended, record.first, record.first + record.count);
  }

  /** The writes that a flush issued now will make durable. */
  flushIssued(): readonly WriteRecord[] {
    return [...this.#unflushed];
  }

  flushed(records: readonly WriteRecord[]): void {
    this.#clock++;
    for (const record of records) {
      if (!this.#unflushed.delete(record)) continue;
      this.#settle(record);
    }
  }

  #settle(record: WriteRecord): void {
    record.durable = true;
    raise(this.#durable, record);
    if (this.#spoiled.size > 0) this.#mend(record);
  }

  /** A disk has silently gone wrong there: until it is written again, the block may hold anything. */
  spoil(block: number): void {
    this.#spoiled.set(block, ++this.#clock);
    this.#everSpoiled.add(block);
  }

  #mend(record: WriteRecord): void {
    for (const [block, since] of this.#spoiled) {
      const first = block * sectorsPerBlock;
      const isWhole = covers(record, first) && covers(record, first + sectorsPerBlock - 1);
      if (isWhole && record.issued > since) this.#spoiled.delete(block);
    }
  }

  #isSpoiled(sector: number): boolean {
    return this.#spoiled.size > 0 && this.#spoiled.has(Math.floor(sector / sectorsPerBlock));
  }

  /** Every copy of what was not flushed may be gone. */
  loseUnflushed(): void {
    this.#clock++;
    for (const record of this.#underWay) record.atRisk = true;
    for (const record of this.#unflushed) {
      record.firm = false;
      const end = record.first + record.count;
      this.#firm.set(this.#durable.subarray(record.first, end), record.first);
    }
    this.#unflushed.clear();
  }

  /** An operator has given up what this copy does not have. */
  loseEverything(): void {
    this.loseUnflushed();
    for (const record of this.#records) record.firm = false;
    for (const block of this.#everSpoiled) this.spoil(block);
    this.#firm.fill(0);
    this.#durable.fill(0);
  }

  /** The write that put this value where it is. */
  recordOf(value: number): WriteRecord | undefined {
    return this.#records[value - 1];
  }

  /** Whether a read that was issued at `since` may find `value` in the sector. */
  isLegitimate(sector: number, value: number, since: number): boolean {
    return this.firstIllegitimate(Uint32Array.of(value), 0, sector, 1, since) === null;
  }

  /** `sectors[at]` and on are what was found from sector `first` on: the first sector that cannot hold that, or null. */
  firstIllegitimate(
    sectors: Uint32Array,
    at: number,
    first: number,
    count: number,
    since: number,
  ): number | null {
    const [firm, zeroed, records] = [this.#firm, this.#zeroed, this.#records];
    let value = 0;
    let record: WriteRecord | undefined;
    for (let sector = first, end = first + count; sector < end; sector++) {
      const found = sectors[at + sector - first] ?? 0;
      const replaced = firm[sector] ?? 0;
      if (found === 0) {
        if (replaced === 0 || (zeroed[sector] ?? 0) > replaced) continue;
      } else {
        if (found !== value) {
          value = found;
          record = records[found - 1];
        }
        if (record !== undefined && record.ended > replaced && covers(record, sector)) continue;
      }
      // Right after all, perhaps: a write may have been acknowledged while the read was under way.
      if (!this.#isPossible(sector, found, since)) return sector;
    }
    return null;
  }

  /** In what was ever written on its own, the first sector that cannot hold now what it holds. */
  firstMissing(sectors: Uint32Array): number | null {
    const since = this.#clock;
    for (let piece = 0; piece < this.#touched.length; piece++) {
      if (this.#touched[piece] === 0) continue;
      const first = piece * pieceSectors;
      const count = Math.min(pieceSectors, this.#firm.length - first);
      const missing = this.firstIllegitimate(sectors, first, first, count, since);
      if (missing !== null) return missing;
    }
    return null;
  }

  /** The first sector of a disk that lacks what was acknowledged as being on stable storage; all else may be missing. */
  firstDurableMissing(sectors: Uint32Array): number | null {
    for (let sector = 0; sector < this.#durable.length; sector++) {
      const replaced = this.#durable[sector] ?? 0;
      if (replaced === 0 || this.#endedAfter(sector, sectors[sector] ?? 0, replaced)) continue;
      if (!this.#isSpoiled(sector)) return sector;
    }
    return null;
  }

  /** Whether all its sectors on a disk hold this write's value, or that of one that may have replaced it. */
  hasReached(record: WriteRecord, sectors: Uint32Array): boolean {
    for (let sector = record.first, end = record.first + record.count; sector < end; sector++) {
      const found = sectors[sector] ?? 0;
      if (found === record.value || this.#endedAfter(sector, found, record.issued)) continue;
      if (!this.#isSpoiled(sector)) return false;
    }
    return true;
  }

  explain(sector: number): string {
    const tell = (record: WriteRecord): string =>
      `${record.stamp}${record.value === 0 ? '(zero)' : ''}@${record.issued}-` +
      `${record.ended === underWay ? '' : record.ended}` +
      `${record.firm ? ' firm' : ''}${record.durable ? ' durable' : ''}`;
    return this.#records
      .filter((record) => covers(record, sector))
      .map(tell)
      .join('; ');
  }

  /** The rule itself. */
  #isPossible(sector: number, value: number, since: number): boolean {
    if (this.#isSpoiled(sector)) return true;
    let replaced = 0;
    for (const record of this.#records) {
      if (record.firm && record.ended <= since && covers(record, sector))
        replaced = Math.max(replaced, record.issued);
    }
    return (replaced === 0 && value === 0) || this.#endedAfter(sector, value, replaced);
  }

  /** Some write that has put, or may put, this value there was not over by then. */
  #endedAfter(sector: number, value: number, after: number): boolean {
    if (value !== 0) {
      const record = this.#records[value - 1];
      return record?.value === value && record.ended > after && covers(record, sector);
    }
    if ((this.#zeroed[sector] ?? 0) > after) return true;
    for (const record of this.#underWay) if (record.value === 0 && covers(record, sector)) return true;
    return false;
  }
}

function covers(record: WriteRecord, sector: number): boolean {
  return record.first <= sector && sector < record.first + record.count;
}

function raise(table: Uint32Array, record: WriteRecord): void {
  const { first, count, issued } = record;
  for (let sector = first; sector < first + count; sector++)
    if ((table[sector] ?? 0) < issued) table[sector] = issued;
}
