/** What a run has started or created and has to end or remove, in reverse order, also when it is interrupted. */
export class Leftovers {
  readonly #undo: (() => Promise<void> | void)[] = [];

  add(undo: () => Promise<void> | void): void {
    this.#undo.push(undo);
  }

  /** Goes on after a failure, and throws the first one in the end. */
  async clear(): Promise<void> {
    const failures: unknown[] = [];
    for (let next = this.#undo.pop(); next; next = this.#undo.pop()) {
      try {
        await next();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
