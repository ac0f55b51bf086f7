/** Every command is answered, whatever does not answer it: disk, metadata, peer (design.md, "Where we go beyond it"). */
import test from 'ava';
import type { Command } from '../../../replicator/core/command.ts';
import {
  attach,
  connect,
  connected,
  demote,
  demoteByForce,
  detach,
  detachByForce,
  disconnect,
  failover,
  flushed,
  inShort,
  invalidate,
  invalidatePeer,
  outcome,
  pause,
  promote,
  promoteByForce,
  run,
  stop,
  summary,
} from '../../support/pair.ts';
import { names } from '../../support/two-cores.ts';
import type { TwoCores } from '../../support/two-cores.ts';

const commands: readonly Command[] = [
  ...[promote, promoteByForce, demote, demoteByForce, failover, connect, disconnect, attach, detach],
  ...[detachByForce, invalidate, invalidatePeer, pause, stop],
];

/** Nothing but the command's own deadline ends the wait. */
const patient = { ackTimeoutMs: 1e9, peerTimeoutMs: 1e9, handshakeTimeoutMs: 1e9 };

const states: Readonly<Record<string, () => TwoCores>> = {
  'both Secondary': () => connected({ core: patient }),
  'a is Primary': () => flushed({ core: patient }),
  'a is Primary and cut off': () => {
    const pair = flushed({ core: patient });
    pair.cutLink();
    pair.settle();
    return pair;
  },
  'a is Primary and suspended': () => {
    const pair = flushed({ core: { ...patient, onPeerLoss: 'suspend' } });
    pair.cutLink();
    pair.settle();
    return pair;
  },
  'a is Primary without a disk': () => {
    const pair = flushed({ core: patient });
    run(pair, 'a', detach);
    return pair;
  },
};

const stuck: Readonly<Record<string, (pair: TwoCores) => () => void>> = {
  'the disk does not flush': (pair) => both((name) => pair.hold('flush', name)),
  'the metadata is not written': (pair) => both((name) => pair.hold('commit', name)),
  'the disk is not opened': (pair) => both((name) => pair.hold('openDisk', name)),
  'the peer does not answer': (pair) => both((name) => pair.holdPacketsTo(name)),
  'the probe does not return': (pair) => both((name) => pair.hold('probe', name)),
};

function both(hold: (name: 'a' | 'b') => () => void): () => void {
  const release = names.map(hold);
  return () => release.forEach((one) => one());
}

for (const [what, hold] of Object.entries(stuck)) {
  test(`${what}: every command is answered once all the same, and the nodes go on when it does`, (t) => {
    for (const [state, make] of Object.entries(states)) {
      for (const command of commands) {
        for (const name of names) {
          const pair = make();
          const release = hold(pair);
          const asked = pair.command(name, command);
          pair.settle();
          pair.tick(31_000, 1_000);
          const which = `${state}: ${name} ${JSON.stringify(command)}`;
          t.not(asked.result, null, which);
          release();
          pair.tick(2_000, 1_000);
          if (command === stop) continue;
          t.not(outcome(pair, name, promote), 'pending', which);
        }
      }
    }
  });
}

test('what is late says what it waits for', (t) => {
  for (const [what, wanted] of [
    ['commit', /metadata/],
    ['flush', /backing device/],
  ] as const) {
    const pair = flushed({ core: patient });
    pair.hold(what, 'a');
    const asked = pair.command('a', demote);
    pair.tick(31_000, 1_000);
    t.true(asked.result?.ok === false && wanted.test(asked.result.refusal.reason), what);
    t.is(inShort(asked.result), 'busy');
  }
});

test('a disconnect that had to wait too long for the own disk does not happen later', (t) => {
  const pair = flushed({ core: patient });
  const release = pair.hold('flush', 'a');
  const asked = pair.command('a', disconnect);
  pair.tick(31_000, 1_000);
  t.is(inShort(asked.result), 'busy');
  release();
  pair.settle();
  t.is(summary(pair, 'b'), 'Secondary/UpToDate Connected Established Primary/UpToDate');
});

test('a disk is not opened twice at once', (t) => {
  const pair = connected();
  run(pair, 'a', detach);
  const release = pair.hold('openDisk', 'a');
  const first = pair.command('a', attach);
  pair.settle();
  t.is(outcome(pair, 'a', attach), 'busy');
  release();
  pair.settle();
  t.is(inShort(first.result), 'ok');
});
