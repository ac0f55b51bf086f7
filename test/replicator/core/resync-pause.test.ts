/** Pausing a resync: each side for itself, and for longer than a connection lasts. */
import test from 'ava';
import {
  flushed,
  invalidate,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  pause,
  resume,
  run,
  summary,
} from '../../support/pair.ts';
import type { TwoCores } from '../../support/two-cores.ts';
import { names, other } from '../../support/two-cores.ts';

const pausedSource = 'Primary/UpToDate Connected PausedSyncS Secondary/Inconsistent';
const pausedTarget = 'Secondary/Inconsistent Connected PausedSyncT Primary/UpToDate';

/** A resync from a to b, of which nothing has arrived; the returned function lets the data through. */
function syncing(): { readonly pair: TwoCores; readonly release: () => void } {
  const pair = flushed();
  const release = pair.hold('packet:resyncData', 'b');
  run(pair, 'b', invalidate);
  return { pair, release };
}

function requestCount(pair: TwoCores): number {
  return pair.sent('b').filter(({ kind }) => kind === 'resyncRequest').length;
}

for (const name of names) {
  test(`paused on ${name}, it stays paused over reconnects, and not a block is asked for`, (t) => {
    const { pair, release } = syncing();
    t.is(outcome(pair, name, pause), 'ok');
    const asked = requestCount(pair);
    for (const reconnect of [() => pair.breakSession(), () => pair.cutLink()]) {
      reconnect();
      pair.tick(500);
      pair.healLink();
      pair.tick(2_000);
      t.is(summary(pair, 'a'), pausedSource);
      t.is(summary(pair, 'b'), pausedTarget);
      t.is(requestCount(pair), asked);
    }
    t.deepEqual(pair.status(name).peer?.sync?.pausedBy, ['this-node']);
    t.deepEqual(pair.status(other(name)).peer?.sync?.pausedBy, ['peer']);
    for (const node of names) t.is(pair.status(node).peer?.sync?.rate.reason, 'paused');
    release();
    t.is(outcome(pair, name, resume), 'ok');
    t.is(summary(pair, 'b'), mirroringSecondary);
    t.deepEqual(pair.differences(), []);
  });
}

test('it goes on when neither side pauses it: resuming one does not undo the other', (t) => {
  const { pair, release } = syncing();
  run(pair, 'a', pause);
  run(pair, 'b', pause);
  release();
  pair.settle();
  t.deepEqual(pair.status('a').peer?.sync?.pausedBy, ['this-node', 'peer']);
  const first = run(pair, 'a', resume);
  t.true(first?.ok === true && first.message.includes('b'), 'the answer says who still pauses it');
  t.is(summary(pair, 'a'), pausedSource);
  t.deepEqual(pair.status('a').peer?.sync?.pausedBy, ['peer']);
  run(pair, 'b', resume);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a pause can be taken back while the peer is away', (t) => {
  const { pair, release } = syncing();
  run(pair, 'a', pause);
  pair.cutLink();
  pair.settle();
  t.is(outcome(pair, 'a', resume), 'ok');
  t.is(outcome(pair, 'a', resume), 'no-resync');
  release();
  pair.healLink();
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a pause ends with the process that was told', (t) => {
  const { pair, release } = syncing();
  run(pair, 'b', pause);
  release();
  pair.crash('b');
  pair.restart('b');
  pair.settle();
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a pause that came too late for its resync does not pause the next one', (t) => {
  for (const name of names) {
    const { pair, release } = syncing();
    const releaseCommit = pair.hold('commit', 'b');
    release();
    pair.settle();
    t.deepEqual(pair.marked('b'), [], 'all is copied, which is being recorded');
    t.is(outcome(pair, name, pause), 'ok');
    releaseCommit();
    pair.settle();
    t.is(summary(pair, 'a'), mirroringPrimary);
    run(pair, 'b', invalidate);
    t.is(summary(pair, 'a'), mirroringPrimary);
  }
});
