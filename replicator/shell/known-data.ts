/**
 * A range of the file that is known to be allocated, so that nobody has to ask again. Where the end of the data is far away,
 * a file system may take milliseconds to find it (SEEK_HOLE looks at every page, or extent, up to there), and a resync, which
 * asks for piece after piece, would have it look at the same ones thousands of times.
 *
 * Writing leaves data what it is; only deallocation ends it. It is wrong meanwhile at worst: then a hole is taken for data.
 */
export class KnownData {
  #start = 0;
  #end = 0;
  /** Changes whenever something may have been deallocated. What was asked before says nothing then. */
  #age = 0;

  get age(): number {
    return this.#age;
  }

  covers(offset: number, lengthBytes: number): boolean {
    return offset >= this.#start && offset + lengthBytes <= this.#end;
  }

  /** Nothing between `start` and `end` was a hole, as was found by asking since `age`. */
  learn(start: number, end: number, age: number): void {
    if (age !== this.#age || end <= start) return;
    const touches = start <= this.#end && end >= this.#start;
    this.#start = touches ? Math.min(start, this.#start) : start;
    this.#end = touches ? Math.max(end, this.#end) : end;
  }

  /** To be called before and after anything is deallocated, since either may be asked in between. */
  forget(): void {
    this.#start = 0;
    this.#end = 0;
    this.#age++;
  }
}
