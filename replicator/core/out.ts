/** Collects the effects of one step, in order, and hands out ids for what comes back as an event. */
import type { Decision } from './decision.ts';
import type { Effect } from './effect.ts';

export class Out {
  /** The caller's clock as of the last tick, milliseconds. */
  nowMs = 0;
  #effects: Effect[] = [];
  #nextId = 1;

  emit(effect: Effect): void {
    this.#effects.push(effect);
  }

  newId(): number {
    return this.#nextId++;
  }

  take(): readonly Effect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  log(level: 'info' | 'warn' | 'error', message: string): void {
    this.emit({ kind: 'log', level, message });
  }

  decide(
    kind: Decision['kind'],
    rule: string,
    result: string,
    inputs: Readonly<Record<string, string | number | boolean>>,
  ): void {
    this.emit({ kind: 'decided', decision: { kind, atMs: this.nowMs, rule, result, inputs } });
  }
}

/** Broken invariants stop the process: better no answer than a wrong one. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
