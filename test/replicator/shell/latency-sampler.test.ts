/** What the shell says of its clients' latency: sampled, by kind, and honest about requests that still wait. */
import test from 'ava';
import { LatencySampler } from '../../../replicator/shell/latency-sampler.ts';

function sampler(): { readonly at: (ms: number) => void; readonly latency: LatencySampler } {
  let nowMs = 0;
  return { at: (ms) => void (nowMs = ms), latency: new LatencySampler(() => nowMs) };
}

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
  t.deepEqual(latency.take(), { write: 3, read: 1, flush: null });
  t.deepEqual(latency.take(), { write: null, read: null, flush: null });
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
