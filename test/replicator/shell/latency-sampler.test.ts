/** What the shell says of its clients' latency: sampled, by kind, and honest about requests that still wait. */
import test from 'ava';
import { LatencySampler } from '../../../replicator/shell/latency-sampler.ts';

function sampler(): { readonly at: (ms: number) => void; readonly latency: LatencySampler } {
  let nowMs = 0;
  return { at: (ms) => void (nowMs = ms), latency: new LatencySampler(() => nowMs) };
}

const nothing = { write: null, read: null, flush: null, slowWrite: null, slowRead: null, slowFlush: null };

test('the mean of the requests followed, each kind for itself', (t) => {
  const { at, latency } = sampler();
  latency.onBegin('write', 1);
  latency.onBegin('read', 2);
  at(1);
  latency.onEnd(2, true);
  at(4);
  latency.onEnd(1, true);
  latency.onBegin('write', 3);
  at(6);
  latency.onEnd(3, true);
  t.deepEqual(latency.take(), { ...nothing, write: 3, slowWrite: 4, read: 1, slowRead: 1 });
  t.deepEqual(latency.take(), nothing);
});

test('the slowest tenth is left out, however many requests there are', (t) => {
  for (const count of [20, 5_000]) {
    const { at, latency } = sampler();
    let nowMs = 0;
    for (let id = 1; id <= count; id++) {
      latency.onBegin('write', id);
      at((nowMs += id % 20 === 7 ? 100 : 2));
      latency.onEnd(id, true);
    }
    t.is(latency.take().write, 2, `${count}`);
  }
});

test('the 99th percentile is told apart: it shows what comes to two requests of a hundred, and not to half of one', (t) => {
  for (const [count, every, slowMs] of [
    [100, 50, 100],
    [5_000, 50, 100],
    [5_000, 200, 2],
  ] as const) {
    const { at, latency } = sampler();
    let nowMs = 0;
    for (let id = 1; id <= count; id++) {
      latency.onBegin('write', id);
      // Not in step with the samples that are kept when there are many.
      at((nowMs += (id * 7919) % every === 3 ? 100 : 2));
      latency.onEnd(id, true);
    }
    const { write, slowWrite } = latency.take();
    t.is(write, 2, `${count}`);
    t.is(slowWrite, slowMs, `one of ${every}`);
  }
});

test('one request of a kind is followed at a time', (t) => {
  const { at, latency } = sampler();
  latency.onBegin('write', 1);
  latency.onBegin('write', 2);
  at(10);
  latency.onEnd(2, true);
  t.is(latency.take().write, null);
  at(20);
  latency.onEnd(1, true);
  t.is(latency.take().write, 20);
});

test('a request that still waits counts with what it has waited, once that is long', (t) => {
  const { at, latency } = sampler();
  latency.onBegin('flush', 1);
  at(40);
  t.is(latency.take().flush, null);
  at(140);
  t.is(latency.take().flush, 140);
});

test('a request that failed says nothing', (t) => {
  const { at, latency } = sampler();
  latency.onBegin('write', 1);
  at(5);
  latency.onEnd(1, false);
  t.is(latency.take().write, null);
  latency.onBegin('write', 2);
  at(7);
  latency.onEnd(2, true);
  t.is(latency.take().write, 2);
});
