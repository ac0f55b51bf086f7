/** What each command of the operator is answered in each state of the pair, and what the commands that change roles do. */
import test from 'ava';
import type { Command } from '../../../replicator/core/command.ts';
import {
  attach,
  connect,
  connected,
  connectDiscarding,
  demote,
  demoteByForce,
  detach,
  detachByForce,
  disconnect,
  failover,
  flushed,
  grow,
  inShort,
  invalidate,
  invalidatePeer,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  pause,
  promote,
  promoteByForce,
  resume,
  run,
  stop,
  summary,
} from '../../support/pair.ts';
import type { Name } from '../../support/two-cores.ts';
import { names, TwoCores } from '../../support/two-cores.ts';

const states = {
  connected: () => connected(),
  primary: () => flushed(),
  'primary with a client': () => {
    const pair = flushed();
    pair.setClients('a', 1);
    return pair;
  },
  cut: () => {
    const pair = flushed();
    pair.cutLink();
    pair.settle();
    return pair;
  },
  disconnected: () => {
    const pair = flushed();
    run(pair, 'a', disconnect);
    return pair;
  },
  'split brain': () => {
    const pair = flushed();
    pair.cutLink();
    pair.settle();
    pair.write('a', 0, 2);
    run(pair, 'b', promoteByForce);
    pair.healLink();
    pair.settle();
    run(pair, 'b', demote);
    return pair;
  },
  'b is a target': () => {
    const pair = connected();
    pair.hold('write', 'b');
    run(pair, 'b', invalidate);
    return pair;
  },
  'b is a target of the Primary': () => {
    const pair = flushed();
    pair.hold('write', 'b');
    run(pair, 'b', invalidate);
    return pair;
  },
  'a is diskless': () => {
    const pair = connected();
    run(pair, 'a', detach);
    return pair;
  },
  'a is diskless and Primary': () => {
    const pair = flushed();
    run(pair, 'a', detach);
    return pair;
  },
  'a is diskless and cut off': () => {
    const pair = connected();
    run(pair, 'a', detach);
    pair.cutLink();
    pair.settle();
    return pair;
  },
  'never met': () => {
    const pair = new TwoCores();
    pair.start('a');
    pair.settle();
    return pair;
  },
  unmirrored: () => {
    const pair = new TwoCores({ core: { peerName: null } });
    pair.start('a');
    pair.settle();
    return pair;
  },
} as const;

const failoverByForce: Command = { ...failover, kind: 'failover', force: true, dryRun: false };
const commands: Readonly<Record<string, Command>> = {
  promote,
  'promote --force': promoteByForce,
  demote,
  'demote --force': demoteByForce,
  failover,
  'failover --force': failoverByForce,
  connect,
  'connect --discard': connectDiscarding,
  disconnect,
  attach,
  detach,
  'detach --force': detachByForce,
  invalidate,
  'invalidate-peer': invalidatePeer,
  pause,
  resume,
  verify: { kind: 'verify', action: 'start', repair: true },
  'verify stop': { kind: 'verify', action: 'stop', repair: true },
  resize: grow,
};

type Expected = Readonly<Partial<Record<keyof typeof commands, string>>>;

/** What is answered in each state, on one of the nodes; what is not named is `ok`. */
const always: Expected = { 'verify stop': 'no-verify' };
const resizeAnswers: Readonly<Record<string, string>> = {
  ...{ 'primary b': 'not-primary', 'primary with a client b': 'not-primary' },
  ...{ 'cut a': 'not-connected', 'cut b': 'not-connected', 'split brain b': 'not-connected' },
  ...{ 'disconnected a': 'not-connected', 'disconnected b': 'not-connected', 'never met a': 'not-connected' },
  ...{ 'b is a target a': 'resync-running', 'b is a target b': 'resync-running' },
  ...{
    'b is a target of the Primary a': 'resync-running',
    'b is a target of the Primary b': 'resync-running',
  },
  ...{ 'a is diskless a': 'no-disk', 'a is diskless and Primary a': 'no-disk' },
  ...{ 'a is diskless and cut off a': 'no-disk' },
};
const noResync: Expected = { pause: 'no-resync', resume: 'no-resync' };
const table: readonly [keyof typeof states, Name, Expected][] = [
  ['connected', 'a', { ...noResync, 'connect --discard': 'already-connected', attach: 'already-attached' }],
  ['connected', 'b', { ...noResync, 'connect --discard': 'already-connected', attach: 'already-attached' }],
  [
    'primary',
    'a',
    {
      ...noResync,
      ...{ 'connect --discard': 'discard-needs-secondary', attach: 'already-attached' },
      invalidate: 'not-supported',
    },
  ],
  [
    'primary',
    'b',
    {
      ...noResync,
      ...{ promote: 'peer-is-primary', 'promote --force': 'peer-is-primary', attach: 'already-attached' },
      ...{ 'connect --discard': 'already-connected', 'invalidate-peer': 'peer-is-primary' },
    },
  ],
  [
    'primary with a client',
    'a',
    {
      ...noResync,
      ...{ demote: 'device-in-use', 'connect --discard': 'discard-needs-secondary' },
      ...{ attach: 'already-attached', invalidate: 'not-supported' },
    },
  ],
  [
    'primary with a client',
    'b',
    {
      ...noResync,
      ...{ promote: 'peer-is-primary', 'promote --force': 'peer-is-primary', failover: 'device-in-use' },
      ...{ 'connect --discard': 'already-connected', attach: 'already-attached' },
      'invalidate-peer': 'peer-is-primary',
    },
  ],
  [
    'cut',
    'a',
    {
      verify: 'not-connected',
      ...noResync,
      ...{ 'connect --discard': 'discard-needs-secondary', attach: 'already-attached', detach: 'last-copy' },
      ...{ invalidate: 'not-supported', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'cut',
    'b',
    {
      verify: 'not-connected',
      ...noResync,
      ...{ promote: 'peer-may-be-primary', failover: 'peer-may-be-primary', attach: 'already-attached' },
      ...{ invalidate: 'last-copy', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'disconnected',
    'a',
    {
      verify: 'not-connected',
      ...noResync,
      ...{ 'connect --discard': 'discard-needs-secondary', attach: 'already-attached', detach: 'last-copy' },
      ...{ invalidate: 'not-supported', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'disconnected',
    'b',
    {
      verify: 'not-connected',
      ...noResync,
      ...{ promote: 'not-up-to-date', failover: 'not-up-to-date', attach: 'already-attached' },
      ...{ invalidate: 'last-copy', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'split brain',
    'b',
    {
      verify: 'not-connected',
      ...noResync,
      ...{ promote: 'split-brain', failover: 'split-brain', attach: 'already-attached' },
      ...{ invalidate: 'last-copy', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'b is a target',
    'b',
    {
      verify: 'resync-running',
      ...{ promote: 'not-up-to-date', failover: 'not-up-to-date', attach: 'already-attached' },
      ...{ 'connect --discard': 'already-connected', 'invalidate-peer': 'not-up-to-date' },
    },
  ],
  [
    'b is a target',
    'a',
    {
      verify: 'resync-running',
      ...{ attach: 'already-attached', 'connect --discard': 'already-connected', invalidate: 'last-copy' },
    },
  ],
  [
    'b is a target of the Primary',
    'b',
    {
      verify: 'resync-running',
      ...{ promote: 'peer-is-primary', 'promote --force': 'peer-is-primary', failover: 'not-up-to-date' },
      ...{ 'failover --force': 'not-up-to-date', 'connect --discard': 'already-connected' },
      ...{ attach: 'already-attached', 'invalidate-peer': 'not-up-to-date' },
    },
  ],
  [
    'b is a target of the Primary',
    'a',
    {
      verify: 'resync-running',
      ...{ 'connect --discard': 'discard-needs-secondary', attach: 'already-attached', detach: 'last-copy' },
      invalidate: 'not-supported',
    },
  ],
  [
    'a is diskless',
    'a',
    {
      verify: 'no-disk',
      ...noResync,
      ...{ 'connect --discard': 'already-connected', detach: 'already-detached' },
      ...{ 'detach --force': 'already-detached', invalidate: 'no-disk', 'invalidate-peer': 'not-up-to-date' },
    },
  ],
  [
    'a is diskless and Primary',
    'a',
    {
      verify: 'no-disk',
      ...noResync,
      ...{ 'connect --discard': 'discard-needs-secondary', disconnect: 'last-copy' },
      ...{ detach: 'already-detached', 'detach --force': 'already-detached' },
      ...{ invalidate: 'not-supported', 'invalidate-peer': 'not-up-to-date' },
    },
  ],
  [
    'a is diskless and cut off',
    'a',
    {
      verify: 'not-connected',
      ...noResync,
      ...{
        promote: 'no-disk',
        'promote --force': 'no-disk',
        failover: 'no-disk',
        'failover --force': 'no-disk',
      },
      ...{ detach: 'already-detached', 'detach --force': 'already-detached' },
      ...{ invalidate: 'no-disk', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'never met',
    'a',
    {
      verify: 'not-connected',
      ...noResync,
      ...{ promote: 'not-up-to-date', failover: 'not-up-to-date', attach: 'already-attached' },
      ...{ invalidate: 'last-copy', 'invalidate-peer': 'not-connected' },
    },
  ],
  [
    'unmirrored',
    'a',
    {
      verify: 'not-mirrored',
      ...noResync,
      ...{ failover: 'not-mirrored', 'failover --force': 'not-mirrored', connect: 'not-mirrored' },
      ...{ 'connect --discard': 'not-mirrored', disconnect: 'not-mirrored', attach: 'already-attached' },
      ...{ invalidate: 'not-mirrored', 'invalidate-peer': 'not-connected' },
    },
  ],
];

for (const [state, name, expected] of table) {
  test(`${state}: what ${name} answers to each command`, (t) => {
    const answers: Record<string, string> = {};
    const wanted: Record<string, string> = {};
    for (const [verb, command] of Object.entries(commands)) {
      const pair = states[state]();
      const asked = pair.command(name, command);
      pair.settle();
      answers[verb] = inShort(asked.result);
      const resize = resizeAnswers[`${state} ${name}`] ?? 'ok';
      wanted[verb] = { ...always, resize, ...expected }[verb] ?? 'ok';
    }
    t.deepEqual(answers, wanted);
  });
}

test('every refusal says why and what to do', (t) => {
  for (const state of Object.values(states)) {
    for (const command of Object.values(commands)) {
      const pair = state();
      const result = run(pair, 'a', command);
      if (result === null || result.ok) continue;
      t.true(result.refusal.reason.length > 10);
      t.true(result.refusal.nextStep.length > 5);
    }
  }
});

test('a dry run changes nothing, and answers as the command would', (t) => {
  type Kind = 'promote' | 'demote' | 'failover' | 'connect';
  const command = (kind: Kind, force: boolean, dryRun: boolean): Command =>
    kind === 'connect' ? { kind, discardMyData: force, dryRun } : { kind, force, dryRun };
  for (const [key, state] of Object.entries(states)) {
    for (const force of [false, true]) {
      for (const name of key === 'never met' || key === 'unmirrored' ? (['a'] as const) : names) {
        for (const kind of ['promote', 'demote', 'failover', 'connect'] as const) {
          const pair = state();
          const before = [
            summary(pair, 'a'),
            summary(pair, 'b'),
            pair.metadata('a').commits,
            pair.metadata('b').commits,
          ];
          const answer = outcome(pair, name, command(kind, force, true));
          const after = [
            summary(pair, 'a'),
            summary(pair, 'b'),
            pair.metadata('a').commits,
            pair.metadata('b').commits,
          ];
          t.deepEqual(after, before, `${key}: ${kind} on ${name}`);
          t.is(outcome(pair, name, command(kind, force, false)), answer, `${key}: ${kind} on ${name}`);
        }
      }
    }
  }
});

test('failover hands the role over while both are up', (t) => {
  const pair = flushed();
  const write = pair.write('a', 3, 4);
  t.is(outcome(pair, 'b', failover), 'ok');
  t.is(write.outcome, 'ok');
  t.is(summary(pair, 'a'), mirroringSecondary);
  t.is(summary(pair, 'b'), mirroringPrimary);
  t.true(pair.isServing('b'));
  t.false(pair.isServing('a'));
  t.deepEqual(pair.metadata('a').activeExtents, []);
  t.deepEqual(pair.differences(), []);
});

test('failover waits for what is in flight at the old Primary', (t) => {
  const pair = flushed();
  const release = pair.hold('write', 'a');
  const write = pair.write('a', 3, 4);
  const asked = pair.command('b', failover);
  pair.settle();
  t.is(asked.result, null);
  t.is(pair.status('b').role, 'Secondary');
  t.is(pair.write('a', 4, 5).outcome, 'ESHUTDOWN');
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.is(inShort(asked.result), 'ok');
});

test('failover to a node whose peer does not answer needs force', (t) => {
  const pair = flushed();
  pair.crash('a', 'power');
  pair.settle();
  t.is(outcome(pair, 'b', failover), 'peer-may-be-primary');
  const result = run(pair, 'b', failoverByForce);
  t.true(result?.ok === true && result.givenUp.length === 2);
  t.true(pair.isServing('b'));
});

test('of two nodes that are promoted at once one becomes Primary', (t) => {
  const pair = connected();
  const asked = names.map((name) => pair.command(name, promote));
  pair.settle();
  t.deepEqual(
    asked.map(({ result }) => inShort(result)),
    ['ok', 'peer-is-primary'],
  );
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('a promotion is on record before clients are served', (t) => {
  const pair = connected();
  const release = pair.hold('commit', 'a');
  const asked = pair.command('a', promote);
  pair.settle();
  t.is(asked.result, null);
  t.false(pair.isServing('a'));
  release();
  pair.settle();
  t.is(inShort(asked.result), 'ok');
  t.true(pair.isServing('a'));
  t.true(pair.metadata('a').superblock.primary);
});

test('a promotion whose peer is lost before it answers is refused', (t) => {
  const pair = connected();
  pair.hold('packet:promoteRequest', 'b');
  const asked = pair.command('a', promote);
  pair.settle();
  t.is(asked.result, null);
  pair.cutLink();
  pair.settle();
  t.is(inShort(asked.result), 'not-connected');
  t.is(pair.status('a').role, 'Secondary');
});

test('a promotion whose peer does not answer in time is refused', (t) => {
  const pair = connected({ core: { peerTimeoutMs: 1e9 } });
  pair.hold('packet:promoteRequest', 'b');
  const asked = pair.command('a', promote);
  pair.tick(20_200);
  t.is(inShort(asked.result), 'busy');
});

test('a command during a handshake waits for its end', (t) => {
  const pair = flushed();
  pair.breakSession();
  const release = pair.hold('packet:state', 'a');
  pair.settle();
  const asked = pair.command('a', demote);
  pair.settle();
  t.is(asked.result, null);
  release();
  pair.settle();
  t.is(inShort(asked.result), 'ok');
});

test('a demotion by force disconnects clients; what they had in flight is answered first', (t) => {
  const pair = flushed();
  pair.setClients('a', 2);
  const release = pair.hold('write', 'b');
  const write = pair.write('a', 0, 2);
  const asked = pair.command('a', demoteByForce);
  pair.settle();
  t.false(pair.isServing('a'));
  t.is(asked.result, null);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.true(asked.result?.ok === true && asked.result.givenUp.length === 1);
  t.is(pair.status('a').role, 'Secondary');
});

test('a demotion that cannot be drained is given up, and the Primary serves again', (t) => {
  const pair = flushed({ core: { ackTimeoutMs: 1e9 } });
  const release = pair.hold('write', 'b');
  const write = pair.write('a', 0, 2);
  const asked = pair.command('a', demote);
  pair.tick(20_200);
  t.is(inShort(asked.result), 'busy');
  t.true(pair.isServing('a'));
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  const next = pair.write('a', 1, 3);
  pair.settle();
  t.is(next.outcome, 'ok');
});

test('demoted cleanly, nothing is suspect after a crash', (t) => {
  const pair = flushed();
  pair.write('a', 3, 4);
  pair.settle();
  run(pair, 'a', demote);
  t.deepEqual(pair.metadata('a').activeExtents, []);
  pair.crash('a', 'power');
  pair.restart('a');
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.false(pair.sent('a').some(({ kind }) => kind === 'resyncRequest'));
});

test('stop of the Primary: clients are disconnected, all is stable, and the peer knows', (t) => {
  const pair = flushed();
  pair.setClients('a', 1);
  pair.write('a', 3, 4);
  t.is(outcome(pair, 'a', stop), 'ok');
  t.false(pair.isUp('a'));
  t.is(pair.disk('a').stable[3], 4);
  t.is(pair.disk('b').stable[3], 4);
  const { primary, linked } = pair.metadata('a').superblock;
  t.deepEqual([primary, linked], [false, false]);
  t.deepEqual(pair.metadata('a').activeExtents, []);
  t.is(pair.status('b').diskState, 'UpToDate');
});

test('stop of the Secondary: the Primary goes on alone, and its peer catches up later', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'b', stop), 'ok');
  const write = pair.write('a', 3, 4);
  pair.settle();
  t.is(write.outcome, 'ok');
  pair.restart('b');
  pair.settle();
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.deepEqual(pair.differences(), []);
});

test('stop ends the process even when clients cannot be drained', (t) => {
  const pair = flushed({ core: { ackTimeoutMs: 1e9 } });
  pair.hold('write', 'b');
  pair.write('a', 0, 2);
  const asked = pair.command('a', stop);
  pair.tick(20_200);
  t.is(inShort(asked.result), 'busy');
  t.false(pair.isUp('a'));
  t.true(pair.metadata('a').superblock.primary, 'as after a crash');
});

test('a stopped node takes no further commands', (t) => {
  const pair = flushed();
  const release = pair.hold('commit', 'b');
  const first = pair.command('b', stop);
  pair.settle();
  t.is(outcome(pair, 'b', promote), 'shutting-down');
  release();
  pair.settle();
  t.is(inShort(first.result), 'ok');
});

test('an unmirrored device reads, writes and flushes', (t) => {
  const pair = states.unmirrored();
  t.is(outcome(pair, 'a', promote), 'ok');
  const write = pair.write('a', 2, 3, { fua: true });
  const flush = pair.flush('a');
  pair.settle();
  const read = pair.read('a', 1, 2);
  pair.settle();
  t.deepEqual([write.outcome, flush.outcome, read.outcome], ['ok', 'ok', 'ok']);
  t.deepEqual(read.stamps, [0, 3]);
  t.is(pair.disk('a').stable[2], 3);
  t.is(pair.status('a').peer, null);
  t.deepEqual(pair.metadata('a').activeExtents, []);
  t.is(outcome(pair, 'a', demote), 'ok');
  t.is(outcome(pair, 'a', stop), 'ok');
});
