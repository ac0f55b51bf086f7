/**
 * What the client may expect to read. Every write has a stamp and an interval from its issue to its end; the end of one
 * that was never answered is when the client gave it up. A sector may hold what a write put there unless a later
 * acknowledged one, issued after that write's end, has replaced it. Losses that the design does not promise to survive
 * (both machines without power, an operator's force) take the promise back from writes, not the possibility.
 */

export interface WriteRecord {
  /** Also what its sectors hold; 0 for zeroes and trims. */
  readonly value: number;
  readonly stamp: number;
  readonly first: number;
  readonly count: number;
  readonly issued: number;
  /** Infinity while under way. */
  ended: number;
  /** Acknowledged, and it may not be lost. Never for a trim, which promises nothing. */
  firm: boolean;
  /** Acknowledged as being on stable storage. */
  durable: boolean;
  /** Under way when caches were lost: it may have been in one of them, though the answer still comes. */
  atRisk: boolean;
}

/** A longer list is worth shortening. */
const longList = 12;

/** Writes over more sectors than this are looked through one by one instead of being listed with each sector. */
const wideSectors = 16_384;

export class Expectations {
  /** Counts events; simulated time may stand still between two of them. */
  #clock = 0;
  #stamps = 0;
  readonly #bySector = new Map<number, WriteRecord[]>();
  readonly #wide: WriteRecord[] = [];
  /** Sectors whose list does not go back to the beginning. */
  readonly #shortened = new Set<number>();
  /** Of these, those that may hold again what is not listed any more. */
  readonly #open = new Set<number>();
  /** Reads under way, by when they began. Oldest first. */
  readonly #reads = new Set<number>();
  /** Acknowledged and not known to be on stable storage. */
  readonly #unflushed = new Set<WriteRecord>();
  readonly #underWay = new Set<WriteRecord>();

  get now(): number {
    return this.#clock;
  }

  /** A read begins; answers the moment that its result is judged by. */
  readIssued(): number {
    const since = ++this.#clock;
    this.#reads.add(since);
    return since;
  }

  readEnded(since: number): void {
    this.#reads.delete(since);
  }

  issue(op: 'write' | 'trim' | 'zeroes', first: number, count: number): WriteRecord {
    const stamp = ++this.#stamps;
    const value = op === 'write' ? stamp : 0;
    const record: WriteRecord = {
      ...{
        value,
        stamp,
        first,
        count,
        issued: ++this.#clock,
        ended: Infinity,
        firm: false,
        durable: false,
        atRisk: false,
      },
    };
    this.#underWay.add(record);
    if (count > wideSectors) this.#wide.push(record);
    else for (let sector = first; sector < first + count; sector++) this.#listOf(sector).push(record);
    return record;
  }

  acknowledged(record: WriteRecord, op: 'write' | 'trim' | 'zeroes', fua: boolean): void {
    this.#end(record);
    if (op === 'trim' || (record.atRisk && !fua)) return;
    record.firm = true;
    record.durable = fua;
    if (!fua) this.#unflushed.add(record);
  }

  givenUp(record: WriteRecord): void {
    this.#end(record);
  }

  #end(record: WriteRecord): void {
    record.ended = ++this.#clock;
    this.#underWay.delete(record);
  }

  /** The writes that a flush issued now will make durable. */
  flushIssued(): readonly WriteRecord[] {
    return [...this.#unflushed];
  }

  flushed(records: readonly WriteRecord[]): void {
    this.#clock++;
    for (const record of records) {
      if (!this.#unflushed.delete(record)) continue;
      record.durable = true;
    }
  }

  /** Every copy of what was not flushed may be gone. */
  loseUnflushed(): void {
    this.#clock++;
    for (const record of this.#underWay) record.atRisk = true;
    for (const record of this.#unflushed) record.firm = false;
    this.#unflushed.clear();
  }

  /** An operator has given up what this copy does not have. */
  loseEverything(): void {
    this.loseUnflushed();
    for (const sector of this.#shortened) this.#open.add(sector);
    for (const records of [...this.#bySector.values(), this.#wide])
      for (const record of records) record.firm = false;
  }

  /** Whether a read that was issued at `since` may find `value` in the sector. */
  isLegitimate(sector: number, value: number, since: number): boolean {
    const records = this.#listed(sector);
    let replacedBefore = -1;
    for (const record of records) {
      if (record.firm && record.ended <= since) replacedBefore = Math.max(replacedBefore, record.issued);
    }
    for (const record of this.#wide) {
      if (covers(record, sector) && record.firm && record.ended <= since) {
        replacedBefore = Math.max(replacedBefore, record.issued);
      }
    }
    if (replacedBefore === -1 && (value === 0 || this.#open.has(sector))) return true;
    return this.#someEnded(sector, value, replacedBefore);
  }

  /** Whether the sector holds this write's value, or that of one that may have replaced it. */
  hasReached(record: WriteRecord, sector: number, value: number): boolean {
    return record.value === value || this.#someEnded(sector, value, record.issued);
  }

  /** Sectors that were ever written on their own, ascending. */
  writtenSectors(): readonly number[] {
    return [...this.#bySector.keys()].sort((a, b) => a - b);
  }

  explain(sector: number): string {
    const tell = (record: WriteRecord): string =>
      `${record.stamp}${record.value === 0 ? '(zero)' : ''}@${record.issued}-${record.ended}` +
      `${record.firm ? ' firm' : ''}${record.durable ? ' durable' : ''}`;
    return [...this.#listed(sector), ...this.#wide.filter((record) => covers(record, sector))]
      .map(tell)
      .join('; ');
  }

  #someEnded(sector: number, value: number, after: number): boolean {
    for (const record of this.#listed(sector))
      if (record.value === value && record.ended > after) return true;
    for (const record of this.#wide) {
      if (record.value === value && record.ended > after && covers(record, sector)) return true;
    }
    return false;
  }

  /** Leaves out what can never be read again: what had ended before a write began that is on stable storage. */
  #listed(sector: number): readonly WriteRecord[] {
    const records = this.#bySector.get(sector) ?? [];
    if (records.length < longList) return records;
    let replaced = -1;
    for (const record of records)
      if (record.durable && record.firm) replaced = Math.max(replaced, record.issued);
    const rest = records.filter((record) => record.ended > replaced);
    if (rest.length > records.length / 2) return records;
    this.#bySector.set(sector, rest);
    this.#shortened.add(sector);
    return rest;
  }

  #listOf(sector: number): WriteRecord[] {
    const list = this.#bySector.get(sector) ?? [];
    if (list.length === 0) this.#bySector.set(sector, list);
    return list;
  }
}

function covers(record: WriteRecord, sector: number): boolean {
  return record.first <= sector && sector < record.first + record.count;
}
