/** The durability checker against toy devices that break the promise: each kind of breach has to be caught. */
import test from 'ava';
import { readStamp, stampedBytes, writeStamp } from './stamp.ts';
import { StampedLoad, seededRandom } from './stamped-load.ts';
import type { LoadClient, Violation } from './stamped-load.ts';

const sizeBytes = 64 * stampedBytes;

test('a device that keeps its promise passes', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 500);
  t.deepEqual(await load.verify(device.read), []);
  t.true(load.acknowledged >= 500);
  t.true(device.flushes > 0);
});

test('writes that were acknowledged and not carried out are caught', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 200, (count) => (count > 190 ? 'swallow' : 'write'));
  const found = kinds(await load.verify(device.read));
  t.true(found.length > 5);
  t.deepEqual([...new Set(found)], ['lost']);
});

test('whoever waits for more writes than a broken client does is told', async (t) => {
  const load = new StampedLoad({ sizeBytes, seed: 1, queueDepth: 1 });
  const phase = load.start(new ToyDevice().client((count) => (count <= 3 ? 'write' : 'fail')));
  await phase.acknowledged(3);
  await t.throwsAsync(phase.acknowledged(4), { message: 'the load ended after 3 of 4 writes' });
  await phase.ended;
  await phase.acknowledged(3);
  await t.throwsAsync(phase.acknowledged(4));
});

test('a block that goes back to an older write is caught', async (t) => {
  const device = new ToyDevice();
  const load = new StampedLoad({ sizeBytes, seed: 1, queueDepth: 1 });
  await runFor(load, device, 100);
  const before = Buffer.from(device.bytes);
  await runFor(load, device, 100);
  t.deepEqual(await load.verify(device.read), []);
  const block = changedBlock(before, device.bytes);
  before.copy(device.bytes, block * stampedBytes, block * stampedBytes, (block + 1) * stampedBytes);
  const violations = await load.verify(device.read);
  t.deepEqual(
    violations.map((violation) => [violation.block, violation.kind]),
    [[block, 'lost']],
  );
});

test('a block that turns to zeroes is caught', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 300);
  device.bytes.fill(0, 0, sizeBytes);
  t.true((await load.verify(device.read)).every((violation) => violation.kind === 'lost'));
  t.true((await load.verify(device.read)).length > 30);
});

test('half a block of one write and half of another is caught', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 300);
  device.bytes.fill(7, 5 * stampedBytes + 2048, 5 * stampedBytes + 2049);
  t.deepEqual(kinds(await load.verify(device.read)), ['torn']);
});

test('a write that landed on another block is caught', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 600);
  device.bytes.copy(device.bytes, 9 * stampedBytes, 8 * stampedBytes, 9 * stampedBytes);
  t.deepEqual(kinds(await load.verify(device.read)), ['misplaced']);
});

test('a block of an earlier run is caught', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 300);
  writeStamp({ run: 999, block: 3, sequence: 1 }).copy(device.bytes, 3 * stampedBytes);
  t.deepEqual(kinds(await load.verify(device.read)), ['foreign']);
});

const lossOfConnection = test.macro({
  async exec(t, fate: 'carried out' | 'not carried out') {
    const device = new ToyDevice();
    const load = new StampedLoad({ sizeBytes, seed: 5, queueDepth: 4 });
    await runFor(load, device, 100);
    const phase = load.start(
      device.client((count) => {
        if (count < 50) return 'write';
        return fate === 'carried out' ? 'write and fail' : 'fail';
      }),
    );
    const result = await phase.ended;
    t.not(result.reason, 'stopped');
    t.is(result.unknown, 4);
    t.deepEqual(await load.verify(device.read), []);
    // The next client goes on where this one stopped.
    await runFor(load, device, 100);
    t.deepEqual(await load.verify(device.read), []);
  },
  title: (_, fate: string) => `writes in flight when the connection is lost may have been ${fate}`,
});
test(lossOfConnection, 'carried out');
test(lossOfConnection, 'not carried out');

test('a write of a lost connection that lands after a newer one is caught', async (t) => {
  const device = new ToyDevice();
  const oneBlock = new StampedLoad({ sizeBytes: stampedBytes, seed: 1, queueDepth: 1 });
  await oneBlock.start(device.client(() => 'fail')).ended;
  const late = device.lastWrite;
  await runFor(oneBlock, device, 1);
  t.deepEqual(await oneBlock.verify(device.read), []);
  late();
  t.deepEqual(kinds(await oneBlock.verify(device.read)), ['lost']);
});

test('an unknown write that was seen once may not vanish again', async (t) => {
  const device = new ToyDevice();
  const oneBlock = new StampedLoad({ sizeBytes: stampedBytes, seed: 1, queueDepth: 1 });
  await runFor(oneBlock, device, 1);
  const before = Buffer.from(device.bytes);
  await oneBlock.start(device.client(() => 'write and fail')).ended;
  t.deepEqual(await oneBlock.verify(device.read), []);
  before.copy(device.bytes);
  t.deepEqual(kinds(await oneBlock.verify(device.read)), ['lost']);
});

test('no two writes to one block are in flight at once', async (t) => {
  const inFlight = new Set<number>();
  let most = 0;
  const load = new StampedLoad({ sizeBytes: 10 * stampedBytes, seed: 3, queueDepth: 8 });
  const phase = load.start({
    async write(offset) {
      t.false(inFlight.has(offset));
      inFlight.add(offset);
      most = Math.max(most, inFlight.size);
      await new Promise((resolve) => setImmediate(resolve));
      inFlight.delete(offset);
    },
    flush: () => Promise.resolve(),
  });
  await phase.acknowledged(200);
  await phase.stop();
  t.is(most, 8);
});

test('a stamp is read as written, and no changed bit is overlooked', (t) => {
  const stamp = { run: 0xfedcba98, block: 2 ** 33, sequence: 2 ** 40 + 1 };
  const bytes = writeStamp(stamp);
  t.deepEqual(readStamp(bytes), { kind: 'stamp', stamp });
  for (let bit = 0; bit < stampedBytes * 8; bit += 61) {
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    t.is(readStamp(changed).kind, 'torn', `bit ${bit}`);
  }
  t.is(readStamp(Buffer.alloc(stampedBytes)).kind, 'zeroes');
});

test('one seed, one sequence', (t) => {
  const [a, b, c] = [seededRandom(7), seededRandom(7), seededRandom(8)];
  const take = (random: () => number): number[] => Array.from({ length: 100 }, random);
  const numbers = take(a);
  t.deepEqual(take(b), numbers);
  t.notDeepEqual(take(c), numbers);
  t.true(numbers.every((number) => number >= 0 && number < 1));
  t.true(new Set(numbers).size > 95);
});

test('what was acknowledged after a snapshot can be given up; what was before it cannot', async (t) => {
  const device = new ToyDevice();
  const load = await loaded(device, 300);
  const kept = Buffer.from(device.bytes);
  const snapshot = load.snapshot();
  await runFor(load, device, 300);
  const discarded = Buffer.from(device.bytes);

  device.bytes.set(kept);
  t.true((await load.verify(device.read)).length > 0, 'acknowledged and not given up');
  load.giveUpSince(snapshot);
  t.deepEqual(await load.verify(device.read), [], 'the copy without them');
  load.giveUpSince(snapshot);
  device.bytes.set(discarded);
  t.deepEqual(await load.verify(device.read), [], 'the copy with them');

  const before = await loaded(device, 0);
  device.bytes.fill(0);
  await runFor(before, device, 100);
  const mark = before.snapshot();
  await runFor(before, device, 100);
  before.giveUpSince(mark);
  device.bytes.fill(0);
  t.true((await before.verify(device.read)).every(({ kind }) => kind === 'lost'));
  t.true((await before.verify(device.read)).length > 50);
});

/** What becomes of the n-th write of a client. */
type Fate = (count: number) => 'write' | 'swallow' | 'fail' | 'write and fail';

class ToyDevice {
  readonly bytes = Buffer.alloc(sizeBytes);
  flushes = 0;
  /** Carries out the last write that was handed in, whatever its fate was. */
  lastWrite: () => void = () => undefined;

  readonly read = (offset: number, length: number): Promise<Uint8Array> =>
    Promise.resolve(Buffer.from(this.bytes.subarray(offset, offset + length)));

  client(fate: Fate = () => 'write'): LoadClient {
    let count = 0;
    return {
      write: async (offset, data) => {
        const what = fate(++count);
        const carryOut = (): void => this.bytes.set(data, offset);
        this.lastWrite = carryOut;
        // As with a socket, the answer comes in a later turn of the event loop.
        await new Promise((resolve) => setImmediate(resolve));
        if (what === 'write' || what === 'write and fail') carryOut();
        if (what === 'fail' || what === 'write and fail') throw new Error('connection lost');
      },
      flush: () => {
        this.flushes++;
        return Promise.resolve();
      },
    };
  }
}

async function loaded(device: ToyDevice, writes: number, fate?: Fate): Promise<StampedLoad> {
  const load = new StampedLoad({ sizeBytes, seed: 42, flushEvery: 10 });
  await runFor(load, device, writes, fate);
  return load;
}

async function runFor(load: StampedLoad, device: ToyDevice, writes: number, fate?: Fate): Promise<void> {
  const phase = load.start(device.client(fate));
  await phase.acknowledged(writes);
  await phase.stop();
}

function kinds(violations: readonly Violation[]): string[] {
  return violations.map((violation) => violation.kind);
}

/** A block that was written in both states, differently. */
function changedBlock(before: Buffer, after: Buffer): number {
  for (let offset = 0; offset < sizeBytes; offset += stampedBytes) {
    const old = before.subarray(offset, offset + stampedBytes);
    if (readStamp(old).kind === 'stamp' && !old.equals(after.subarray(offset, offset + stampedBytes))) {
      return offset / stampedBytes;
    }
  }
  throw new Error('no block was written twice');
}
