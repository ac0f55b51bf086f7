/**
 * Policy of the activity log: which 4 MiB extents may differ between the replicas after a crash. An operation starts once
 * its extents are durably active; an extent leaves the log only when nothing writes to it and all that was written to it
 * is stable on both sides. What is active is bounded by the capacity, and so is the resync after a crash
 * (DRBD 9 User's Guide, "The activity log").
 *
 * The owner calls `nextTransaction` whenever something changed (an operation waits or ended, an epoch became stable, a
 * transaction committed, a waiting operation was forgotten) and commits what it answers; waiting operations share it.
 */
import { extentsTouched } from './blocks.ts';
import type { ActiveRange } from './metadata.ts';
import type { BlockRun } from './packet.ts';
import { IdMap } from './id-map.ts';
import { RecencyList } from './recency-list.ts';
import type { Listed } from './recency-list.ts';

/** An operation on more extents than this gets one entry of its own, outside the capacity. */
const ordinaryExtentsMax = 64;

export interface ActivityTransaction {
  readonly activate: readonly ActiveRange[];
  readonly deactivate: readonly ActiveRange[];
}

interface Entry extends Listed<Entry> {
  readonly range: ActiveRange;
  /** Operations under way, or placed in the outstanding transaction. */
  references: number;
  /** The latest epoch of a write that ended here. Stable when the stable epoch has reached it. */
  lastEpoch: number;
  /** False while the transaction that activates it is outstanding. */
  active: boolean;
  /** About to make room for a waiting operation: takes no new operations until that one has its place. */
  retiring: boolean;
}

interface WaitingOp {
  readonly opId: number;
  readonly extents: BlockRun;
}

interface PlacedOp extends WaitingOp {
  readonly entries: readonly Entry[];
}

/** A transaction under construction. An extent in `evicted` can still be taken back. */
interface Draft {
  readonly activate: Entry[];
  readonly evicted: Map<number, Entry>;
  readonly bulkRemoved: ActiveRange[];
  placed: number;
}

export class ActivityLog {
  readonly capacity: number;
  readonly #ordinaryMax: number;
  /** Ordinary entries that the log holds once the outstanding transaction has committed. At most `capacity`. */
  readonly #entries = new Map<number, Entry>();
  /** Those without references, least recently used first. */
  readonly #idle = new RecencyList<Entry>();
  readonly #bulk: Entry[] = [];
  /** How many ordinary entries have which `lastEpoch`, for epochs not yet stable. */
  readonly #unstable = new Map<number, number>();
  #unstableCount = 0;
  #stableEpoch = 0;

  /** Operations under way on one entry; the common case, without an object per operation. */
  readonly #single = new IdMap<Entry>();
  readonly #multiple = new Map<number, readonly Entry[]>();
  /** In order of arrival. They hold no references. */
  readonly #waiting = new Map<number, WaitingOp>();
  /** Operations that start when the outstanding transaction commits. Null: none is outstanding. */
  #outstanding: { readonly activated: readonly Entry[]; readonly ops: Map<number, PlacedOp> } | null = null;
  /** The operation for which `retiring` entries make room. */
  #blockedOp: number | null = null;

  /** `capacity`: ordinary entries at most, 2 or more. Nothing is active at first. */
  constructor(capacity: number) {
    if (!Number.isSafeInteger(capacity) || capacity < 2) throw new RangeError(`capacity ${capacity}`);
    this.capacity = capacity;
    this.#ordinaryMax = Math.min(ordinaryExtentsMax, Math.floor(capacity / 2));
  }

  /**
   * 'active': the operation may start, and `end` must follow. 'wait': a later `committed` names it. `opId` must not be in
   * use. Order among waiting operations is that of arrival; one whose extents are all active does not wait for them.
   */
  begin(opId: number, offsetBytes: number, lengthBytes: number): 'active' | 'wait' {
    const extents = extentsTouched(offsetBytes, lengthBytes);
    if (extents.count === 1) {
      const entry = this.#entries.get(extents.first);
      if (entry?.active === true && !entry.retiring) {
        this.#reference(entry);
        this.#single.set(opId, entry);
        return 'active';
      }
    }
    return this.#beginSlowly({ opId, extents });
  }

  /**
   * The operation is over on both sides, or its blocks are marked. `epoch`: the epoch its write belongs to; one that is
   * stable already (0, say) when nothing was written.
   */
  end(opId: number, epoch: number): void {
    const entry = this.#single.get(opId);
    if (entry !== undefined) {
      this.#single.delete(opId);
      this.#release(entry, epoch);
      return;
    }
    const entries = this.#multiple.get(opId);
    if (entries === undefined) throw new Error(`operation ${opId} is not under way`);
    this.#multiple.delete(opId);
    for (const one of entries) this.#release(one, epoch);
  }

  /** Every write of this epoch and those before is on stable storage of both sides (or marked). Never falls. */
  setStableEpoch(epoch: number): void {
    if (epoch <= this.#stableEpoch) return;
    this.#stableEpoch = epoch;
    for (const [unstable, count] of this.#unstable) {
      if (unstable > epoch) continue;
      this.#unstable.delete(unstable);
      this.#unstableCount -= count;
    }
  }

  /**
   * What to commit next: null when there is nothing or a transaction is outstanding already. Both lists may be empty, when
   * operations can start after all; `committed` then has to be called as well.
   */
  nextTransaction(): ActivityTransaction | null {
    if (this.#outstanding !== null) return null;
    const ops = new Map<number, PlacedOp>();
    const draft: Draft = { activate: [], evicted: new Map(), bulkRemoved: [], placed: 0 };
    this.#placeWaiting(draft, ops);
    this.#removeStableBulk(draft);
    if (ops.size === 0 && draft.bulkRemoved.length === 0) return null;
    this.#outstanding = { activated: draft.activate, ops };
    return {
      activate: draft.activate.map((entry) => entry.range),
      deactivate: [...Array.from(draft.evicted.values(), (entry) => entry.range), ...draft.bulkRemoved],
    };
  }

  /** The outstanding transaction is durable. Answers the operations that may start now, in order of arrival. */
  committed(): readonly number[] {
    const outstanding = this.#outstanding;
    if (outstanding === null) throw new Error('no transaction of the activity log is outstanding');
    this.#outstanding = null;
    for (const entry of outstanding.activated) entry.active = true;
    for (const op of outstanding.ops.values()) this.#start(op.opId, op.entries);
    return [...outstanding.ops.keys()];
  }

  /** Gives up an operation that has not started. */
  forgetWaiting(opId: number): void {
    if (this.#waiting.delete(opId)) {
      if (this.#blockedOp === opId) this.#unblock();
      return;
    }
    const placed = this.#outstanding?.ops.get(opId);
    if (placed === undefined) throw new Error(`operation ${opId} does not wait`);
    this.#outstanding?.ops.delete(opId);
    for (const entry of placed.entries) this.#release(entry, 0);
  }

  /** After `nextTransaction`: operations wait for room that a flush on both sides would make. */
  needsFlush(): boolean {
    if (this.#blockedOp === null) return false;
    for (const entry of this.#idle) if (!this.#isStable(entry)) return true;
    return false;
  }

  /** A hint for a flush in the background, while there is as much room left as it makes: half of the capacity is not stable. */
  wantsFlush(): boolean {
    return this.#unstableCount * 2 > this.capacity;
  }

  /** Operations that wait, in the queue or for the outstanding transaction. */
  get waitingCount(): number {
    return this.#waiting.size + (this.#outstanding?.ops.size ?? 0);
  }

  /** What the log holds, or will hold once the outstanding transaction has committed. */
  activeRanges(): readonly ActiveRange[] {
    return [...this.#entries.values(), ...this.#bulk].map((entry) => entry.range);
  }

  /**
   * For a clean stop, when everything is stable or marked: empties the log and answers what to deactivate. Throws while an
   * operation is under way or waits, or a transaction is outstanding.
   */
  deactivateAll(): readonly ActiveRange[] {
    if (this.#single.size + this.#multiple.size + this.waitingCount > 0 || this.#outstanding !== null) {
      throw new Error('the activity log is in use');
    }
    const ranges = this.activeRanges();
    this.#entries.clear();
    this.#idle.clear();
    this.#bulk.length = 0;
    this.#unstable.clear();
    this.#unstableCount = 0;
    return ranges;
  }

  #beginSlowly(op: WaitingOp): 'active' | 'wait' {
    const entries = this.#present(op.extents);
    if (entries === null) {
      this.#waiting.set(op.opId, op);
      return 'wait';
    }
    for (const entry of entries) this.#reference(entry);
    if (entries.every((entry) => entry.active)) {
      this.#start(op.opId, entries);
      return 'active';
    }
    // Some are being activated right now: the operation joins that transaction.
    this.#outstanding?.ops.set(op.opId, { ...op, entries });
    return 'wait';
  }

  /** The entries of all the extents, active or about to be; null when one is missing or retiring. */
  #present(extents: BlockRun): readonly Entry[] | null {
    if (extents.count > this.#ordinaryMax) {
      const covering = this.#bulk.find((entry) => covers(entry.range, extents));
      return covering === undefined ? null : [covering];
    }
    const entries: Entry[] = [];
    for (let i = 0; i < extents.count; i++) {
      const entry = this.#entries.get(extents.first + i);
      if (entry === undefined || entry.retiring) return null;
      entries.push(entry);
    }
    return entries;
  }

  #placeWaiting(draft: Draft, ops: Map<number, PlacedOp>): void {
    const place = (op: WaitingOp, entries: readonly Entry[]): void => {
      this.#waiting.delete(op.opId);
      for (const entry of entries) this.#reference(entry);
      ops.set(op.opId, { ...op, entries });
    };
    let newlyBlocked = false;
    for (const op of this.#waiting.values()) {
      if (newlyBlocked) {
        // Behind it only those start that take no room from it; later ones see that for themselves in `begin`.
        const entries = this.#present(op.extents);
        if (entries !== null) place(op, entries);
        continue;
      }
      const entries = this.#makeRoom(op, draft);
      if (entries === null) {
        if (this.#blockedOp === op.opId) break;
        this.#blockedOp = op.opId;
        newlyBlocked = true;
      } else {
        if (this.#blockedOp !== null) this.#unblock();
        place(op, entries);
      }
    }
  }

  /** Entries for all the extents of an operation, taking those that are missing into the draft; null without room. */
  #makeRoom(op: WaitingOp, draft: Draft): readonly Entry[] | null {
    if (op.extents.count > this.#ordinaryMax) return [this.#bulkEntry(op.extents, draft)];
    const mine = new Set<Entry>();
    let missing = 0;
    for (let i = 0; i < op.extents.count; i++) {
      const entry = this.#entries.get(op.extents.first + i);
      if (entry === undefined) missing++;
      else mine.add(entry);
    }
    for (const entry of mine) entry.retiring = false;
    const shortage = missing - (this.capacity - this.#entries.size);
    if (shortage > 0 && !this.#evict(shortage, mine, draft)) {
      this.#retire(shortage, mine);
      return null;
    }
    const entries: Entry[] = [];
    for (let i = 0; i < op.extents.count; i++) entries.push(this.#ordinaryEntry(op.extents.first + i, draft));
    return entries;
  }

  #ordinaryEntry(extent: number, draft: Draft): Entry {
    const present = this.#entries.get(extent);
    if (present !== undefined) return present;
    const evicted = draft.evicted.get(extent);
    if (evicted !== undefined) {
      // Evicted for an earlier operation of the same transaction: it simply stays.
      draft.evicted.delete(extent);
      this.#entries.set(extent, evicted);
      this.#idle.add(evicted);
      return evicted;
    }
    const entry = newEntry({ first: extent, count: 1 });
    this.#entries.set(extent, entry);
    this.#idle.add(entry);
    draft.activate.push(entry);
    return entry;
  }

  #bulkEntry(extents: BlockRun, draft: Draft): Entry {
    const covering = this.#bulk.find((entry) => covers(entry.range, extents));
    if (covering !== undefined) return covering;
    const entry = newEntry({ first: extents.first, count: extents.count });
    this.#bulk.push(entry);
    draft.activate.push(entry);
    return entry;
  }

  /** Moves the `count` least recently used evictable entries other than `spared` to the draft; none if too few. */
  #evict(count: number, spared: ReadonlySet<Entry>, draft: Draft): boolean {
    const victims: Entry[] = [];
    for (const entry of this.#idle) {
      // An entry of this very draft is not there yet and cannot be taken away in the same transaction.
      if (!entry.active || !this.#isStable(entry) || spared.has(entry)) continue;
      victims.push(entry);
      if (victims.length === count) break;
    }
    if (victims.length < count) return false;
    for (const entry of victims) {
      entry.retiring = false;
      this.#idle.delete(entry);
      this.#entries.delete(entry.range.first);
      draft.evicted.set(entry.range.first, entry);
    }
    return true;
  }

  /**
   * Chooses entries that take no new operations, so that they become evictable however hot they are; idle ones
   * first. A choice once made stays until the operation it was made for has its place.
   */
  #retire(count: number, spared: ReadonlySet<Entry>): void {
    let retiring = 0;
    for (const entry of this.#entries.values()) if (entry.retiring) retiring++;
    for (const pool of [this.#idle, this.#entries.values()]) {
      for (const entry of pool) {
        if (retiring >= count) return;
        if (entry.retiring || spared.has(entry)) continue;
        entry.retiring = true;
        retiring++;
      }
    }
  }

  #unblock(): void {
    this.#blockedOp = null;
    for (const entry of this.#entries.values()) entry.retiring = false;
  }

  #removeStableBulk(draft: Draft): void {
    for (let i = this.#bulk.length - 1; i >= 0; i--) {
      const entry = this.#bulk[i];
      if (entry === undefined || entry.references > 0 || !entry.active || !this.#isStable(entry)) continue;
      this.#bulk.splice(i, 1);
      draft.bulkRemoved.push(entry.range);
    }
  }

  #start(opId: number, entries: readonly Entry[]): void {
    const [only] = entries;
    if (entries.length === 1 && only !== undefined) this.#single.set(opId, only);
    else this.#multiple.set(opId, entries);
  }

  #reference(entry: Entry): void {
    if (entry.references++ === 0) this.#idle.delete(entry);
  }

  #release(entry: Entry, epoch: number): void {
    entry.references--;
    const ordinary = entry.range.count === 1;
    if (epoch > entry.lastEpoch) {
      if (ordinary) this.#countEpoch(entry.lastEpoch, epoch);
      entry.lastEpoch = epoch;
    }
    if (entry.references === 0 && ordinary) this.#idle.add(entry);
  }

  #countEpoch(before: number, now: number): void {
    if (before > this.#stableEpoch) {
      const count = (this.#unstable.get(before) ?? 0) - 1;
      if (count > 0) this.#unstable.set(before, count);
      else this.#unstable.delete(before);
      this.#unstableCount--;
    }
    if (now > this.#stableEpoch) {
      this.#unstable.set(now, (this.#unstable.get(now) ?? 0) + 1);
      this.#unstableCount++;
    }
  }

  #isStable(entry: Entry): boolean {
    return entry.lastEpoch <= this.#stableEpoch;
  }
}

function newEntry(range: ActiveRange): Entry {
  return {
    ...{ range, references: 0, lastEpoch: 0, active: false, retiring: false },
    ...{ older: null, newer: null, isListed: false },
  };
}

function covers(range: ActiveRange, extents: BlockRun): boolean {
  return range.first <= extents.first && extents.first + extents.count <= range.first + range.count;
}
