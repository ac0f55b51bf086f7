/** How the signals that ask a process to stop are taken: one wish may arrive as two signals. */
import { EventEmitter } from 'node:events';
import test from 'ava';
import { onStopSignals } from '../../server/stop-signals.ts';

test('two signals of one instant are one wish; a later one is another, and none is left without a handler', (t) => {
  const source = new EventEmitter();
  const calls: string[] = [];
  let nowMs = 1000;
  onStopSignals(
    (signal) => calls.push(`stop by ${signal}`),
    () => calls.push('again'),
    source,
    () => nowMs,
  );
  source.emit('SIGINT');
  source.emit('SIGINT');
  nowMs += 400;
  source.emit('SIGTERM');
  t.deepEqual(calls, ['stop by SIGINT']);
  nowMs += 400;
  t.true(source.emit('SIGINT'));
  t.true(source.emit('SIGHUP'));
  t.deepEqual(calls, ['stop by SIGINT', 'again', 'again']);
});
