/**
 * Every command is answered: what takes longer than this, because a disk, the metadata or the peer does not answer, is
 * answered with what it waits for. It may still come to pass, and the status shows whether it has.
 * Steps that can be taken back have a shorter deadline of their own (`commandDeadlineMs`), and are taken back.
 */
import type { Command } from './command.ts';
import type { Core } from './core.ts';
import type { CommandResult } from './refusal.ts';
import { refuse } from './refusal.ts';

/** Above `commandDeadlineMs`, so that whatever can tell more has told it. */
const answerWithinMs = 30_000;

interface Open {
  readonly kind: Command['kind'];
  readonly sinceMs: number;
}

export class Deadlines {
  readonly #core: Core;
  readonly #open = new Map<number, Open>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** Answers the command: the first answer counts. */
  begin(id: number, kind: Command['kind']): (result: CommandResult) => void {
    const { out } = this.#core;
    this.#open.set(id, { kind, sinceMs: out.nowMs });
    return (result) => {
      if (this.#open.delete(id)) out.emit({ kind: 'commandDone', id, result });
    };
  }

  onTick(): void {
    if (this.#open.size === 0) return;
    const { out } = this.#core;
    for (const [id, { kind, sinceMs }] of [...this.#open]) {
      if (out.nowMs - sinceMs <= answerWithinMs) continue;
      this.#open.delete(id);
      const reason = `${kind} is not done after ${answerWithinMs / 1000} s: it waits for ${this.#awaited()}`;
      out.emit({
        kind: 'commandDone',
        id,
        result: refuse('busy', reason, 'it may still be carried out: look at the status before trying again'),
      });
      // The caller wants to leave; the next start recovers as after a crash.
      if (kind === 'stop') out.emit({ kind: 'stopped' });
    }
  }

  #awaited(): string {
    const { meta, disk, disks } = this.#core;
    if (!meta.isIdle) return 'the metadata store';
    if (!disk.isIdle || disks.isOpening) return 'the backing device';
    return 'the peer, or for requests of clients';
  }
}
