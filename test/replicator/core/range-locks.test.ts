/** Range locks against a model: exactly the grants that are allowed, in order of arrival. */
import test from 'ava';
import fc from 'fast-check';
import { RangeLocks } from '../../../replicator/core/range-locks.ts';
import type { LockMode } from '../../../replicator/core/range-locks.ts';

interface Request {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
  readonly mode: LockMode;
}

function conflicts(a: Request, b: Request): boolean {
  const overlap = a.offset < b.offset + b.length && b.offset < a.offset + a.length;
  return overlap && !(a.mode === 'shared' && b.mode === 'shared');
}

/** The rule as written: a request waits for every earlier overlapping one unless both are shared. */
function isGranted(requests: readonly Request[], request: Request): boolean {
  return requests.every((earlier) => earlier.id >= request.id || !conflicts(earlier, request));
}

const step = fc.record({
  acquire: fc.boolean(),
  offset: fc.oneof(fc.nat(40), fc.constant(2 ** 44)),
  length: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constant(2 ** 44)),
  mode: fc.constantFrom<LockMode>('exclusive', 'exclusive', 'shared'),
  which: fc.nat(1000),
});

test('range locks: exactly the requests without an earlier overlapping one are granted, in order of arrival', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      const locks = new RangeLocks();
      let requests: readonly Request[] = [];
      const granted = new Set<number>();
      const failures: string[] = [];
      const expect = (what: string, is: unknown, should: unknown): void => {
        if (JSON.stringify(is) !== JSON.stringify(should)) {
          failures.push(`${what}: ${JSON.stringify(is)} instead of ${JSON.stringify(should)}`);
        }
      };
      const release = (request: Request): void => {
        requests = requests.filter((other) => other !== request);
        const newly = requests.filter((other) => !granted.has(other.id) && isGranted(requests, other));
        expect(
          'release',
          locks.release(request.id),
          newly.map((other) => other.id),
        );
        granted.delete(request.id);
        for (const other of newly) granted.add(other.id);
      };
      steps.forEach(({ acquire, offset, length, mode, which }, id) => {
        const victim = requests[which % Math.max(1, requests.length)];
        if (!acquire && victim !== undefined) {
          release(victim);
        } else {
          const anyone: Request = { id: -1, offset, length, mode: 'exclusive' };
          expect(
            'isLocked',
            locks.isLocked(offset, length),
            requests.some((other) => conflicts(other, anyone)),
          );
          const request = { id, offset, length, mode };
          requests = [...requests, request];
          const now = isGranted(requests, request);
          expect('acquire', locks.acquire(id, offset, length, mode), now);
          if (now) granted.add(id);
        }
        expect('size', [locks.size, locks.waiting], [requests.length, requests.length - granted.size]);
      });
      while (requests.length > 0) {
        const held = requests.find((request) => granted.has(request.id));
        if (held === undefined) {
          failures.push('all that are left wait');
          break;
        }
        release(held);
      }
      t.deepEqual(failures, []);
    }),
    { numRuns: 100 },
  );
});

test('range locks: a reader does not overtake a writer that waits, though it could share with the reader before', (t) => {
  const locks = new RangeLocks();
  t.true(locks.acquire(1, 0, 100, 'shared'));
  t.false(locks.acquire(2, 50, 100, 'exclusive'));
  t.false(locks.acquire(3, 90, 20, 'shared'));
  t.true(locks.acquire(4, 0, 50, 'shared'));
  t.deepEqual(locks.release(1), [2]);
  t.deepEqual(locks.release(2), [3]);
});

test('range locks: giving up a waiting request lets those behind it through', (t) => {
  const locks = new RangeLocks();
  locks.acquire(1, 0, 10, 'exclusive');
  t.false(locks.acquire(2, 0, 30, 'exclusive'));
  t.false(locks.acquire(3, 20, 10, 'exclusive'));
  t.deepEqual(locks.release(2), [3]);
  t.is(locks.waiting, 0);
});

test('range locks: more requests than the first arrays hold', (t) => {
  const locks = new RangeLocks();
  for (let id = 0; id < 1000; id++) t.true(locks.acquire(id, id * 10, 10, 'exclusive'));
  t.false(locks.acquire(1000, 0, 2 ** 50, 'exclusive'));
  for (let id = 0; id < 999; id++) t.deepEqual(locks.release(id), []);
  t.deepEqual(locks.release(999), [1000]);
});

test('range locks: an id in use, an unknown one and an empty range are bugs', (t) => {
  const locks = new RangeLocks();
  locks.acquire(1, 0, 10, 'shared');
  t.throws(() => locks.acquire(1, 100, 10, 'shared'), { message: /in use/ });
  t.throws(() => locks.release(2), { message: /not in use/ });
  t.throws(() => locks.acquire(3, 5, 0, 'shared'), { instanceOf: RangeError });
});
