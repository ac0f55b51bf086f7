/** Blocks that the source of a resync, or neither copy, could read, by name, as far as a person wants to read them. */
import type { BlockRun } from './packet.ts';

/** More runs than this are counted, not kept. */
const runsMax = 64;
const namesMax = 4;

export class UnreadableBlocks {
  #runs: BlockRun[] = [];

  /** True when nothing was known of this range. */
  add(run: BlockRun): boolean {
    const isNew = !this.#runs.some((known) => overlaps(known, run));
    this.remove(run);
    if (this.#runs.length < runsMax) this.#runs.push(run);
    return isNew;
  }

  /** Read after all, or asked for in other portions. */
  remove(run: BlockRun): void {
    if (this.#runs.length > 0) this.#runs = this.#runs.filter((known) => !overlaps(known, run));
  }

  get isEmpty(): boolean {
    return this.#runs.length === 0;
  }

  /** For example "blocks 5, 9-12 and 3 more (of 4 KiB)". */
  describe(): string {
    const sorted = this.#runs.toSorted((a, b) => a.first - b.first);
    const names = sorted
      .slice(0, namesMax)
      .map(({ first, count }) => (count === 1 ? `${first}` : `${first}-${first + count - 1}`));
    const left = sorted.slice(namesMax).reduce((sum, { count }) => sum + count, 0);
    const isOne = sorted.length === 1 && sorted[0]?.count === 1;
    return `${isOne ? 'block' : 'blocks'} ${names.join(', ')}${left > 0 ? ` and ${left} more` : ''} (of 4 KiB)`;
  }
}

function overlaps(a: BlockRun, b: BlockRun): boolean {
  return a.first < b.first + b.count && b.first < a.first + a.count;
}
