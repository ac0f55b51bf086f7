/** What a resync may use, as both nodes keep to it: the window, the rate, and what the Primary's clients need. */
import test from 'ava';
import { flushed, invalidate, mirroringPrimary, run, summary } from '../../support/pair.ts';
import type { Name, TwoCores } from '../../support/two-cores.ts';
import { names } from '../../support/two-cores.ts';

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;

/** Both disks hold the same data, none of it holes; a is Primary. */
function filled(core: Parameters<typeof flushed>[0] = {}): TwoCores {
  const pair = flushed(core);
  for (const name of names) pair.disk(name).fill(9);
  return pair;
}

function requests(pair: TwoCores, name: Name): readonly number[] {
  return pair.sent(name).flatMap((packet) => (packet.kind === 'resyncRequest' ? [packet.length] : []));
}

function requestedBytes(pair: TwoCores, name: Name): number {
  return requests(pair, name).reduce((sum, length) => sum + length, 0);
}

/** Seconds in which a client of a writes all the time, and each write takes `writeMs`. */
function clientsWrite(pair: TwoCores, seconds: number, writeMs: number): void {
  pair.setLatency('a', { write: writeMs });
  for (let tick = 0; tick < seconds * 10; tick++) {
    pair.write('a', 3, tick + 1000);
    pair.tick(100);
  }
}

/** As above, and slow as long as there is a resync that does not stand back. */
function clientsSuffer(pair: TwoCores, seconds: number): void {
  for (let tick = 0; tick < seconds * 10; tick++) {
    const isMeasuring = pair.status('a').peer?.sync?.rate.reason === 'measuring';
    clientsWrite(pair, 0.1, isMeasuring ? 1 : 50);
  }
}

function rate(pair: TwoCores, name: Name): unknown {
  return pair.status(name).peer?.sync?.rate;
}

test('without clients the target fills the whole window, with large requests', (t) => {
  const pair = filled();
  pair.hold('packet:resyncData', 'b');
  run(pair, 'b', invalidate);
  t.is(requestedBytes(pair, 'b'), 8 * mebibyte);
  t.is(requests(pair, 'b').length, 8);
  for (const name of names) t.deepEqual(rate(pair, name), { bytesPerSecond: null, reason: 'idle' });
});

test('beside clients it begins with a small window, small requests and a moderate rate', (t) => {
  const pair = filled();
  clientsWrite(pair, 2, 1);
  pair.hold('packet:resyncData', 'b');
  run(pair, 'b', invalidate);
  pair.tick(100);
  t.is(requestedBytes(pair, 'b'), 64 * kibibyte);
  t.is(Math.max(...requests(pair, 'b')), 32 * kibibyte);
  for (const name of names)
    t.deepEqual(rate(pair, name), { bytesPerSecond: 32 * mebibyte, reason: 'clients' });
});

test('a rate is kept to within milliseconds: no burst at the beginning of each tick', (t) => {
  const pair = filled({ core: { resyncRateMax: 10 * mebibyte } });
  pair.tick(2_500);
  run(pair, 'b', invalidate);
  pair.tick(100);
  const per5Ms: number[] = [];
  for (let i = 0; i < 40; i++) {
    const before = requestedBytes(pair, 'b');
    pair.timePasses(5);
    per5Ms.push(requestedBytes(pair, 'b') - before);
  }
  const evenly = (10 * mebibyte * 5) / 1000;
  t.true(Math.max(...per5Ms) <= 2 * evenly, `${Math.max(...per5Ms)}`);
  const total = per5Ms.reduce((sum, bytes) => sum + bytes, 0);
  t.true(Math.abs(total - 40 * evenly) < 0.1 * 40 * evenly, `${total}`);
});

test('a target whose Primary has slow clients goes down to the minimum rate, and has all again without them', (t) => {
  const pair = filled();
  clientsWrite(pair, 2, 1);
  const release = pair.hold('packet:resyncData', 'b');
  run(pair, 'b', invalidate);
  clientsSuffer(pair, 8);
  for (const name of names)
    t.deepEqual(rate(pair, name), { bytesPerSecond: 250 * kibibyte, reason: 'minimum' });
  release();
  pair.tick(100);
  const before = requestedBytes(pair, 'b');
  clientsSuffer(pair, 2);
  const moved = requestedBytes(pair, 'b') - before;
  t.true(moved >= 400 * kibibyte && moved <= 600 * kibibyte, `${moved}`);
  pair.tick(2_500);
  t.is(summary(pair, 'a'), mirroringPrimary);
});

test('a Primary that is itself the target keeps to what its clients need', (t) => {
  const pair = filled();
  run(pair, 'a', { kind: 'detach', force: false });
  pair.write('a', 100, 5, { count: 1000 });
  pair.settle();
  clientsWrite(pair, 2, 1);
  pair.hold('packet:resyncData', 'a');
  run(pair, 'a', { kind: 'attach' });
  t.is(pair.status('a').peer?.replication, 'SyncTarget');
  t.true(requestedBytes(pair, 'a') <= 256 * kibibyte);
  pair.tick(100);
  for (const name of names) t.like(rate(pair, name), { reason: 'clients' });
});

for (const where of names) {
  test(`resyncRateMax of ${where} holds on both, and can be lifted while it runs`, (t) => {
    const pair = filled();
    pair.configure(where, { resyncRateMax: mebibyte });
    pair.tick(200);
    run(pair, 'b', invalidate);
    pair.tick(5_000);
    const moved = requestedBytes(pair, 'b');
    t.true(moved > 4 * mebibyte && moved < 5.5 * mebibyte, `${moved}`);
    for (const name of names) t.deepEqual(rate(pair, name), { bytesPerSecond: mebibyte, reason: 'limit' });
    t.true((pair.status('b').peer?.sync?.doneBytes ?? 0) > 2 * mebibyte, 'what is done shows in between');
    const flushes = pair.sent('b').filter(({ kind }) => kind === 'resyncStable').length;
    t.true(flushes <= 4, `${flushes} flushes: the pauses of a rate are no reason for them`);
    pair.configure(where, { resyncRateMax: 0 });
    pair.tick(300);
    t.is(summary(pair, 'a'), mirroringPrimary);
    t.deepEqual(pair.differences(), []);
  });
}

test('holes cost nothing of a rate', (t) => {
  const pair = flushed({ core: { resyncRateMax: mebibyte } });
  pair.tick(200);
  run(pair, 'b', invalidate);
  // 32 MiB, all but one block of it holes.
  pair.tick(3_000);
  t.is(summary(pair, 'a'), mirroringPrimary);
});
