/** Progress of a resync as the status shows it. */
import test from 'ava';
import fc from 'fast-check';
import { ProgressMeter } from '../../../replicator/core/progress-meter.ts';

test('what is done never falls, and with what is left it always is the total', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10_000 }),
      fc.array(
        fc.record({
          left: fc.nat(20_000),
          afterMs: fc.nat(1_000),
          interrupted: fc.boolean(),
          ask: fc.boolean(),
        }),
      ),
      (total, updates) => {
        const meter = new ProgressMeter(total, 0);
        let nowMs = 0;
        let before = meter.progress(0);
        for (const { left, afterMs, interrupted, ask } of updates) {
          nowMs += afterMs;
          if (interrupted) meter.continueWith(left, nowMs);
          else meter.update(left, nowMs);
          if (!ask) continue;
          const now = meter.progress(nowMs);
          t.true(now.doneBytes >= before.doneBytes && now.totalBytes >= before.totalBytes);
          t.is(now.totalBytes - now.doneBytes, left);
          t.true(now.bytesPerSecond >= 0 && (now.etaSeconds === null || now.etaSeconds >= 0));
          before = now;
        }
      },
    ),
  );
});

test('more to do raises the total, and takes nothing back', (t) => {
  const meter = new ProgressMeter(100_000, 0);
  meter.update(40_000, 1_000);
  meter.update(70_000, 2_000);
  const { doneBytes, totalBytes } = meter.progress(2_000);
  t.deepEqual([doneBytes, totalBytes], [60_000, 130_000]);
});

test('while nothing gets done, the rate falls', (t) => {
  const meter = new ProgressMeter(100_000, 0);
  for (let second = 1; second <= 5; second++) meter.update(100_000 - second * 1_000, second * 1_000);
  t.is(meter.progress(5_000).bytesPerSecond, 1_000);
  t.true(meter.progress(10_000).bytesPerSecond < 500);
  t.is(meter.progress(30_000).bytesPerSecond, 0);
  t.is(meter.progress(30_000).etaSeconds, null);
});

test('an interruption is no part of the rate', (t) => {
  const meter = new ProgressMeter(100_000, 0);
  meter.update(90_000, 1_000);
  meter.continueWith(90_000, 600_000);
  t.is(meter.progress(600_000).bytesPerSecond, 0);
  meter.update(80_000, 601_000);
  t.is(meter.progress(601_000).bytesPerSecond, 10_000);
  t.is(meter.progress(601_000).doneBytes, 20_000);
});

test('rate and time to go are those of the last seconds', (t) => {
  const meter = new ProgressMeter(100_000, 0);
  t.deepEqual(meter.progress(), { doneBytes: 0, totalBytes: 100_000, bytesPerSecond: 0, etaSeconds: null });
  for (let second = 1; second <= 10; second++) meter.update(100_000 - second * 1_000, second * 1_000);
  t.deepEqual(meter.progress(), {
    doneBytes: 10_000,
    totalBytes: 100_000,
    bytesPerSecond: 1_000,
    etaSeconds: 90,
  });
  for (let second = 11; second <= 20; second++) meter.update(90_000 - (second - 10) * 5_000, second * 1_000);
  t.is(meter.progress().bytesPerSecond, 5_000, 'the slow beginning is forgotten');
  t.is(meter.progress().etaSeconds, 8);
});
