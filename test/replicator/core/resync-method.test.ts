/** When a resync compares hashes first. */
import test from 'ava';
import { handshakeRules } from '../../../replicator/core/handshake-rules.ts';
import type { HandshakeRule } from '../../../replicator/core/handshake-rules.ts';
import { comparesHashes } from '../../../replicator/core/resync-method.ts';
import { connected } from '../../support/pair.ts';

const state = connected().core('a').session.describeState();
const crashed = { ...state, crashedPrimary: true };

test('always and never mean what they say', (t) => {
  for (const rule of handshakeRules) {
    t.true(comparesHashes('always', rule, true, state, state));
    t.false(comparesHashes('never', rule, false, crashed, crashed));
  }
});

test('after-crash: where marks are suspects, which they are between equal generations', (t) => {
  const sides = (...rules: string[]): string[] => rules.flatMap((rule) => [`${rule}-self`, `${rule}-peer`]);
  const comparing = handshakeRules.filter((rule) => comparesHashes('after-crash', rule, false, state, state));
  t.deepEqual(
    [...comparing].sort(),
    sides(
      ...['crashed-primary', 'missed-finish', 'outdated', 'primary', 'survivor', 'tie-break', 'writer'],
    ).sort(),
  );
});

test('after-crash: whatever the rule, when one of the nodes was Primary and died of it', (t) => {
  const rule: HandshakeRule = 'bitmap-peer';
  t.false(comparesHashes('after-crash', rule, false, state, state));
  t.true(comparesHashes('after-crash', rule, false, crashed, state));
  t.true(comparesHashes('after-crash', rule, false, state, crashed));
});

test('after-crash: not when every block counts as marked', (t) => {
  for (const rule of handshakeRules) t.false(comparesHashes('after-crash', rule, true, crashed, crashed));
});
