/**
 * FIFO locks on byte ranges, for a node's operations on its own disk. A request waits for every earlier one that overlaps
 * it, granted or not, unless both are shared; so overlapping requests run in the order in which they arrived, and
 * disjoint ones never wait for each other.
 *
 * Requests are kept in parallel arrays and found by scanning: a few dozen are in flight at a time, and a scan of that is
 * cheaper than any tree, and allocates nothing.
 */

export type LockMode = 'exclusive' | 'shared';

const none: readonly number[] = [];

export class RangeLocks {
  #count = 0;
  #waiting = 0;
  #arrivals = 0;
  #capacity = 128;
  #ids = new Float64Array(this.#capacity);
  /** Ranges are [start, end). */
  #starts = new Float64Array(this.#capacity);
  #ends = new Float64Array(this.#capacity);
  /** Ascending with arrival; slots themselves are in no order. */
  #arrival = new Float64Array(this.#capacity);
  #shared = new Uint8Array(this.#capacity);
  /** Earlier conflicting requests still here. Granted means zero. */
  #blockers = new Int32Array(this.#capacity);

  /** Requests held or waiting. */
  get size(): number {
    return this.#count;
  }

  /** Requests that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** True: granted now. False: queued; a later `release` will name it. `id` must not be in use. */
  acquire(id: number, offsetBytes: number, lengthBytes: number, mode: LockMode): boolean {
    if (!(lengthBytes > 0 && offsetBytes >= 0 && Number.isSafeInteger(offsetBytes + lengthBytes))) {
      throw new RangeError(`lock of range ${offsetBytes}+${lengthBytes}`);
    }
    const end = offsetBytes + lengthBytes;
    const shared = mode === 'shared' ? 1 : 0;
    let blockers = 0;
    for (let slot = 0; slot < this.#count; slot++) {
      if (this.#ids[slot] === id) throw new Error(`lock ${id} is in use`);
      if (this.#conflicts(slot, offsetBytes, end, shared)) blockers++;
    }
    if (this.#count === this.#capacity) this.#grow();
    const slot = this.#count++;
    this.#ids[slot] = id;
    this.#starts[slot] = offsetBytes;
    this.#ends[slot] = end;
    this.#arrival[slot] = this.#arrivals++;
    this.#shared[slot] = shared;
    this.#blockers[slot] = blockers;
    if (blockers > 0) this.#waiting++;
    return blockers === 0;
  }

  /** Gives up a lock, held or waited for. Answers the requests granted thereby, in order of arrival. */
  release(id: number): readonly number[] {
    const slot = this.#slotOf(id);
    if (slot === -1) throw new Error(`lock ${id} is not in use`);
    if (at(this.#blockers, slot) > 0) this.#waiting--;
    const start = at(this.#starts, slot);
    const end = at(this.#ends, slot);
    const arrival = at(this.#arrival, slot);
    const shared = at(this.#shared, slot);
    this.#remove(slot);
    return this.#waiting === 0 ? none : this.#unblock(start, end, arrival, shared);
  }

  /** Whether any request, held or waiting, overlaps the range. */
  isLocked(offsetBytes: number, lengthBytes: number): boolean {
    const end = offsetBytes + lengthBytes;
    for (let slot = 0; slot < this.#count; slot++) {
      if (this.#conflicts(slot, offsetBytes, end, 0)) return true;
    }
    return false;
  }

  #unblock(start: number, end: number, arrival: number, shared: number): readonly number[] {
    let granted: { id: number; arrival: number }[] | null = null;
    for (let slot = 0; slot < this.#count; slot++) {
      if (at(this.#arrival, slot) < arrival || !this.#conflicts(slot, start, end, shared)) continue;
      const blockers = at(this.#blockers, slot) - 1;
      this.#blockers[slot] = blockers;
      if (blockers > 0) continue;
      this.#waiting--;
      granted ??= [];
      granted.push({ id: at(this.#ids, slot), arrival: at(this.#arrival, slot) });
    }
    if (granted === null) return none;
    return granted.sort((a, b) => a.arrival - b.arrival).map((request) => request.id);
  }

  #conflicts(slot: number, start: number, end: number, shared: number): boolean {
    return (
      at(this.#starts, slot) < end && start < at(this.#ends, slot) && (shared & at(this.#shared, slot)) === 0
    );
  }

  #slotOf(id: number): number {
    for (let slot = 0; slot < this.#count; slot++) if (this.#ids[slot] === id) return slot;
    return -1;
  }

  #remove(slot: number): void {
    const last = --this.#count;
    if (slot === last) return;
    this.#ids[slot] = at(this.#ids, last);
    this.#starts[slot] = at(this.#starts, last);
    this.#ends[slot] = at(this.#ends, last);
    this.#arrival[slot] = at(this.#arrival, last);
    this.#shared[slot] = at(this.#shared, last);
    this.#blockers[slot] = at(this.#blockers, last);
  }

  #grow(): void {
    this.#capacity *= 2;
    this.#ids = grown(this.#ids, new Float64Array(this.#capacity));
    this.#starts = grown(this.#starts, new Float64Array(this.#capacity));
    this.#ends = grown(this.#ends, new Float64Array(this.#capacity));
    this.#arrival = grown(this.#arrival, new Float64Array(this.#capacity));
    this.#shared = grown(this.#shared, new Uint8Array(this.#capacity));
    this.#blockers = grown(this.#blockers, new Int32Array(this.#capacity));
  }
}

type Numbers = Float64Array | Int32Array | Uint8Array;

function at(numbers: Numbers, index: number): number {
  return numbers[index] ?? 0;
}

function grown<T extends Numbers>(from: T, to: T): T {
  to.set(from);
  return to;
}
