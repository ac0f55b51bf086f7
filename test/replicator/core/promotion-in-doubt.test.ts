/** A Primary that has just died stays connected until that is noticed: a promotion asks it for a sign of life first. */
import test from 'ava';
import {
  flushed,
  inShort,
  mirroring,
  outcome,
  promote,
  promoteByForce,
  summary,
} from '../../support/pair.ts';
import type { TwoCores } from '../../support/two-cores.ts';

/** Killed, with the news of it still on its way. */
function unseenDeath(): { readonly pair: TwoCores; readonly notice: () => void } {
  const pair = mirroring();
  const release = pair.hold('linkDown', 'b');
  pair.crash('a');
  pair.settle();
  const notice = (): void => {
    release();
    pair.settle();
  };
  return { pair, notice };
}

test('promote --force right after the death of the Primary: decided when the link is lost, and at once then', (t) => {
  const { pair, notice } = unseenDeath();
  const asked = pair.command('b', promoteByForce);
  pair.settle();
  t.is(inShort(asked.result), 'pending');
  notice();
  t.is(inShort(asked.result), 'ok');
  t.is(pair.status('b').role, 'Primary');
  const write = pair.write('b', 3, 33);
  pair.settle();
  t.is(write.outcome, 'ok');
});

test('promote right after the death of the Primary: refused, since it may still be Primary', (t) => {
  const { pair, notice } = unseenDeath();
  const asked = pair.command('b', promote);
  pair.settle();
  notice();
  t.is(inShort(asked.result), 'peer-may-be-primary');
});

test('a Primary that stands still, with the link up: its silence decides', (t) => {
  const { pair } = unseenDeath();
  const asked = pair.command('b', promoteByForce);
  pair.tick(3_900);
  t.is(inShort(asked.result), 'pending');
  pair.tick(300);
  t.is(inShort(asked.result), 'ok');
});

test('a Primary that answers stays; an answer to an earlier question is no sign of life now', (t) => {
  const pair = flushed();
  const answers = pair.hold('packet:pong', 'b');
  pair.tick(1_100);
  t.true(pair.isWaiting('packet:pong', 'b'));
  const questions = pair.hold('packet:ping', 'a');
  const asked = pair.command('b', promoteByForce);
  answers();
  pair.settle();
  t.is(inShort(asked.result), 'pending');
  questions();
  pair.settle();
  t.is(inShort(asked.result), 'peer-is-primary');
  t.is(pair.status('b').role, 'Secondary');
});

test('a Primary that says everything but that: refused after the time that silence would take', (t) => {
  const pair = flushed();
  pair.hold('packet:ping', 'a', () => true);
  const asked = pair.command('b', promote);
  for (let round = 0; round < 45; round++) {
    pair.core('a').send({ kind: 'ping' });
    pair.tick(100);
  }
  t.is(inShort(asked.result), 'peer-is-primary');
});

test('a healthy Primary refuses as ever', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'b', promoteByForce), 'peer-is-primary');
  t.is(summary(pair, 'b'), 'Secondary/UpToDate Connected Established Primary/UpToDate');
});
