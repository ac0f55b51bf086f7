/** The queue of received bytes: every way of cutting a stream into chunks yields the same pieces. */
import fc from 'fast-check';
import test from 'ava';
import { ByteQueue, PayloadAssembly } from '../../nbd/byte-queue.ts';

function numbered(length: number): Buffer {
  // Not from the shared pool, so that views can be told from copies by their memory.
  return Buffer.from(Uint8Array.from({ length }, (_, index) => index % 251).buffer);
}

test('bytes come out in order, however they came in and are taken', (t) => {
  const sizes = fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 30 });
  fc.assert(
    fc.property(sizes, sizes, (chunks, takes) => {
      const total = chunks.reduce((sum, size) => sum + size, 0);
      const bytes = numbered(total);
      const queue = new ByteQueue();
      let at = 0;
      for (const size of chunks) {
        queue.push(bytes.subarray(at, at + size));
        at += size;
      }
      let out = 0;
      for (const [index, size] of takes.entries()) {
        if (size > queue.length) break;
        if (index % 2 === 0) t.true(queue.take(size).equals(bytes.subarray(out, out + size)));
        else t.is(queue.skip(size), size);
        out += size;
        t.is(queue.length, total - out);
      }
    }),
  );
});

test('what lies in one chunk is a view, what does not is assembled', (t) => {
  const chunk = numbered(10);
  const queue = new ByteQueue();
  queue.push(chunk);
  queue.push(numbered(10));
  t.true(queue.take(4).buffer === chunk.buffer);
  t.false(queue.take(8).buffer === chunk.buffer);
});

test('more than there is cannot be taken', (t) => {
  const queue = new ByteQueue();
  queue.push(numbered(3));
  t.throws(() => queue.take(4), { instanceOf: RangeError });
  t.is(queue.skip(4), 3);
});

test('a long payload is assembled from any pieces, and takes nothing beyond itself', (t) => {
  const length = 3 * PayloadAssembly.trust + 12_345;
  const bytes = numbered(length + 7);
  const assembly = new PayloadAssembly(length);
  const queue = new ByteQueue();
  let payload: Buffer | null = null;
  for (let at = 0; at < bytes.length; at += 65_536) {
    t.is(payload, null);
    queue.push(bytes.subarray(at, at + 65_536));
    payload = assembly.fill(queue);
  }
  t.true(payload?.equals(bytes.subarray(0, length)));
  t.is(queue.length, 7);
});
