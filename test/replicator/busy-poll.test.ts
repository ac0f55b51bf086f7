/** Staying awake between requests: begun by close turns of few only, and never for longer than the window without one. */
import test from 'ava';
import { BusyPoll } from '../../replicator/shell/busy-poll.ts';

function poller(windowMs = 0.2, yieldTakesMs = 0) {
  const clock = { nowMs: 100, yields: 0 };
  let takesMs = yieldTakesMs;
  const due: (() => void)[] = [];
  const yieldProcessor = (): void => {
    clock.yields += 1;
    clock.nowMs += takesMs;
  };
  const poll = new BusyPoll({
    nowMs: () => clock.nowMs,
    soon: (then) => due.push(then),
    yieldProcessor,
    windowMs,
  });
  /** The event loop comes round. */
  const turnAfter = (ms: number): void => {
    clock.nowMs += ms;
    for (const then of due.splice(0)) then();
  };
  return {
    poll,
    clock,
    turnAfter,
    /** One turn that brings so much. */
    arriveAfter(ms: number, arrivals = 1) {
      for (let arrival = 0; arrival < arrivals; arrival++) poll.onArrival();
      turnAfter(ms);
    },
    /** Giving way, from now on. */
    set takesMs(ms: number) {
      takesMs = ms;
    },
    get isAwake() {
      return due.length > 0;
    },
  };
}

test('requests far apart never keep the thread awake', (t) => {
  const one = poller();
  for (let turn = 0; turn < 100; turn++) {
    one.arriveAfter(0.3);
    t.false(one.isAwake);
  }
});

test('the requests of one turn count as one', (t) => {
  const one = poller();
  one.arriveAfter(0.1, 8);
  t.false(one.isAwake);
});

test('requests in close succession do, until the window has passed without one', (t) => {
  const one = poller();
  for (let turn = 0; turn < 6; turn++) one.arriveAfter(0.1);
  t.true(one.isAwake);
  one.turnAfter(0.15);
  t.true(one.isAwake);
  one.arriveAfter(0.01);
  one.turnAfter(0.15);
  t.true(one.isAwake, 'the window begins anew with each arrival');
  one.turnAfter(0.1);
  t.false(one.isAwake);
  t.false(one.poll.isPolling);
  one.arriveAfter(0.1);
  t.false(one.isAwake, 'what was in vain is not begun again at once');
});

test('turns that bring many requests keep nothing awake, however close they are, until they bring few again', (t) => {
  const one = poller();
  for (let turn = 0; turn < 6; turn++) one.arriveAfter(0.1);
  t.true(one.isAwake);
  for (let turn = 0; turn < 20; turn++) one.arriveAfter(0.1, 20);
  t.false(one.isAwake);
  t.false(one.poll.isPolling);
  for (let turn = 0; turn < 20; turn++) one.arriveAfter(0.1);
  t.true(one.isAwake);
});

test('a window of zero keeps nothing awake', (t) => {
  const one = poller(0);
  for (let turn = 0; turn < 100; turn++) one.arriveAfter(0.1);
  t.false(one.isAwake);
});

test('whoever is waited for is given way to in each turn', (t) => {
  const one = poller(0.2, 0.01);
  for (let turn = 0; turn < 4; turn++) one.arriveAfter(0.1);
  for (let turn = 0; turn < 10; turn++) one.arriveAfter(0.01);
  t.is(one.clock.yields, 10);
});

test('who keeps the processor for long once is not given way to for a moment only', (t) => {
  const one = poller(0.2, 3);
  for (let turn = 0; turn < 5; turn++) one.arriveAfter(0.1);
  t.is(one.clock.yields, 1);
  one.takesMs = 0.01;
  for (let turn = 0; turn < 30; turn++) one.arriveAfter(0.1);
  t.is(one.clock.yields, 1);
  for (let turn = 0; turn < 30; turn++) one.arriveAfter(0.1);
  t.true(one.clock.yields > 10, `${one.clock.yields}`);
});

test('who keeps the processor for long again and again gets a twentieth of it in the end', (t) => {
  const one = poller(0.2, 3);
  const arriveFor = (ms: number): void => {
    for (const endMs = one.clock.nowMs + ms; one.clock.nowMs < endMs;) one.arriveAfter(0.1);
  };
  arriveFor(1_000);
  const yields = one.clock.yields;
  arriveFor(1_000);
  const more = one.clock.yields - yields;
  t.true(more >= 13 && more <= 17, `${more}`);
});
