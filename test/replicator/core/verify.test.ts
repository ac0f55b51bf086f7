/** Online verify: it finds what differs and nothing else, whatever is written meanwhile, and has it copied again. */
import test from 'ava';
import type { Command } from '../../../replicator/core/command.ts';
import type { Decision } from '../../../replicator/core/decision.ts';
import {
  bothSecondary,
  chooser,
  connected,
  demote,
  detach,
  disconnect,
  failover,
  flushed,
  inShort,
  invalidate,
  mirroringPrimary,
  mirroringSecondary,
  outcome,
  promote,
  run,
  summary,
} from '../../support/pair.ts';
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { names } from '../../support/two-cores.ts';

const verify: Command = { kind: 'verify', action: 'start', repair: true };
const verifyOnly: Command = { kind: 'verify', action: 'start', repair: false };
const stopVerify: Command = { kind: 'verify', action: 'stop', repair: true };

/** Behind the node's back: in the cache and on the platter. */
function corrupt(pair: TwoCores, name: Name, ...blocks: readonly number[]): void {
  for (const block of blocks) {
    pair.disk(name).visible[block] = 666;
    pair.disk(name).stable[block] = 666;
  }
}

function verdict(pair: TwoCores, name: Name): Decision | undefined {
  return pair.decisions(name).findLast(({ kind }) => kind === 'verify');
}

function bytesAsked(pair: TwoCores, name: Name): number {
  return pair
    .sent(name)
    .reduce((sum, packet) => sum + (packet.kind === 'verifyRequest' ? packet.length : 0), 0);
}

/** The verify on that node stands still, with nothing compared yet. */
function inTheMiddle(pair: TwoCores, name: Name, command: Command = verify): () => void {
  const releases = names.map((one) => pair.hold('digest', one));
  pair.command(name, command);
  pair.settle();
  return () => {
    for (const release of releases) release();
  };
}

test('equal copies: nothing is found, nothing is copied', (t) => {
  const pair = flushed();
  t.is(outcome(pair, 'a', verify), 'ok');
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
  t.like(verdict(pair, 'a'), { rule: 'finished', result: 'no block differs' });
  t.deepEqual(pair.status('a').peer?.verify, {
    ...{ state: 'finished', checkedBytes: pair.sizeBytes, differingBytes: 0, unreadableBytes: 0 },
  });
  t.false(pair.sent('a').some(({ kind }) => kind === 'bitmap'));
});

test('one hash for 32 blocks is compared first, and a hash for each only where those differ', (t) => {
  const pair = flushed();
  corrupt(pair, 'b', 5, 700, 8191);
  run(pair, 'a', verifyOnly);
  const asked = pair.sent('a').flatMap((packet) => (packet.kind === 'verifyRequest' ? [packet] : []));
  const coarse = asked.filter((packet) => packet.coarse);
  t.is(
    coarse.reduce((sum, { length }) => sum + length, 0),
    pair.sizeBytes,
  );
  const finer = asked.filter((packet) => !packet.coarse);
  t.deepEqual(
    finer.map(({ offset, length }) => [offset / 4096, length / 4096]),
    [
      [0, 32],
      [672, 32],
      [8160, 32],
    ],
  );
  t.like(verdict(pair, 'a'), { rule: 'finished', result: '3 blocks differ: 5 700 8191' });
});

for (const [verifier, where] of [
  ['a', 'Primary'],
  ['b', 'Secondary'],
] as const) {
  test(`on the ${where}: exactly the blocks that differ are found, and repaired from the Primary`, (t) => {
    const pair = flushed();
    pair.write('a', 700, 3);
    pair.settle();
    corrupt(pair, 'b', 5, 700, 701, 8191);
    t.deepEqual(pair.differences(), [5, 700, 701, 8191]);
    t.is(outcome(pair, verifier, verify), 'ok');
    t.like(verdict(pair, verifier)?.inputs, { differingBlocks: 4, firstBlocks: '5 700-701 8191' });
    t.deepEqual(pair.differences(), []);
    t.is(pair.disk('b').visible[700], 3);
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.is(summary(pair, 'b'), mirroringSecondary);
    t.is(pair.status(verifier).peer?.verify?.differingBytes, 4 * 4096);
    t.deepEqual(
      names.map((name) => pair.marked(name)),
      [[], []],
    );
  });

  test(`on the ${where}: a copy with found blocks is Inconsistent, on record, until it is repaired`, (t) => {
    const pair = flushed();
    corrupt(pair, 'b', 5, 9);
    pair.hold('packet:resyncData', 'b');
    run(pair, verifier, verify);
    t.is(summary(pair, 'a'), 'Primary/UpToDate Connected SyncSource Secondary/Inconsistent');
    t.is(summary(pair, 'b'), 'Secondary/Inconsistent Connected SyncTarget Primary/UpToDate');
    t.is(pair.metadata('b').superblock.disk, 'Inconsistent');
    t.deepEqual(pair.marked('a'), [5, 9]);
  });

  test(`on the ${where}: at no moment are both copies UpToDate with something out of sync`, (t) => {
    const pair = flushed();
    corrupt(pair, 'b', 5, 9);
    pair.command(verifier, verify);
    let steps = 0;
    while (pair.steps(1) > 0) {
      steps++;
      for (const name of names) {
        const { diskState, peer } = pair.status(name);
        const isWhole = diskState === 'UpToDate' && peer?.diskState === 'UpToDate';
        if (isWhole && peer.outOfSyncBytes > 0) return t.fail(`${name} at step ${steps}`);
      }
    }
    t.deepEqual(pair.differences(), []);
  });

  test(`on the ${where}: under writes nothing is found, in whatever order things happen`, (t) => {
    for (let seed = 0; seed < 60; seed++) {
      const choose = chooser(seed);
      const pair = flushed({ extents: 1 });
      pair.command(verifier, verify);
      for (let i = 0; i < 60; i++) {
        pair.write('a', choose(1020), 10 + i, { count: 1 + choose(4) });
        for (let step = choose(8); step > 0; step--) pair.settleSome(choose);
      }
      pair.settle(choose);
      t.like(verdict(pair, verifier), { rule: 'finished', result: 'no block differs' }, `seed ${seed}`);
      t.deepEqual(pair.differences(), [], `seed ${seed}`);
      // Nothing even looked different, so that nothing was asked twice.
      t.is(bytesAsked(pair, verifier), pair.sizeBytes, `seed ${seed}`);
    }
  });
}

test('both Secondary: repaired from the node that verified, whoever wrote last', (t) => {
  for (const verifier of names) {
    for (const victim of names) {
      const pair = flushed();
      run(pair, 'a', demote);
      corrupt(pair, victim, 5);
      run(pair, verifier, verify);
      const wanted = verifier === victim ? 666 : 0;
      t.deepEqual(
        names.map((name) => pair.disk(name).visible[5]),
        [wanted, wanted],
        `${verifier} verifies, ${victim} is corrupt`,
      );
      for (const name of names) t.is(summary(pair, name), bothSecondary);
    }
  }
});

test('both Secondary: the better copy is on stable storage before the other one counts no more', (t) => {
  const pair = connected();
  corrupt(pair, 'b', 5);
  const release = pair.hold('flush', 'a');
  run(pair, 'a', verify);
  t.like(verdict(pair, 'a'), { rule: 'finished' });
  t.is(pair.metadata('b').superblock.disk, 'UpToDate');
  t.is(summary(pair, 'b'), bothSecondary);
  release();
  pair.settle();
  t.deepEqual(pair.differences(), []);
});

test('both Secondary, and the session is lost before the peer has heard: the blocks are marked', (t) => {
  const pair = connected();
  corrupt(pair, 'b', 5);
  pair.hold('packet:verifyFound', 'b');
  run(pair, 'a', verify);
  pair.cutLink();
  pair.settle();
  t.deepEqual(pair.marked('a'), [5]);
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.differences(), []);
});

test('both Secondary, and the verifier gives up its copy at that moment: the peer keeps its own', (t) => {
  const pair = connected();
  corrupt(pair, 'b', 5);
  const release = pair.hold('packet:verifyFound', 'b');
  run(pair, 'a', verify);
  const hold = pair.hold('packet:giveUpReply', 'a');
  // The lower name wins: b grants, and then has nothing to ask.
  pair.command('a', detach);
  release();
  pair.settle();
  t.is(pair.status('b').diskState, 'UpToDate');
  hold();
  pair.settle();
  t.is(pair.status('a').diskState, 'Diskless');
  t.is(pair.status('b').diskState, 'UpToDate');
});

test('roles that change meanwhile neither end it nor make it find anything', (t) => {
  for (let seed = 0; seed < 80; seed++) {
    const choose = chooser(seed);
    const pair = flushed({ extents: 1 });
    let primary: Name = 'a';
    pair.command(choose(2) === 0 ? 'a' : 'b', verify);
    for (let i = 0; i < 40; i++) {
      pair.write(primary, choose(1020), 10 + i, { count: 1 + choose(4) });
      for (let step = choose(10); step > 0; step--) pair.settleSome(choose);
      if (choose(8) === 0) {
        const next: Name = primary === 'a' ? 'b' : 'a';
        // Refused as busy while the news of the last one is still on its way.
        for (let asked = pair.command(next, failover); inShort(asked.result) !== 'ok';) {
          if (!pair.settleSome(choose)) return t.fail(`seed ${seed}: ${inShort(asked.result)}`);
          if (inShort(asked.result) === 'busy') asked = pair.command(next, failover);
        }
        primary = next;
      }
    }
    pair.settle(choose);
    const verdicts = names.flatMap((name) => pair.decisions(name).filter(({ kind }) => kind === 'verify'));
    t.deepEqual(
      verdicts.map(({ rule, result }) => `${rule}: ${result}`),
      ['finished: no block differs'],
      `seed ${seed}`,
    );
    t.deepEqual(pair.differences(), [], `seed ${seed}`);
  }
});

test('a peer that has become Primary with a request on its way is asked again', (t) => {
  const pair = connected();
  const releaseRecord = pair.hold('committed', 'a');
  pair.command('a', promote);
  pair.settle();
  const releaseRequest = pair.hold('packet:verifyRequest', 'a');
  run(pair, 'b', verify);
  releaseRecord();
  pair.settle();
  // Written there before the request arrives, and here after the range was hashed.
  t.is(pair.status('a').role, 'Primary');
  pair.write('a', 3, 5);
  pair.settle();
  releaseRequest();
  pair.settle();
  t.like(verdict(pair, 'b'), { rule: 'finished', result: 'no block differs' });
  const alone = pair.sent('b').filter((packet) => packet.kind === 'verifyRequest' && !packet.coarse);
  t.deepEqual(alone, [], 'nothing looked different');
});

test('a write waits for the hashing of its own range, and for no other', (t) => {
  const pair = flushed();
  const release = inTheMiddle(pair, 'a');
  const [near, far] = [pair.write('a', 3, 5), pair.write('a', 5000, 5)];
  pair.settle();
  t.is(far.outcome, 'ok');
  t.is(near.outcome, 'pending');
  release();
  pair.settle();
  t.is(near.outcome, 'ok');
  t.is(verdict(pair, 'a')?.result, 'no block differs');
});

test('without repair: reported and counted, nothing is marked or copied', (t) => {
  const pair = flushed();
  corrupt(pair, 'b', 5, 6);
  run(pair, 'a', verifyOnly);
  t.deepEqual(pair.differences(), [5, 6]);
  t.deepEqual(pair.marked('a'), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(pair.status('a').peer?.verify?.differingBytes, 8192);
  t.like(verdict(pair, 'a'), { rule: 'finished', result: '2 blocks differ: 5-6' });
});

test('a difference that is gone when it is looked at again is not reported', (t) => {
  const pair = flushed();
  corrupt(pair, 'b', 5);
  // Asked for again: then the block alone.
  const release = pair.hold('packet:verifyRequest', 'b', () =>
    pair.sent('a').some((packet) => packet.kind === 'verifyRequest' && !packet.coarse),
  );
  run(pair, 'a', verify);
  t.is(verdict(pair, 'a'), undefined);
  pair.disk('b').visible[5] = pair.disk('a').visible[5] ?? 0;
  release();
  pair.settle();
  t.like(verdict(pair, 'a'), { rule: 'finished', result: 'no block differs' });
});

test('the states are VerifyS where it was started and VerifyT at the peer, with progress on both', (t) => {
  const pair = flushed();
  const release = inTheMiddle(pair, 'b');
  t.is(summary(pair, 'b'), 'Secondary/UpToDate Connected VerifyS Primary/UpToDate');
  t.is(summary(pair, 'a'), 'Primary/UpToDate Connected VerifyT Secondary/UpToDate');
  t.is(outcome(pair, 'a', verify), 'verify-running');
  t.is(outcome(pair, 'b', verify), 'verify-running');
  release();
  const done = { a: 0, b: 0 };
  while (pair.steps(1) > 0) {
    for (const name of names) {
      const sync = pair.status(name).peer?.sync;
      if (sync === null || sync === undefined) continue;
      t.is(sync.totalBytes, pair.sizeBytes);
      t.true(sync.doneBytes >= done[name] && sync.doneBytes <= sync.totalBytes);
      done[name] = sync.doneBytes;
    }
  }
  t.true(done.a > pair.sizeBytes / 2 && done.b > pair.sizeBytes / 2);
});

for (const stopper of names) {
  test(`started on a, stopped on ${stopper}: it ends on both, and what was found is repaired`, (t) => {
    const pair = flushed();
    corrupt(pair, 'b', 5);
    const release = pair.hold('digest', 'b', () => {
      const found = pair.status('a').peer?.verify?.differingBytes ?? 0;
      return found > 0;
    });
    run(pair, 'a', verify);
    t.is(pair.status('a').peer?.replication, 'VerifyS');
    t.is(outcome(pair, stopper, stopVerify), 'ok');
    release();
    pair.settle();
    t.like(verdict(pair, 'a'), { rule: 'stopped' });
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.is(summary(pair, 'b'), mirroringSecondary);
    t.deepEqual(pair.differences(), []);
    t.is(outcome(pair, 'a', stopVerify), 'no-verify');
  });
}

test('a lost session ends it, on record; what was found by then is copied after the next handshake', (t) => {
  const pair = flushed();
  corrupt(pair, 'b', 5);
  pair.hold('digest', 'b', () => (pair.status('a').peer?.verify?.differingBytes ?? 0) > 0);
  run(pair, 'a', verify);
  pair.cutLink();
  pair.settle();
  t.like(verdict(pair, 'a'), { rule: 'ended', result: '1 blocks differ: 5' });
  t.is(pair.status('a').peer?.verify?.state, 'ended');
  t.deepEqual(pair.marked('a'), [5]);
  pair.crash('a');
  pair.restart('a');
  pair.settle();
  t.true(pair.marked('a').includes(5));
  pair.healLink();
  pair.settle();
  t.deepEqual(pair.differences(), []);
});

const orders: readonly (readonly [string, Name, Command, 'goes on' | 'ends'])[] = [
  ['demote', 'a', demote, 'goes on'],
  ['failover', 'b', failover, 'goes on'],
  ['disconnect', 'b', disconnect, 'ends'],
  ['detach on the Primary', 'a', detach, 'ends'],
  ['detach on the Secondary', 'b', detach, 'ends'],
  ['invalidate', 'b', invalidate, 'ends'],
];
for (const verifier of names) {
  for (const [what, name, command, becomes] of orders) {
    test(`${what} while ${verifier} verifies: done, and the verify ${becomes}`, (t) => {
      const pair = flushed();
      const release = inTheMiddle(pair, verifier);
      t.is(outcome(pair, name, command), 'ok');
      release();
      pair.settle();
      t.is(verdict(pair, verifier)?.rule, becomes === 'ends' ? 'ended' : 'finished');
      t.is(verdict(pair, verifier)?.result, 'no block differs');
      t.false(names.some((one) => pair.status(one).peer?.replication.startsWith('Verify') ?? false));
    });
  }
}

test('promote while it verifies', (t) => {
  const pair = connected();
  const release = inTheMiddle(pair, 'a');
  t.is(outcome(pair, 'b', promote), 'ok');
  const write = pair.write('b', 4000, 5);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
  t.like(verdict(pair, 'a'), { rule: 'finished', result: 'no block differs' });
});

test('started on both at once: both end, and what differs is repaired', (t) => {
  const pair = flushed();
  corrupt(pair, 'b', 5);
  for (const name of names) pair.command(name, verify);
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.is(summary(pair, 'a'), mirroringPrimary);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('promoted when the found blocks arrive: the new Primary keeps its copy', (t) => {
  const pair = connected();
  corrupt(pair, 'b', 5);
  const release = pair.hold('packet:verifyFound', 'b');
  pair.command('a', verify);
  while (!pair.isWaiting('packet:verifyFound', 'b') && pair.steps(1) > 0);
  // As if it had been promoted in the moment before.
  pair.core('b').role = 'Primary';
  release();
  pair.settle();
  t.deepEqual(pair.differences(), []);
  t.is(pair.disk('a').visible[5], 666);
  t.is(summary(pair, 'b'), mirroringPrimary);
});

for (const [broken, verifier] of [
  ['a', 'a'],
  ['b', 'a'],
  ['a', 'b'],
  ['b', 'b'],
] as const) {
  test(`a read that fails once on ${broken} while ${verifier} verifies: nothing is found`, (t) => {
    const pair = flushed();
    let reads = 0;
    pair.hold('digest', broken, () => {
      pair.disk(broken).failReads = reads++ < 3;
      return false;
    });
    run(pair, verifier, verify);
    t.like(verdict(pair, verifier), { rule: 'finished', result: 'no block differs' });
    t.is(pair.status(verifier).peer?.verify?.unreadableBytes, 0);
  });
}

test('a disk that cannot be read at all ends it', (t) => {
  const pair = flushed();
  pair.disk('a').failReads = true;
  run(pair, 'b', verify);
  t.like(verdict(pair, 'b'), { rule: 'ended', result: 'no block differs' });
  t.true((pair.status('b').peer?.verify?.unreadableBytes ?? 0) > 0);
  t.is(summary(pair, 'b'), mirroringSecondary);
});

test('what the Secondary cannot read is written anew from the Primary', (t) => {
  const pair = flushed();
  pair.disk('b').failReads = true;
  run(pair, 'a', verify);
  t.like(verdict(pair, 'a')?.inputs, { unreadableHere: 0, differingBlocks: 0 });
  t.is(summary(pair, 'a'), mirroringPrimary);
  const copied = pair.sent('a').flatMap((packet) => (packet.kind === 'resyncData' ? [packet.length] : []));
  t.true(copied.length > 0);
});

test('hashes of another length end the session', (t) => {
  const pair = flushed();
  pair.hold('packet:verifyRequest', 'b');
  run(pair, 'a', verify);
  const request = pair.sent('a').find(({ kind }) => kind === 'verifyRequest');
  const { connection } = pair.core('a');
  if (request?.kind !== 'verifyRequest' || connection.conn !== 'Connected') return t.fail('nothing asked');
  pair.core('a').step({
    kind: 'packet',
    session: connection.session,
    packet: { kind: 'verifyDigests', id: request.id },
    payload: { byteLength: 32 },
  });
  t.not(pair.status('a').peer?.connection, 'Connected');
});

for (const [what, kind, where] of [
  ['a hash of its own disk', 'digest', 'a'],
  ['a hash of the other disk', 'digest', 'b'],
  ['an answer of the peer', 'packet:verifyDigests', 'a'],
] as const) {
  test(`${what} that never comes: the verify ends, and what it has found is repaired`, (t) => {
    const pair = flushed();
    // Otherwise all that is behind the answer would wait too, and the link be lost.
    pair.configure('a', { peerTimeoutMs: 3_600_000 });
    corrupt(pair, 'b', 5);
    const release = pair.hold(kind, where, () => pair.status('a').peer?.verify?.differingBytes === 4096);
    run(pair, 'a', verify);
    pair.tick(29_000);
    t.is(pair.status('a').peer?.verify?.state, 'running');
    pair.tick(2_000);
    t.is(pair.status('a').peer?.verify?.state, 'ended');
    t.is(verdict(pair, 'a')?.inputs['why'], 'it has got nowhere for 30000 ms');
    release();
    pair.tick(1_000);
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.is(summary(pair, 'b'), mirroringSecondary);
    t.deepEqual(pair.differences(), []);
    t.is(outcome(pair, 'a', verify), 'ok');
    t.like(verdict(pair, 'a'), { rule: 'finished', result: 'no block differs' });
  });
}
