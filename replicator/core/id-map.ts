/**
 * A map from ids (whole numbers from 0 on) for what is in flight: open addressing in two flat arrays. `Map` would do but
 * for the garbage collector: a table that `Map` has outgrown by churn points to its successor, and one that has become
 * old keeps all later ones, and whatever they held, alive until the next full collection. At tens of thousands of requests
 * a second that is most of what a collection copies.
 */

/** In `#keys`, where nothing is. */
const none = -1;

export class IdMap<T> {
  #keys = new Float64Array(64).fill(none);
  #values: (T | undefined)[] = new Array<T | undefined>(64).fill(undefined);
  #mask = 63;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    const at = this.#find(id);
    return this.#keys[at] === id ? this.#values[at] : undefined;
  }

  has(id: number): boolean {
    return this.#keys[this.#find(id)] === id;
  }

  set(id: number, value: T): void {
    if (!(id >= 0)) throw new RangeError(`id ${id}`);
    let at = this.#find(id);
    if (this.#keys[at] !== id) {
      if (++this.#size * 2 > this.#mask) {
        this.#grow();
        at = this.#find(id);
      }
      this.#keys[at] = id;
    }
    this.#values[at] = value;
  }

  /** Whether there was one. */
  delete(id: number): boolean {
    let hole = this.#find(id);
    if (this.#keys[hole] !== id) return false;
    this.#size--;
    // Those behind that would not be found across the hole move into it, one after the other.
    for (let at = hole; ;) {
      at = (at + 1) & this.#mask;
      const key = this.#keys[at] ?? none;
      if (key === none) break;
      const home = (key >>> 0) & this.#mask;
      if (((at - home) & this.#mask) < ((at - hole) & this.#mask)) continue;
      this.#keys[hole] = key;
      this.#values[hole] = this.#values[at];
      hole = at;
    }
    this.#keys[hole] = none;
    this.#values[hole] = undefined;
    return true;
  }

  clear(): void {
    this.#keys.fill(none);
    this.#values.fill(undefined);
    this.#size = 0;
  }

  /** Ids in ascending order, as of now. */
  ids(): readonly number[] {
    return Array.from(this.#keys.filter((key) => key !== none)).sort((a, b) => a - b);
  }

  /** In ascending order of their ids, as of now. */
  values(): readonly T[] {
    const found: T[] = [];
    for (const id of this.ids()) {
      const value = this.get(id);
      if (value !== undefined) found.push(value);
    }
    return found;
  }

  /** The smallest id; null when there is none. */
  get first(): number | null {
    let first = Infinity;
    for (const key of this.#keys) if (key !== none && key < first) first = key;
    return first === Infinity ? null : first;
  }

  /** Where the id is, or where it would go. */
  #find(id: number): number {
    let at = (id >>> 0) & this.#mask;
    for (;;) {
      const key = this.#keys[at];
      if (key === id || key === none) return at;
      at = (at + 1) & this.#mask;
    }
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const capacity = keys.length * 2;
    this.#keys = new Float64Array(capacity).fill(none);
    this.#values = new Array<T | undefined>(capacity).fill(undefined);
    this.#mask = capacity - 1;
    for (let from = 0; from < keys.length; from++) {
      const key = keys[from] ?? none;
      if (key === none) continue;
      const at = this.#find(key);
      this.#keys[at] = key;
      this.#values[at] = values[from];
    }
  }
}
