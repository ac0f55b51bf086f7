/** Time as the link uses it, handed in so that tests decide when a deadline passes. */
export interface LinkClock {
  /** Monotonic milliseconds. */
  nowMs(): number;
  /** Calls `then` once after `ms`, unless the returned function is called before. */
  after(ms: number, then: () => void): () => void;
}

export const systemLinkClock: LinkClock = {
  nowMs: () => performance.now(),
  after(ms, then) {
    const timer = setTimeout(then, ms);
    return () => clearTimeout(timer);
  },
};
