/** A resource that is defined without its peer for a while: what is written then is not tracked, and must not be missed. */
import test from 'ava';
import { connected, flushed, promote, promoteByForce, run, stop, summary } from '../../support/pair.ts';
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { TwoCores as Pair } from '../../support/two-cores.ts';

/** Stops the node and starts it with another definition; the peer is down meanwhile. */
function redefine(pair: TwoCores, name: Name, peerName: string | null): void {
  run(pair, name, stop);
  pair.crash(name);
  pair.define(name, peerName);
  pair.restart(name);
  pair.settle();
}

function apart(): TwoCores {
  const pair = flushed();
  run(pair, 'b', stop);
  pair.crash('b');
  redefine(pair, 'a', null);
  run(pair, 'a', promote);
  return pair;
}

function together(pair: TwoCores): void {
  redefine(pair, 'a', 'b');
  pair.restart('b');
  pair.settle();
}

function lastRule(pair: TwoCores, name: Name): string | undefined {
  return pair.decisions(name).findLast(({ kind }) => kind === 'handshake')?.rule;
}

test('written without its peer: the copies meet as descendant and ancestor, and everything is copied', (t) => {
  const pair = apart();
  const before = pair.metadata('a').superblock.current;
  const write = pair.write('a', 5, 77);
  pair.settle();
  t.is(write.outcome, 'ok');
  const { current, history, bitmap } = pair.metadata('a').superblock;
  t.not(current, before);
  t.true(history.includes(before));
  t.deepEqual(bitmap, []);
  pair.crash('a');
  pair.restart('a');
  pair.settle();
  together(pair);
  t.is(lastRule(pair, 'a'), 'history-self');
  t.deepEqual(pair.differences(), []);
  t.is(summary(pair, 'b'), 'Secondary/UpToDate Connected Established Secondary/UpToDate');
});

test('written without its peer: nothing is acknowledged before the new generation is on record', (t) => {
  const pair = apart();
  const release = pair.hold('commit', 'a');
  const write = pair.write('a', 5, 77);
  pair.settle();
  t.is(write.outcome, 'pending');
  t.is(pair.disk('a').visible[5], 0);
  release();
  pair.settle();
  t.is(write.outcome, 'ok');
});

test('written without its peer while blocks were out of sync: the marks are not taken for all that differs', (t) => {
  const pair = flushed();
  pair.crash('b');
  pair.settle();
  pair.write('a', 0, 2);
  pair.settle();
  redefine(pair, 'a', null);
  run(pair, 'a', promote);
  pair.write('a', 4000, 77);
  pair.settle();
  together(pair);
  t.is(lastRule(pair, 'a'), 'history-self');
  t.deepEqual(pair.differences(), []);
});

test('written apart on both, one of them without its peer: a split brain', (t) => {
  const pair = apart();
  pair.write('a', 5, 77);
  pair.settle();
  redefine(pair, 'a', 'b');
  pair.crash('a');
  pair.restart('b');
  run(pair, 'b', promoteByForce);
  pair.write('b', 6, 78);
  pair.settle();
  pair.restart('a');
  pair.settle();
  t.true(pair.status('a').splitBrain);
  t.true(pair.status('b').splitBrain);
});

test('only read without its peer: the copies are equal, whatever is flushed', (t) => {
  const pair = apart();
  const before = pair.metadata('a').superblock.current;
  pair.read('a', 0);
  pair.flush('a');
  pair.settle();
  t.is(pair.metadata('a').superblock.current, before);
  together(pair);
  t.is(lastRule(pair, 'a'), 'equal');
});

test('a device that never had a peer begins no generation with its first write, nor after a restart', (t) => {
  const pair = new Pair();
  pair.define('a', null);
  pair.start('a');
  pair.settle();
  run(pair, 'a', promote);
  const before = pair.metadata('a').superblock.current;
  const release = pair.hold('commit', 'a');
  t.is(written(pair), 'ok');
  release();
  redefine(pair, 'a', null);
  run(pair, 'a', promote);
  pair.hold('commit', 'a');
  t.is(written(pair), 'ok');
  t.is(pair.metadata('a').superblock.current, before);
});

test('a pair that has never been written, then written on one side without mirroring, is not taken for equal', (t) => {
  const pair = connected();
  run(pair, 'b', stop);
  pair.crash('b');
  redefine(pair, 'a', null);
  run(pair, 'a', promote);
  t.is(written(pair), 'ok');
  together(pair);
  t.is(lastRule(pair, 'a'), 'history-self');
  t.deepEqual(pair.differences(), []);
});

function written(pair: TwoCores): string {
  const write = pair.write('a', 9, 99);
  pair.settle();
  return write.outcome;
}
