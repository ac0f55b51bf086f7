/**
 * A resync that gets nowhere although the link is alive (a request or a flush that is never answered) is begun anew from
 * the bitmap. Every restart in a row waits twice as long for the next, so that what is broken for good keeps nobody busy.
 */
import type { Core } from './core.ts';

/** The wait for the next restart doubles this often at most. */
const doublingsMax = 4;
/** Ticks further apart than this: the process stood still, and a resync could not get on. */
const tickMsMax = 1_000;

export class ResyncWatchdog {
  readonly #core: Core;
  #stalledMs = 0;
  /** By this node, without a block proven in between. */
  #restarts = 0;
  /** Resyncs in a row that have proven no block; both nodes count the same ones, whoever began them anew. */
  #fruitless = 0;
  #isFruitless = false;

  constructor(core: Core) {
    this.#core = core;
  }

  onBegin(): void {
    this.#stalledMs = 0;
    this.#fruitless = this.#isFruitless ? this.#fruitless + 1 : 0;
    this.#isFruitless = true;
  }

  /** Something that was asked for has come. */
  onSign(): void {
    this.#stalledMs = 0;
  }

  /** Blocks are proven equal. */
  onProven(): void {
    this.#stalledMs = 0;
    this.#restarts = 0;
    this.#fruitless = 0;
    this.#isFruitless = false;
  }

  onTick(sinceLastMs: number): void {
    const core = this.#core;
    const { resync } = core;
    if (resync === null || core.pause.isPaused || core.pace.isThrottled || resync.isWaiting) {
      this.#stalledMs = 0;
      return;
    }
    this.#stalledMs += Math.min(sinceLastMs, tickMsMax);
    const patienceMs = core.options.resyncStallMs * 2 ** Math.min(this.#fruitless, doublingsMax);
    // The target knows best what it waits for; the source steps in where the target does not.
    const limitMs = resync.kind === 'target' ? patienceMs : 2 * (patienceMs + core.pace.pauseMs);
    if (this.#stalledMs < limitMs) return;
    this.#restarts++;
    const detail = `the resync has got nowhere for ${limitMs} ms`;
    const { blocks } = core.outOfSync;
    core.out.decide('resync', 'restarted', detail, { blocks, restarts: this.#restarts });
    core.out.log('warn', `${detail}: it begins anew from the bitmap (${blocks} blocks are left)`);
    core.session.restart(detail);
  }

  /** For the status; null when all is well. */
  describe(): string | null {
    if (this.#restarts === 0) return null;
    const times = this.#restarts === 1 ? 'once' : `${this.#restarts} times`;
    return `it got nowhere and was begun anew ${times}`;
  }
}
