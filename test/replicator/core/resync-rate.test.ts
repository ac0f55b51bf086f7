/** The rate controller on a simulated link: what it makes of an idle one, and of one that clients use. */
import test from 'ava';
import type { ClientLatency, RateBounds, RateLimit } from '../../../replicator/core/resync-rate.ts';
import { noLatency, ResyncRate } from '../../../replicator/core/resync-rate.ts';

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;
const bounds: RateBounds = {
  resyncWindowBytes: 8 * mebibyte,
  resyncWindowBusyBytes: 256 * kibibyte,
  resyncRateMin: 250 * kibibyte,
  resyncRateMax: 0,
};

interface Link {
  bytesPerSecond: number;
  /** What a client's write takes without resync; null: no client. */
  clientMs: number | null;
  /** Without a resync request in its way a client's write takes `clientMs`; behind one, the whole window's time more. */
  jitter?: (tick: number) => number;
}

/** A FIFO link: a client's write waits for the resync data in flight before it, for as much of the time as some is. */
class SimulatedResync {
  readonly #rate = new ResyncRate();
  readonly link: Link;
  readonly #bounds: RateBounds;
  limit: RateLimit = { windowBytes: 0, bytesPerSecond: 0, reason: 'minimum' };
  #moved = 0;
  #ticks = 0;
  movedBytes = 0;
  #latencies: number[] = [];
  readonly reasons = new Map<string, number>();

  constructor(link: Link, more: Partial<RateBounds> = {}) {
    this.link = link;
    this.#bounds = { ...bounds, ...more };
  }

  run(seconds: number, phase: 'mirroring' | 'resync' = 'resync'): { ratio: number; bytesPerSecond: number } {
    this.movedBytes = 0;
    this.#latencies = [];
    for (let i = 0; i < seconds * 10; i++) this.#step(phase);
    const { length } = this.#latencies;
    const meanMs = this.#latencies.reduce((sum, ms) => sum + ms, 0) / Math.max(1, length);
    return { ratio: meanMs / (this.link.clientMs ?? 1), bytesPerSecond: this.movedBytes / seconds };
  }

  #step(phase: 'mirroring' | 'resync'): void {
    const { link, limit } = this;
    const running = phase === 'resync' && this.#ticks > 0;
    // Round trip of 0.5 ms: a small window does not fill the link.
    const perWindowMs = 0.5 + (limit.windowBytes * 1000) / link.bytesPerSecond;
    const unlimited = Math.min(link.bytesPerSecond, (limit.windowBytes * 1000) / perWindowMs);
    const perSecond = running ? Math.min(unlimited, limit.bytesPerSecond ?? Infinity) : 0;
    this.#moved = perSecond / 10;
    this.movedBytes += this.#moved;
    const busy = unlimited === 0 ? 0 : perSecond / unlimited;
    const queuedMs = busy * ((limit.windowBytes * 1000) / link.bytesPerSecond);
    const jitter = link.jitter?.(this.#ticks) ?? 1;
    const writeMs = link.clientMs === null ? null : (link.clientMs + queuedMs) * jitter;
    if (writeMs !== null) this.#latencies.push(writeMs);
    const latency: ClientLatency = { ...noLatency, write: writeMs };
    this.limit = this.#rate.tick(
      {
        nowMs: this.#ticks * 100,
        passedMs: 100,
        phase,
        movedBytes: this.#moved,
        hasClients: writeMs !== null,
        latency,
      },
      this.#bounds,
    );
    this.reasons.set(this.limit.reason, (this.reasons.get(this.limit.reason) ?? 0) + 1);
    this.#ticks++;
  }
}

test('an idle link is used in full, from the first tick', (t) => {
  const resync = new SimulatedResync({ bytesPerSecond: 100 * mebibyte, clientMs: null });
  const { bytesPerSecond } = resync.run(10);
  t.true(bytesPerSecond > 95 * mebibyte);
  t.deepEqual(resync.limit, { windowBytes: 8 * mebibyte, bytesPerSecond: null, reason: 'idle' });
  t.deepEqual([...resync.reasons.keys()], ['idle']);
});

for (const [what, bytesPerSecond, clientMs] of [
  ['a gigabit link, writes of 1 ms', 110 * mebibyte, 1],
  ['a gigabit link, writes of 0.2 ms', 110 * mebibyte, 0.2],
  ['a slow disk, writes of 20 ms', 40 * mebibyte, 20],
  ['loopback, writes of 0.06 ms', 1500 * mebibyte, 0.06],
  ['a slow link, writes of 5 ms', 10 * mebibyte, 5],
] as const) {
  test(`beside clients their latency at most doubles, and the resync gets its share: ${what}`, (t) => {
    for (const learnt of [true, false]) {
      const resync = new SimulatedResync({ bytesPerSecond, clientMs });
      if (learnt) resync.run(10, 'mirroring');
      const begin = resync.run(5);
      t.true(begin.ratio < 3.5, `at first ${begin.ratio}`);
      const { ratio, bytesPerSecond: moved } = resync.run(60);
      t.true(ratio < 2, `ratio ${ratio}`);
      // With a link that its own time share is half of when latency doubles, a sixth is a fair part of that half.
      t.true(moved > Math.min(bytesPerSecond / 12, 40 * mebibyte), `moved ${moved}`);
      t.true((resync.reasons.get('measuring') ?? 0) < 45, 'it measures rarely');
    }
  });
}

test('it yields to requests of which only the slowest few are slow beside it', (t) => {
  const rate = new ResyncRate();
  let limit: RateLimit | null = null;
  const slowAbove = 20 * mebibyte;
  let slowTicks = 0;
  let moved = 0;
  for (let tick = 0; tick < 700; tick++) {
    const phase = tick < 100 ? 'mirroring' : 'resync';
    const perSecond = phase === 'mirroring' ? 0 : (limit?.bytesPerSecond ?? 500 * mebibyte);
    if (tick >= 150) moved += perSecond / 10;
    const isSlow = perSecond > slowAbove;
    if (tick >= 150 && isSlow) slowTicks++;
    const latency = { ...noLatency, write: 0.1, slowWrite: isSlow ? 3 : 0.4 };
    const nowMs = tick * 100;
    const of = {
      nowMs,
      passedMs: 100,
      phase,
      movedBytes: perSecond / 10,
      hasClients: true,
      latency,
    } as const;
    limit = rate.tick(of, bounds);
  }
  t.true(slowTicks < 550 / 3, `${slowTicks} of 550 ticks`);
  t.true(moved > (55 * slowAbove) / 3, `${moved}`);
});

test('requests that are slow whatever it does, as on a busy machine, do not bring it down to the minimum', (t) => {
  const rate = new ResyncRate();
  let limit: RateLimit | null = null;
  let moved = 0;
  for (let tick = 0; tick < 700; tick++) {
    const phase = tick < 100 ? 'mirroring' : 'resync';
    const perSecond = phase === 'mirroring' ? 0 : Math.min(limit?.bytesPerSecond ?? Infinity, 100 * mebibyte);
    if (tick >= 300) moved += perSecond / 10;
    // For three seconds of every six.
    const isBusy = tick % 60 < 30;
    const latency = { ...noLatency, write: isBusy ? 0.4 : 0.1, slowWrite: isBusy ? 4 : 0.5 };
    const nowMs = tick * 100;
    const of = {
      nowMs,
      passedMs: 100,
      phase,
      movedBytes: perSecond / 10,
      hasClients: true,
      latency,
    } as const;
    limit = rate.tick(of, bounds);
  }
  t.true(moved / 40 > 4 * mebibyte, `${moved / 40}`);
});

test('noise alone, with a slow tick now and then, does not bring it down to the minimum', (t) => {
  let state = 7;
  const jitter = (tick: number): number => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return tick % 13 === 0 ? 12 : 0.7 + (0.6 * state) / 2 ** 31;
  };
  const resync = new SimulatedResync({ bytesPerSecond: 110 * mebibyte, clientMs: 2, jitter });
  resync.run(10, 'mirroring');
  t.true(resync.run(60).bytesPerSecond > 20 * mebibyte);
});

test('clients that turn to slower requests do not stop it: the baseline is learnt anew', (t) => {
  const resync = new SimulatedResync({ bytesPerSecond: 110 * mebibyte, clientMs: 1 });
  resync.run(10, 'mirroring');
  resync.run(20);
  resync.link.clientMs = 8;
  resync.run(15);
  const { bytesPerSecond, ratio } = resync.run(30);
  t.true(bytesPerSecond > 40 * mebibyte, `${bytesPerSecond}`);
  t.true(ratio < 2, `${ratio}`);
});

test('clients that turn to faster requests are yielded to again', (t) => {
  const resync = new SimulatedResync({ bytesPerSecond: 110 * mebibyte, clientMs: 20 });
  resync.run(10, 'mirroring');
  resync.run(30);
  resync.link.clientMs = 0.5;
  resync.run(15);
  const { ratio } = resync.run(30);
  t.true(ratio < 2, `${ratio}`);
});

test('when clients fall silent it has the whole link within three seconds, and yields at once when they are back', (t) => {
  const resync = new SimulatedResync({ bytesPerSecond: 110 * mebibyte, clientMs: 0.2 });
  resync.run(10, 'mirroring');
  resync.run(20);
  resync.link.clientMs = null;
  resync.run(3);
  t.is(resync.limit.reason, 'idle');
  t.true(resync.run(10).bytesPerSecond > 100 * mebibyte);
  resync.link.clientMs = 0.2;
  resync.run(0.1);
  t.not(resync.limit.reason, 'idle');
  t.true(resync.limit.windowBytes <= 256 * kibibyte);
});

test('it never goes below its minimum, and says when it is there', (t) => {
  // Whatever it does, its clients are slow as soon as it moves anything.
  const resync = new ResyncRate();
  let limit: RateLimit | null = null;
  let moved = 0;
  for (let tick = 0; tick < 300; tick++) {
    const isAlone = tick < 100 || limit?.reason === 'measuring';
    const latency = { ...noLatency, write: isAlone ? 1 : 50 };
    const phase = tick < 100 ? 'mirroring' : 'resync';
    limit = resync.tick(
      { nowMs: tick * 100, passedMs: 100, phase, movedBytes: moved, hasClients: true, latency },
      bounds,
    );
    moved = Math.min(5 * mebibyte, (limit.bytesPerSecond ?? Infinity) / 10);
    t.true((limit.bytesPerSecond ?? Infinity) >= 250 * kibibyte);
    t.true(limit.windowBytes >= 64 * kibibyte);
  }
  t.is(limit?.bytesPerSecond, 250 * kibibyte);
  t.is(limit?.reason, 'minimum');
});

test('resyncRateMax holds whether clients are there or not', (t) => {
  for (const clientMs of [null, 20]) {
    const resync = new SimulatedResync(
      { bytesPerSecond: 110 * mebibyte, clientMs },
      { resyncRateMax: 5 * mebibyte },
    );
    const { bytesPerSecond } = resync.run(30);
    t.true(bytesPerSecond <= 5 * mebibyte * 1.01, `${bytesPerSecond}`);
    t.true(bytesPerSecond > 4 * mebibyte, `${bytesPerSecond}`);
    t.is(resync.limit.reason, 'limit');
  }
});

test('a lower maximum than the minimum is the maximum', (t) => {
  const resync = new SimulatedResync(
    { bytesPerSecond: 110 * mebibyte, clientMs: 0.2 },
    { resyncRateMax: 100 * kibibyte },
  );
  t.true(resync.run(30).bytesPerSecond <= 101 * kibibyte);
});

test('what requests take while the peer is away is no baseline', (t) => {
  const rate = new ResyncRate();
  const tick = (nowMs: number, phase: 'apart' | 'resync', write: number): RateLimit =>
    rate.tick(
      {
        nowMs,
        passedMs: 100,
        phase,
        movedBytes: mebibyte,
        hasClients: true,
        latency: { ...noLatency, write },
      },
      bounds,
    );
  for (let at = 0; at < 50; at++) tick(at * 100, 'apart', 0.05);
  t.is(tick(5_000, 'resync', 1).reason, 'measuring');
});
