/** Memory to receive into comes back when nobody uses it any more, and not before. */
import test from 'ava';
import { ByteQueue, PayloadAssembly } from '../../nbd/byte-queue.ts';
import { ReceivePool } from '../../nbd/receive-buffers.ts';

test('memory is handed out again once every user has let go of it', (t) => {
  const pool = new ReceivePool(1 << 20);
  const first = pool.take(1000);
  first.retain();
  first.release();
  t.not(pool.take(1000), first);
  first.release();
  t.is(pool.take(1000), first);
  t.is(first.bytes.length, 1024);
});

test('letting go more often than retaining is a bug', (t) => {
  const buffer = new ReceivePool(1 << 20).take(1);
  buffer.release();
  t.throws(() => buffer.release());
});

test('more than the pool may keep is left to the garbage collector', (t) => {
  const pool = new ReceivePool(1500);
  const [one, other] = [pool.take(1024), pool.take(1024)];
  one.release();
  other.release();
  t.is(pool.take(1024), one);
  t.not(pool.take(1024), other);
});

test('what is taken from the queue keeps its memory until it is released, beyond the life of the chunk', (t) => {
  const pool = new ReceivePool(1 << 20);
  const buffer = pool.take(64);
  buffer.bytes.fill('x');
  const queue = new ByteQueue();
  queue.push(buffer.bytes.subarray(0, 10), buffer);
  queue.push(buffer.bytes.subarray(10, 64), buffer);
  buffer.release();
  const taken = queue.takeRetained(64);
  t.is(taken.buffer, buffer.bytes.buffer, 'adjacent chunks of one memory are one piece');
  t.is(queue.takenOwner, buffer);
  t.not(pool.take(64), buffer);
  buffer.release();
  t.is(pool.take(64), buffer);
});

test('what spans memory of different owners is a copy that nobody has to let go of', (t) => {
  const pool = new ReceivePool(1 << 20);
  const [one, other] = [pool.take(8), pool.take(8)];
  const queue = new ByteQueue();
  queue.push(one.bytes, one);
  queue.push(other.bytes, other);
  one.release();
  other.release();
  t.is(queue.takeRetained(16).length, 16);
  t.is(queue.takenOwner, null);
  const again = [pool.take(8), pool.take(8)];
  t.true(again.includes(one) && again.includes(other));
});

test('a queue that is cleared lets go of everything', (t) => {
  const pool = new ReceivePool(1 << 20);
  const buffer = pool.take(8);
  const queue = new ByteQueue();
  queue.push(buffer.bytes, buffer);
  buffer.release();
  queue.clear();
  t.is(pool.take(8), buffer);
});

test('a long payload is received straight into its place', (t) => {
  const pool = new ReceivePool(4 << 20);
  const assembly = new PayloadAssembly(100_000, pool);
  const queue = new ByteQueue();
  queue.push(Buffer.alloc(30_000, 1));
  t.is(assembly.fill(queue), null);
  assembly.room.fill(2, 0, 70_000);
  assembly.advance(70_000);
  const payload = assembly.fill(queue);
  t.is(payload?.length, 100_000);
  t.is(payload?.[29_999], 1);
  t.is(payload?.[30_000], 2);
  t.not(pool.take(100_000), assembly.owner);
});
