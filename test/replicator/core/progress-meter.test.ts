/** Progress of a resync as the status shows it. */
import test from 'ava';
import fc from 'fast-check';
import { ProgressMeter } from '../../../replicator/core/progress-meter.ts';

test('progress never falls and never exceeds its total, whatever is left', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10_000 }),
      fc.array(fc.record({ left: fc.nat(20_000), afterMs: fc.nat(1_000) })),
      (total, updates) => {
        const meter = new ProgressMeter(total, 0);
        let nowMs = 0;
        let before = 0;
        for (const { left, afterMs } of updates) {
          nowMs += afterMs;
          meter.update(left, nowMs);
          const { doneBytes, totalBytes, bytesPerSecond, etaSeconds } = meter.progress();
          t.true(doneBytes >= before && doneBytes <= totalBytes && totalBytes === total);
          t.true(bytesPerSecond >= 0 && (etaSeconds === null || etaSeconds >= 0));
          before = doneBytes;
        }
      },
    ),
  );
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
