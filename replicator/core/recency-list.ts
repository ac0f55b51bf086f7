/**
 * What is idle, least recently used first: a list through its members, so that moving one costs no memory. (A `Set` used
 * so outgrows its table all the time; see id-map.ts for what that costs.)
 */
export interface Listed<T> {
  older: T | null;
  newer: T | null;
  isListed: boolean;
}

export class RecencyList<T extends Listed<T>> {
  #oldest: T | null = null;
  #newest: T | null = null;

  /** As the most recently used; not to be in the list. */
  add(member: T): void {
    if (member.isListed) throw new Error('it is in the list already');
    member.isListed = true;
    member.older = this.#newest;
    member.newer = null;
    if (this.#newest === null) this.#oldest = member;
    else this.#newest.newer = member;
    this.#newest = member;
  }

  /** Does nothing when it is not in the list. */
  delete(member: T): void {
    if (!member.isListed) return;
    const { older, newer } = member;
    if (older === null) this.#oldest = newer;
    else older.newer = newer;
    if (newer === null) this.#newest = older;
    else newer.older = older;
    member.older = null;
    member.newer = null;
    member.isListed = false;
  }

  clear(): void {
    while (this.#oldest !== null) this.delete(this.#oldest);
  }

  /** Least recently used first. The list stays as it is meanwhile. */
  *[Symbol.iterator](): Generator<T> {
    for (let member = this.#oldest; member !== null; member = member.newer) yield member;
  }
}
