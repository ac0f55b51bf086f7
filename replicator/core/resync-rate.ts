/**
 * How much of the link and the disks a resync may use: all of it while no client is active, and beside clients as much as
 * leaves their latency at most about doubled. Pure: a tick in, a limit out; resync-pace.ts connects it to the core.
 *
 * What is compared is the latency of this node's clients now with a baseline without resync. The baseline is learnt
 * while the pair mirrors and nothing is resynced, and anew in short pauses of the resync (as BBR drains the pipe to see
 * its round-trip time): clients that change what they do change the baseline, and the resync must not pay for that, nor
 * they for it. Between the two thresholds the limit stays; above it shrinks by a factor, below it grows by steps.
 *
 * Two gears. A rate makes pauses between the requests: it begins so, with one that is moderate. Where the rate is not what
 * holds it back, the window of bytes in flight bounds how long a client's request can queue behind the resync's. Somewhat
 * too high a rate costs the slowest requests several times what they took, so that it comes near the rate that was too
 * much the last time by small steps only.
 */

export const clientKinds = ['write', 'read', 'flush'] as const;
export type ClientKind = (typeof clientKinds)[number];

/** Of each kind what most requests take, and what the slowest do: a resync that comes in bursts shows in those alone. */
export const latencyKinds = [...clientKinds, 'slowWrite', 'slowRead', 'slowFlush'] as const;
export type LatencyKind = (typeof latencyKinds)[number];

/**
 * Milliseconds a client's requests took since the last tick, by kind; null where none ended or waited. The slow ones:
 * the 99th percentile.
 */
export type ClientLatency = Readonly<Record<LatencyKind, number | null>>;

export const noLatency: ClientLatency = {
  write: null,
  read: null,
  flush: null,
  slowWrite: null,
  slowRead: null,
  slowFlush: null,
};

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
/** The same for the slowest requests, of which chance has a larger share. */
const slowestTooSlow = 2;
const slowestFastEnough = 1.5;
/** The median of so many ticks counts, of the slowest requests more; and of no fewer than half of them. */
const recentTicks = 5;
const recentTicksSlowest = 7;
/** Clients count as active this long after their last request. */
const activeMs = 2_000;
const baselineValidMs = 10_000;
/** Of a baseline that is in doubt: on a busy machine clients may be slow without a resync just now. */
const doubtedValidMs = 1_500;
/** What is left of a rate that is in doubt. */
const doubtedFactor = 0.75;
/** A change of the limit takes this long to show: what is in flight has to drain first. */
const settleTicks = 2;
const measureTicks = 4;
const measureTicksMax = 10;
/** A latency older than this says nothing of the present limit. */
const freshTicks = 5;
const windowFloorBytes = 64 * 1024;
const windowStepBytes = 64 * 1024;
const rateStep = 256 * 1024;
/** The rate grows by one part in so many per tick; near what was too much, slowly. */
const growth = 16;
const growthNearLimit = 100;
/** Of the rate that was too much: near. */
const nearLimit = 0.8;
/** A window that has to shrink to less than this is left for a rate at once. */
const farOff = 0.5;
/** Bytes per second to begin with beside clients: half a second of all that can be had is too much. */
const firstRate = 32 * 1024 * 1024;
/** Below this, milliseconds are the noise of schedulers: a processor that has to wake up, or has not. */
const baselineFloorMs = 0.07;

interface KindState {
  readonly isSlow: boolean;
  baselineMs: number | null;
  /** With the present limit, the newest last. One tick that is slow by chance does not move their median. */
  recentMs: number[];
  age: number;
}

function newKind(isSlow: boolean): KindState {
  return { isSlow, baselineMs: null, recentMs: [], age: 0 };
}

export class ResyncRate {
  readonly #kinds: Readonly<Record<LatencyKind, KindState>> = {
    write: newKind(false),
    read: newKind(false),
    flush: newKind(false),
    slowWrite: newKind(true),
    slowRead: newKind(true),
    slowFlush: newKind(true),
  };
  /** Beside clients, as learnt so far; null before anything was. */
  #windowBytes: number | null = null;
  /** Of the lower gear; null in the upper one. */
  #bytesPerSecond: number | null = firstRate;
  /** The rate that was too much the last time; null when it is not known any more. */
  #tooMuch: number | null = null;
  #movedPerSecond = 0;
  #lastClientsMs = -Infinity;
  #learntMs = -Infinity;
  /** Ticks since the resync stood back to measure; null when it does not. */
  #measuring: { ticks: number; samples: number } | null = null;
  /** The rate before it yielded, while clients have been slow ever since; null when they are not. */
  #beforeYielding: number | null = null;
  /** What requests took when that was doubted to be the resync's doing. */
  #doubted: ReadonlyMap<LatencyKind, number> | null = null;
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
    if (this.#measuring === null) this.#adapt(tick, bounds);
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
    this.#forgetRecent();
    if (this.#settling > 0) this.#settling--;
    else if (this.#learnFrom(tick.latency, 0.1)) this.#learntMs = tick.nowMs;
  }

  #learnFrom(latency: ClientLatency, weight: number): boolean {
    let learnt = false;
    for (const kind of latencyKinds) {
      const sampleMs = latency[kind];
      if (sampleMs === null) continue;
      const state = this.#kinds[kind];
      // One request that waited for something else (a lost peer) must not stand for all.
      const boundedMs = state.baselineMs === null ? sampleMs : Math.min(sampleMs, 4 * state.baselineMs);
      // Too low a baseline costs the resync a little, too high a one the clients a lot.
      const isFaster = state.baselineMs !== null && boundedMs < state.baselineMs;
      const blended = state.isSlow
        ? blendFactors(state.baselineMs, boundedMs, weight / 2)
        : blend(state.baselineMs, boundedMs, isFaster ? Math.min(1, 1.6 * weight) : weight);
      state.baselineMs = Math.max(baselineFloorMs, blended);
      learnt = true;
    }
    return learnt;
  }

  #observe(tick: RateTick): void {
    if (tick.passedMs > 0)
      this.#movedPerSecond = blend(this.#movedPerSecond, (tick.movedBytes * 1000) / tick.passedMs, 0.3);
    for (const kind of latencyKinds) {
      const state = this.#kinds[kind];
      const sampleMs = tick.latency[kind];
      state.age++;
      if (sampleMs === null) continue;
      state.age = 0;
      state.recentMs.push(sampleMs);
      if (state.recentMs.length > ticksOf(state)) state.recentMs.shift();
      const { baselineMs } = state;
      const presentMs = presentOf(state);
      // Faster beside the resync than what was learnt without: that was too slow.
      if (baselineMs !== null && presentMs !== null && presentMs < baselineMs)
        state.baselineMs = Math.max(baselineFloorMs, blend(baselineMs, presentMs, 0.2));
    }
  }

  /** What they say is of another limit. */
  #forgetRecent(): void {
    for (const kind of latencyKinds) this.#kinds[kind].recentMs = [];
  }

  /** Whether it has to go on. */
  #measure(tick: RateTick, measuring: { ticks: number; samples: number }): boolean {
    measuring.ticks++;
    if (measuring.ticks > settleTicks && this.#learnFrom(tick.latency, 0.5)) measuring.samples++;
    if (measuring.samples < measureTicks && measuring.ticks < measureTicksMax) return true;
    this.#measuring = null;
    this.#learntMs = tick.nowMs;
    this.#settling = settleTicks;
    this.#endDoubt();
    return false;
  }

  /** What requests took is what they take without the resync as well: it has yielded for nothing. */
  #endDoubt(): void {
    const doubted = this.#doubted;
    this.#doubted = null;
    if (doubted === null || this.#bytesPerSecond === null) return;
    if ((this.#slowdown(false, doubted) ?? 0) > tooSlow) return;
    if ((this.#slowdown(true, doubted) ?? 0) > slowestTooSlow) return;
    this.#bytesPerSecond = Math.max(this.#bytesPerSecond, this.#beforeYielding ?? 0);
    this.#beforeYielding = null;
    this.#tooMuch = null;
  }

  #adapt(tick: RateTick, bounds: RateBounds): void {
    if (this.#settling > 0) {
      this.#settling--;
      return this.#forgetRecent();
    }
    const slowdown = this.#slowdown(false);
    const ofSlowest = this.#slowdown(true) ?? 0;
    if (slowdown === null) return;
    const isSlow = slowdown > tooSlow;
    if (isSlow || ofSlowest > slowestTooSlow) {
      const isInDoubt = !isSlow || this.#beforeYielding !== null;
      this.#beforeYielding ??= this.#bytesPerSecond;
      if (isInDoubt && tick.nowMs - this.#learntMs > doubtedValidMs) {
        this.#measuring = { ticks: 0, samples: 0 };
        this.#doubted = this.#present();
        if (this.#bytesPerSecond !== null) this.#setRate(bounds, doubtedFactor * this.#bytesPerSecond);
        return;
      }
      const factor = isSlow ? Math.max(0.25, Math.min(0.85, 1.5 / slowdown)) : Math.max(0.5, 1.6 / ofSlowest);
      this.#shrink(bounds, factor);
      this.#settling = settleTicks;
    } else if (slowdown < fastEnough && ofSlowest < slowestFastEnough) {
      this.#beforeYielding = null;
      this.#grow(bounds);
    }
  }

  #present(): ReadonlyMap<LatencyKind, number> {
    const present = new Map<LatencyKind, number>();
    for (const kind of latencyKinds) {
      const state = this.#kinds[kind];
      const presentMs = presentOf(state);
      if (presentMs !== null && state.age < freshTicks) present.set(kind, presentMs);
    }
    return present;
  }

  /** The worst of the kinds in use; null when none can be compared. */
  #slowdown(isSlow: boolean, present = this.#present()): number | null {
    let worst: number | null = null;
    for (const [kind, presentMs] of present) {
      const state = this.#kinds[kind];
      if (state.isSlow !== isSlow || state.baselineMs === null) continue;
      worst = Math.max(worst ?? 0, presentMs / state.baselineMs);
    }
    return worst;
  }

  #shrink(bounds: RateBounds, factor: number): void {
    const windowBytes = this.#window(bounds);
    // It is the window that holds it back, or the link.
    if (this.#bytesPerSecond !== null && this.#isRateIdle(this.#bytesPerSecond)) this.#bytesPerSecond = null;
    if (this.#bytesPerSecond !== null) {
      this.#tooMuch = this.#bytesPerSecond;
      this.#setRate(bounds, this.#bytesPerSecond * factor);
    } else if (windowBytes > floorOf(bounds) && factor > farOff) this.#windowBytes = windowBytes * factor;
    else {
      this.#windowBytes = floorOf(bounds);
      this.#setRate(bounds, this.#movedPerSecond * factor);
    }
  }

  #setRate(bounds: RateBounds, bytesPerSecond: number): void {
    this.#bytesPerSecond = Math.max(rateMinOf(bounds), bytesPerSecond);
  }

  #grow(bounds: RateBounds): void {
    if (this.#bytesPerSecond === null) this.#windowBytes = this.#window(bounds) + windowStepBytes;
    else if (this.#isRateIdle(this.#bytesPerSecond)) {
      // The rate no longer holds anything back: the smallest window does.
      this.#bytesPerSecond = null;
      this.#tooMuch = null;
    } else {
      const rate = this.#bytesPerSecond;
      if (this.#tooMuch !== null && rate > this.#tooMuch) this.#tooMuch = null;
      const isNear = this.#tooMuch !== null && rate > nearLimit * this.#tooMuch;
      this.#bytesPerSecond = rate + Math.max(rateStep, rate / (isNear ? growthNearLimit : growth));
    }
  }

  #isRateIdle(bytesPerSecond: number): boolean {
    return this.#movedPerSecond < bytesPerSecond / 2;
  }

  #window(bounds: RateBounds): number {
    const windowBytes = this.#windowBytes ?? bounds.resyncWindowBusyBytes;
    return Math.min(bounds.resyncWindowBytes, Math.max(floorOf(bounds), windowBytes));
  }

  #besideClients(bounds: RateBounds): RateLimit {
    const { resyncRateMax } = bounds;
    const rate = this.#bytesPerSecond;
    const windowBytes = rate === null ? Math.floor(this.#window(bounds)) : floorOf(bounds);
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

/** As a geometric mean: the 99th percentile of a tick is now and then several times the usual one. */
function blendFactors(before: number | null, sample: number, weight: number): number {
  return before === null ? sample : before * (sample / before) ** weight;
}

function ticksOf({ isSlow }: KindState): number {
  return isSlow ? recentTicksSlowest : recentTicks;
}

/** The median of the newest ticks; null when they are too few. */
function presentOf(state: KindState): number | null {
  const { recentMs } = state;
  if (recentMs.length < ticksOf(state) / 2) return null;
  return recentMs.toSorted((a, b) => a - b)[Math.floor((recentMs.length - 1) / 2)] ?? null;
}

function blend(before: number | null, sample: number, weight: number): number {
  return before === null ? sample : before + weight * (sample - before);
}
