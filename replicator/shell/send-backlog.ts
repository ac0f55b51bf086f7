/**
 * Under protocol A a write is answered before the network has taken it. So that a slow peer slows the writer, instead of
 * filling memory with what it is to get, answers wait while more than so much is still to be taken. That is the shell's business:
 * an answer may always be late.
 */

/** A fraction of a second for a link of 1 Gbit/s. */
const backlogBytesMax = 8 * 1024 * 1024;

export class SendBacklog {
  readonly #waitingBytes: () => number;
  #held: (() => void)[] = [];

  /** `waitingBytes`: what the network has not taken yet; 0 without a session. */
  constructor(waitingBytes: () => number) {
    this.#waitingBytes = waitingBytes;
  }

  /** Now, or in the order of the calls when the network has caught up. */
  answer(answer: () => void): void {
    if (this.#held.length === 0 && this.#waitingBytes() <= backlogBytesMax) return answer();
    this.#held.push(answer);
  }

  /** The network may have taken some of it, or the session is over. */
  release(): void {
    if (this.#held.length === 0 || this.#waitingBytes() > backlogBytesMax) return;
    const held = this.#held;
    this.#held = [];
    for (const answer of held) answer();
  }
}
