/**
 * How much of the link and the disks a resync may use: all of it while no client is active, and beside clients as much as
 * leaves their latency at most about doubled. Pure: a tick in, a limit out; resync-pace.ts connects it to the core.
 *
 * What is compared is the latency of this node's clients now with a baseline without resync. The baseline is learnt
 * while the pair mirrors and nothing is resynced, and anew in short pauses of the resync (as BBR drains the pipe to see
 * its round-trip time): clients that change what they do change the baseline, and the resync must not pay for that, nor
 * they for it. Between the two thresholds the limit stays; above it shrinks by a factor, below it grows by steps.
 *
 * Two gears. The window of bytes in flight bounds how long a client's request can queue behind the resync's. Where even
 * the smallest window is too much (a fast link, a busy processor), a rate makes pauses between the requests.
 */

export const clientKinds = ['write', 'read', 'flush'] as const;
export type ClientKind = (typeof clientKinds)[number];

/** Milliseconds a client's requests took since the last tick, by kind; null where none ended or waited. */
export type ClientLatency = Readonly<Record<ClientKind, number | null>>;

export const noLatency: ClientLatency = { write: null, read: null, flush: null };

export const limitReasons = ['idle', 'clients', 'minimum', 'limit', 'measuring'] as const;
/**
 * idle: nothing holds it back. clients: it yields to them. minimum: it yields, as far as `resyncRateMin` lets it.
 * limit: `resyncRateMax`. measuring: it stands back for a moment, to learn what clients' requests take without it.
 */
export type LimitReason = (typeof limitReasons)[number];

export interface RateLimit {
  /** Bytes in flight. */
  readonly windowBytes: number;
  /** Null: as fast as the window allows. */
  readonly bytesPerSecond: number | null;
  readonly reason: LimitReason;
}

/** Policies, see options.ts. */
export interface RateBounds {
  readonly resyncWindowBytes: number;
  readonly resyncWindowBusyBytes: number;
  readonly resyncRateMin: number;
  readonly resyncRateMax: number;
}

export interface RateTick {
  readonly nowMs: number;
  /** Since the last tick. */
  readonly passedMs: number;
  /** apart: not mirroring, so that latencies say nothing. resync: one runs and is not paused. */
  readonly phase: 'apart' | 'mirroring' | 'resync';
  /** Bytes of resync data that were moved since the last tick. */
  readonly movedBytes: number;
  /** Clients of this node have asked for something since the last tick, or wait for an answer. */
  readonly hasClients: boolean;
  readonly latency: ClientLatency;
}

/** Latency against the baseline: above the one the resync yields, below the other it takes more. */
const tooSlow = 1.7;
const fastEnough = 1.35;
/** What is slower than this counts as this: one slow tick alone is chance, and changes nothing. */
const outlier = 3;
/** Clients count as active this long after their last request. */
const activeMs = 2_000;
const baselineValidMs = 10_000;
/** A change of the limit takes this long to show: what is in flight has to drain first. */
const settleTicks = 2;
const measureTicks = 2;
const measureTicksMax = 10;
/** A latency older than this says nothing of the present limit. */
const freshTicks = 5;
const windowFloorBytes = 64 * 1024;
const windowStepBytes = 64 * 1024;
const rateStep = 256 * 1024;
/** Below this, milliseconds are the noise of clocks and schedulers. */
const baselineFloorMs = 0.02;

interface KindState {
  baselineMs: number | null;
  smoothedMs: number | null;
  age: number;
}

export class ResyncRate {
  readonly #kinds: Readonly<Record<ClientKind, KindState>> = {
    write: { baselineMs: null, smoothedMs: null, age: 0 },
    read: { baselineMs: null, smoothedMs: null, age: 0 },
    flush: { baselineMs: null, smoothedMs: null, age: 0 },
  };
  /** Beside clients, as learnt so far; null before anything was. */
  #windowBytes: number | null = null;
  /** Of the lower gear; null in the upper one. */
  #bytesPerSecond: number | null = null;
  #movedPerSecond = 0;
  #lastClientsMs = -Infinity;
  #learntMs = -Infinity;
  /** Ticks since the resync stood back to measure; null when it does not. */
  #measuring: { ticks: number; samples: number } | null = null;
  /** Ticks during which the last change has yet to show. */
  #settling = 0;

  tick(tick: RateTick, bounds: RateBounds): RateLimit {
    if (tick.hasClients) this.#lastClientsMs = tick.nowMs;
    if (tick.phase !== 'resync') {
      this.#learn(tick);
      // What a resync that is about to begin may take.
      return this.#isAlone(tick) ? unhindered(bounds) : this.#besideClients(bounds);
    }
    this.#observe(tick);
    if (this.#isAlone(tick)) {
      this.#measuring = null;
      return unhindered(bounds);
    }
    if (this.#measuring === null && tick.nowMs - this.#learntMs > baselineValidMs)
      this.#measuring = { ticks: 0, samples: 0 };
    if (this.#measuring !== null && this.#measure(tick, this.#measuring))
      return { windowBytes: floorOf(bounds), bytesPerSecond: rateMinOf(bounds), reason: 'measuring' };
    this.#adapt(bounds);
    return this.#besideClients(bounds);
  }

  #isAlone(tick: RateTick): boolean {
    return tick.nowMs - this.#lastClientsMs > activeMs;
  }

  /** Without a resync. What is left of one takes a moment to drain. */
  #learn(tick: RateTick): void {
    if (tick.phase === 'apart') this.#settling = settleTicks;
    this.#measuring = null;
    this.#movedPerSecond = 0;
    for (const kind of clientKinds) this.#kinds[kind].smoothedMs = null;
    if (this.#settling > 0) this.#settling--;
    else if (this.#learnFrom(tick.latency, 0.1)) this.#learntMs = tick.nowMs;
  }

  #learnFrom(latency: ClientLatency, weight: number): boolean {
    let learnt = false;
    for (const kind of clientKinds) {
      const sampleMs = latency[kind];
      if (sampleMs === null) continue;
      const state = this.#kinds[kind];
      // One request that waited for something else (a lost peer) must not stand for all.
      const boundedMs = state.baselineMs === null ? sampleMs : Math.min(sampleMs, 4 * state.baselineMs);
      // Too low a baseline costs the resync a little, too high a one the clients a lot.
      const isFaster = state.baselineMs !== null && boundedMs < state.baselineMs;
      const blended = blend(state.baselineMs, boundedMs, isFaster ? Math.min(1, 1.6 * weight) : weight);
      state.baselineMs = Math.max(baselineFloorMs, blended);
      learnt = true;
    }
    return learnt;
  }

  #observe(tick: RateTick): void {
    if (tick.passedMs > 0)
      this.#movedPerSecond = blend(this.#movedPerSecond, (tick.movedBytes * 1000) / tick.passedMs, 0.3);
    for (const kind of clientKinds) {
      const state = this.#kinds[kind];
      const sampleMs = tick.latency[kind];
      state.age++;
      if (sampleMs === null) continue;
      state.age = 0;
      const { baselineMs } = state;
      state.smoothedMs = blend(
        state.smoothedMs,
        baselineMs === null ? sampleMs : Math.min(sampleMs, outlier * baselineMs),
        0.3,
      );
      // Faster beside the resync than what was learnt without: that was too slow.
      if (baselineMs !== null && state.smoothedMs < baselineMs)
        state.baselineMs = Math.max(baselineFloorMs, blend(baselineMs, state.smoothedMs, 0.2));
    }
  }

  /** Whether it has to go on. */
  #measure(tick: RateTick, measuring: { ticks: number; samples: number }): boolean {
    measuring.ticks++;
    if (measuring.ticks > settleTicks && this.#learnFrom(tick.latency, 0.5)) measuring.samples++;
    if (measuring.samples < measureTicks && measuring.ticks < measureTicksMax) return true;
    this.#measuring = null;
    this.#learntMs = tick.nowMs;
    this.#settling = settleTicks;
    for (const kind of clientKinds) this.#kinds[kind].smoothedMs = null;
    return false;
  }

  #adapt(bounds: RateBounds): void {
    if (this.#settling > 0) {
      this.#settling--;
      return;
    }
    const slowdown = this.#slowdown();
    if (slowdown === null) return;
    if (slowdown > tooSlow) {
      this.#shrink(bounds, Math.max(0.35, Math.min(0.85, 1.5 / slowdown)));
      this.#settling = settleTicks;
    } else if (slowdown < fastEnough) this.#grow(bounds);
  }

  /** The worst of the kinds in use; null when none can be compared. */
  #slowdown(): number | null {
    let worst: number | null = null;
    for (const { baselineMs, smoothedMs, age } of Object.values(this.#kinds)) {
      if (baselineMs === null || smoothedMs === null || age >= freshTicks) continue;
      worst = Math.max(worst ?? 0, smoothedMs / baselineMs);
    }
    return worst;
  }

  #shrink(bounds: RateBounds, factor: number): void {
    const windowBytes = this.#window(bounds);
    if (this.#bytesPerSecond !== null) this.#bytesPerSecond *= factor;
    else if (windowBytes > floorOf(bounds)) this.#windowBytes = windowBytes * factor;
    else this.#bytesPerSecond = this.#movedPerSecond * factor;
    if (this.#bytesPerSecond !== null)
      this.#bytesPerSecond = Math.max(rateMinOf(bounds), this.#bytesPerSecond);
  }

  #grow(bounds: RateBounds): void {
    if (this.#bytesPerSecond === null) this.#windowBytes = this.#window(bounds) + windowStepBytes;
    else if (this.#movedPerSecond < this.#bytesPerSecond / 2) {
      // The rate no longer holds anything back: the smallest window does.
      this.#bytesPerSecond = null;
      this.#windowBytes = floorOf(bounds);
    } else this.#bytesPerSecond += Math.max(rateStep, this.#bytesPerSecond / 6);
  }

  #window(bounds: RateBounds): number {
    const windowBytes = this.#windowBytes ?? bounds.resyncWindowBusyBytes;
    return Math.min(bounds.resyncWindowBytes, Math.max(floorOf(bounds), windowBytes));
  }

  #besideClients(bounds: RateBounds): RateLimit {
    const windowBytes = Math.floor(this.#window(bounds));
    const { resyncRateMax } = bounds;
    const rate = this.#bytesPerSecond;
    if (resyncRateMax > 0 && (rate ?? this.#movedPerSecond * 1.1) >= resyncRateMax)
      return { windowBytes, bytesPerSecond: resyncRateMax, reason: 'limit' };
    if (rate === null)
      return { windowBytes, bytesPerSecond: resyncRateMax > 0 ? resyncRateMax : null, reason: 'clients' };
    const reason = rate <= rateMinOf(bounds) ? 'minimum' : 'clients';
    return { windowBytes, bytesPerSecond: Math.round(rate), reason };
  }
}

/** What a node without clients of its own grants. */
export function unhindered(bounds: RateBounds): RateLimit {
  const { resyncWindowBytes, resyncRateMax } = bounds;
  return resyncRateMax > 0
    ? { windowBytes: resyncWindowBytes, bytesPerSecond: resyncRateMax, reason: 'limit' }
    : { windowBytes: resyncWindowBytes, bytesPerSecond: null, reason: 'idle' };
}

function floorOf(bounds: RateBounds): number {
  return Math.min(windowFloorBytes, bounds.resyncWindowBusyBytes, bounds.resyncWindowBytes);
}

function rateMinOf(bounds: RateBounds): number {
  const { resyncRateMin, resyncRateMax } = bounds;
  return resyncRateMax > 0 ? Math.min(resyncRateMin, resyncRateMax) : resyncRateMin;
}

function blend(before: number | null, sample: number, weight: number): number {
  return before === null ? sample : before + weight * (sample - before);
}
