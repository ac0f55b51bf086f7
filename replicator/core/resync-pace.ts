/**
 * What a resync may use, as both nodes have it: each says what it grants (the Primary, which knows its clients' latency,
 * by resync-rate.ts), and tells the other; the lower of the two holds. The target, which pulls, keeps to it.
 */
import type { Core } from './core.ts';
import type { ClientLatency, RateLimit } from './resync-rate.ts';
import { ResyncRate, unhindered } from './resync-rate.ts';
import type { SyncRate } from './status.ts';
import { blockBytes } from './vocabulary.ts';

const requestBytesMax = 1024 * 1024;
/** Beside clients, whose own requests come right behind one: it holds each node's thread up for a tenth of a millisecond. */
const busyRequestBytesMax = 128 * 1024;
/** Under a rate a request is what that earns in a millisecond, about as often as a timer fires; and no less than this. */
const pacedRequestBytesMin = 16 * 1024;
/** Unused rate is kept for this long: what is made up for at once is what clients wait behind. */
const allowanceMs = 10;

export class ResyncPace {
  readonly #core: Core;
  readonly #rate = new ResyncRate();
  #own: RateLimit | null = null;
  #peer: RateLimit | null = null;
  /** In this session. */
  #sent: RateLimit | null = null;
  /** Resync data since the last tick. */
  #movedBytes = 0;
  #requestsSeen = 0;
  /** What may still be asked for under a rate; below zero when the last request was more than that. */
  #allowanceBytes = 0;
  /** Up to then the rate is earned. */
  #earnedMs = 0;
  /** `wakeResync` is asked for and not answered. */
  #waking = false;

  constructor(core: Core) {
    this.#core = core;
  }

  onTick(sinceLastMs: number, latency: ClientLatency): void {
    const core = this.#core;
    const requests = core.io.reads + core.io.writes + core.io.flushes;
    const isUsed = requests !== this.#requestsSeen || !core.writes.isIdle;
    this.#own = this.#rate.tick(
      {
        nowMs: core.out.nowMs,
        passedMs: sinceLastMs,
        phase: this.#phase(),
        movedBytes: this.#movedBytes,
        hasClients: core.role === 'Primary' && isUsed,
        latency,
      },
      core.options,
    );
    this.#requestsSeen = requests;
    this.#movedBytes = 0;
    this.#earn(core.out.nowMs);
    if (core.resync !== null) this.announce();
  }

  #phase(): 'apart' | 'mirroring' | 'resync' {
    const core = this.#core;
    if (core.resync !== null) return core.pause.isPaused ? 'mirroring' : 'resync';
    return core.isMirroring ? 'mirroring' : 'apart';
  }

  #earn(nowMs: number): void {
    const passedMs = Math.max(0, nowMs - this.#earnedMs);
    this.#earnedMs = nowMs;
    const { bytesPerSecond } = this.#limit();
    if (bytesPerSecond === null) {
      this.#allowanceBytes = 0;
      return;
    }
    const most = (bytesPerSecond * allowanceMs) / 1000;
    this.#allowanceBytes = Math.min(most, this.#allowanceBytes + (bytesPerSecond * passedMs) / 1000);
  }

  /** For the target, held back by the rate: in ticks alone a tenth of a second's worth would be asked for at once. */
  wakeWhenAllowed(): void {
    const { bytesPerSecond } = this.#limit();
    if (this.#waking || bytesPerSecond === null) return;
    this.#waking = true;
    const dueMs = Math.ceil((1000 * -this.#allowanceBytes) / bytesPerSecond);
    this.#core.out.emit({ kind: 'wakeResync', afterMs: Math.max(1, dueMs) });
  }

  onWoken(nowMs: number): void {
    this.#waking = false;
    this.#earn(nowMs);
  }

  /** Tells the peer what this node grants, when that is news. */
  announce(): void {
    const own = this.#ownLimit();
    if (this.#sent !== null && isSame(this.#sent, own)) return;
    this.#sent = own;
    this.#core.send({ kind: 'resyncLimit', ...own });
  }

  onPeerLimit(limit: RateLimit): void {
    this.#peer = limit;
  }

  onSessionBegun(): void {
    this.#peer = null;
    this.#sent = null;
    this.#allowanceBytes = 0;
  }

  /** Resync data was sent, or has arrived. */
  onMoved(bytes: number): void {
    this.#movedBytes += bytes;
  }

  // For the target.

  /** Bytes that may be in flight. */
  get windowBytes(): number {
    return this.#limit().windowBytes;
  }

  /** A rate holds back the next request. */
  get isThrottled(): boolean {
    return this.#limit().bytesPerSecond !== null && this.#allowanceBytes <= 0;
  }

  /** Size of one request: not so small that the resync costs the processor much more by its number of requests. */
  get requestBlocks(): number {
    const { windowBytes, bytesPerSecond, reason } = this.#limit();
    const share =
      bytesPerSecond === null ? windowBytes / 4 : Math.max(pacedRequestBytesMin, bytesPerSecond / 1000);
    const bytes = Math.min(share, reason === 'idle' ? requestBytesMax : busyRequestBytesMax);
    return Math.max(1, Math.floor(bytes / blockBytes));
  }

  /** What the rate leaves between two requests. */
  get pauseMs(): number {
    const { bytesPerSecond } = this.#limit();
    return bytesPerSecond === null ? 0 : (this.requestBlocks * blockBytes * 1000) / bytesPerSecond;
  }

  onRequested(bytes: number): void {
    if (this.#limit().bytesPerSecond !== null) this.#allowanceBytes -= bytes;
  }

  /** What was asked for travelled as a hole: next to nothing. */
  onHole(bytes: number): void {
    if (this.#limit().bytesPerSecond !== null) this.#allowanceBytes += bytes;
  }

  report(): SyncRate {
    const { bytesPerSecond, reason } = this.#limit();
    return { bytesPerSecond, reason: this.#core.pause.isPaused ? 'paused' : reason };
  }

  #ownLimit(): RateLimit {
    return this.#own ?? unhindered(this.#core.options);
  }

  #limit(): RateLimit {
    const own = this.#ownLimit();
    const peer = this.#peer;
    if (peer === null) return own;
    const ownRate = own.bytesPerSecond ?? Infinity;
    const peerRate = peer.bytesPerSecond ?? Infinity;
    const isPeerLower = peerRate < ownRate || (peerRate === ownRate && peer.windowBytes < own.windowBytes);
    return {
      windowBytes: Math.min(own.windowBytes, peer.windowBytes),
      bytesPerSecond: isPeerLower ? peer.bytesPerSecond : own.bytesPerSecond,
      reason: isPeerLower ? peer.reason : own.reason,
    };
  }
}

function isSame(a: RateLimit, b: RateLimit): boolean {
  return a.windowBytes === b.windowBytes && a.bytesPerSecond === b.bytesPerSecond && a.reason === b.reason;
}
