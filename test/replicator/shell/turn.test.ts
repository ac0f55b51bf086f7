/** When what one turn has collected leaves. */
import test from 'ava';
import { Turn } from '../../../replicator/shell/turn.ts';

/** What runs in which order, from within a callback of the event loop; `elsewhere` stands for the next client's socket. */
function order(turn: Turn): Promise<string[]> {
  const steps: string[] = [];
  return new Promise((resolve) => {
    process.nextTick(() => {
      turn.atEnd(() => steps.push('collected leaves'));
      steps.push('callback');
      process.nextTick(() => steps.push('elsewhere'));
      setImmediate(() => setImmediate(() => resolve(steps)));
    });
  });
}

test('with one client it leaves at the end of the callback', async (t) => {
  const turn = new Turn();
  t.deepEqual(await order(turn), ['callback', 'collected leaves', 'elsewhere']);
  turn.setClientCount(1);
  t.deepEqual(await order(turn), ['callback', 'collected leaves', 'elsewhere']);
});

test('with several it leaves once all that they have brought is collected', async (t) => {
  const turn = new Turn();
  turn.setClientCount(2);
  t.deepEqual(await order(turn), ['callback', 'elsewhere', 'collected leaves']);
  turn.setClientCount(1);
  t.deepEqual(await order(turn), ['callback', 'collected leaves', 'elsewhere']);
});
