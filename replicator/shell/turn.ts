/**
 * When what one turn of the event loop has collected leaves for the peer and the disk. With one client that is right after its
 * socket was read: all it had to say is in one chunk. Many clients bring one request each, and a packet per request was sent,
 * received and answered by itself, at twice the cost: what they bring is taken together, once every socket has been read.
 */
export class Turn {
  #clients = 0;

  setClientCount(count: number): void {
    this.#clients = count;
  }

  /** Runs `then` at the end of the turn, before the event loop sleeps. Never before this returns. */
  atEnd(then: () => void): void {
    if (this.#clients > 1) setImmediate(then);
    else process.nextTick(then);
  }
}
