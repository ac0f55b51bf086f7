/** The activity log against a model: capacity, durability before use, eviction, fairness. */
import test from 'ava';
import fc from 'fast-check';
import { ActivityLog } from '../../../replicator/core/activity-log.ts';
import type { ActivityTransaction } from '../../../replicator/core/activity-log.ts';
import type { ActiveRange } from '../../../replicator/core/metadata.ts';

const extent = 4 * 1024 * 1024;

/** An operation on whole extents. */
interface Op {
  readonly id: number;
  readonly first: number;
  readonly count: number;
}

/** Owner of an activity log, which keeps the durable side and checks every promise as it goes. */
class Owner {
  readonly log: ActivityLog;
  readonly failures: string[] = [];
  readonly running = new Map<number, Op>();
  readonly waiting = new Map<number, Op>();
  /** Operations that ended, with their epochs. */
  #ended: { readonly op: Op; readonly epoch: number }[] = [];
  #durable: readonly ActiveRange[] = [];
  #outstanding: ActivityTransaction | null = null;
  #epoch = 1;
  #nextId = 0;

  constructor(capacity: number) {
    this.log = new ActivityLog(capacity);
  }

  begin(first: number, count: number): Op {
    const op = { id: this.#nextId++, first, count };
    if (this.log.begin(op.id, first * extent, count * extent) === 'active') this.#start(op);
    else this.waiting.set(op.id, op);
    this.#check('begin');
    return op;
  }

  end(op: Op): void {
    this.running.delete(op.id);
    this.log.end(op.id, this.#epoch);
    this.#ended.push({ op, epoch: this.#epoch });
    this.#check('end');
  }

  forget(op: Op): void {
    this.waiting.delete(op.id);
    this.log.forgetWaiting(op.id);
    this.#check('forget');
  }

  flush(): void {
    const stable = this.#epoch++;
    this.log.setStableEpoch(stable);
    this.#ended = this.#ended.filter(({ epoch }) => epoch > stable);
    this.#check('flush');
  }

  issue(): ActivityTransaction | null {
    const transaction = this.log.nextTransaction();
    if (transaction === null) return null;
    if (this.#outstanding !== null) this.failures.push('a second transaction while one is outstanding');
    this.#outstanding = transaction;
    for (const range of transaction.deactivate) {
      if (!has(this.#durable, range)) this.failures.push(`deactivates ${range.first}, which is not active`);
    }
    for (const range of transaction.activate) {
      if (has(this.#durable, range)) this.failures.push(`activates ${range.first} again`);
    }
    this.#check('nextTransaction');
    return transaction;
  }

  commit(): readonly number[] {
    if (this.#outstanding === null) return [];
    this.#durable = this.#remaining().concat(this.#outstanding.activate);
    this.#outstanding = null;
    if (this.#durable.filter((range) => range.count === 1).length > this.log.capacity) {
      this.failures.push('more than the capacity is active');
    }
    const started = this.log.committed();
    for (const id of started) {
      const op = this.waiting.get(id);
      this.waiting.delete(id);
      if (op === undefined) this.failures.push(`started ${id}, which does not wait`);
      else this.#start(op);
    }
    if (started.some((id, index) => id < (started[index - 1] ?? -1)))
      this.failures.push('not in order of arrival');
    this.#check('committed');
    return started;
  }

  #start(op: Op): void {
    this.running.set(op.id, op);
  }

  /** What is durable whether or not the outstanding transaction makes it to disk. */
  #remaining(): ActiveRange[] {
    const gone = this.#outstanding?.deactivate ?? [];
    return this.#durable.filter((range) => !has(gone, range));
  }

  /** All that may differ between the replicas lies in ranges that are active however the outstanding commit ends. */
  #check(after: string): void {
    const safe = this.#remaining();
    const covered = (at: number): boolean =>
      safe.some((range) => range.first <= at && at < range.first + range.count);
    for (const op of [...this.running.values(), ...this.#ended.map((ended) => ended.op)]) {
      for (let at = op.first; at < op.first + op.count; at++) {
        if (!covered(at))
          this.failures.push(`after ${after}: extent ${at} of operation ${op.id} is not active`);
      }
    }
    if (this.log.waitingCount !== this.waiting.size) this.failures.push(`after ${after}: waiting count`);
  }
}

function has(ranges: readonly ActiveRange[], range: ActiveRange): boolean {
  return ranges.some((other) => other.first === range.first && other.count === range.count);
}

const step = fc.record({
  kind: fc.constantFrom('begin', 'begin', 'begin', 'end', 'end', 'flush', 'issue', 'commit', 'forget'),
  first: fc.nat(14),
  count: fc.constantFrom(1, 1, 1, 1, 2, 3, 6),
  which: fc.nat(1000),
});

test('activity log: whatever may differ lies in active extents, within the capacity, and every operation starts', (t) => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 200, size: 'max' }),
      fc.integer({ min: 2, max: 8 }),
      (steps, capacity) => {
        const owner = new Owner(capacity);
        const pick = (ops: ReadonlyMap<number, Op>, which: number): Op | undefined =>
          [...ops.values()][which % Math.max(1, ops.size)];
        for (const { kind, first, count, which } of steps) {
          const running = pick(owner.running, which);
          const waiting = pick(owner.waiting, which);
          if (kind === 'begin') owner.begin(first, count);
          else if (kind === 'end' && running !== undefined) owner.end(running);
          else if (kind === 'flush') owner.flush();
          else if (kind === 'issue') owner.issue();
          else if (kind === 'commit') owner.commit();
          else if (kind === 'forget' && waiting !== undefined) owner.forget(waiting);
        }
        for (let round = 0; owner.waiting.size + owner.running.size > 0; round++) {
          if (round > 2 * steps.length + 2) {
            owner.failures.push('an operation never starts');
            break;
          }
          for (const op of owner.running.values()) owner.end(op);
          owner.issue();
          if (owner.log.needsFlush()) owner.flush();
          owner.issue();
          owner.commit();
        }
        owner.commit();
        owner.flush();
        owner.issue();
        owner.commit();
        if (owner.log.activeRanges().some((range) => range.count > 1))
          owner.failures.push('a bulk entry stays');
        t.deepEqual(owner.failures, []);
      },
    ),
    { numRuns: 300 },
  );
});

test('activity log: waiting operations share one transaction', (t) => {
  const owner = new Owner(8);
  owner.begin(1, 1);
  owner.begin(2, 2);
  owner.begin(3, 1);
  const transaction = owner.issue();
  t.deepEqual(
    transaction?.activate.map((range) => range.first),
    [1, 2, 3],
  );
  t.is(owner.issue(), null);
  t.deepEqual(owner.commit(), [0, 1, 2]);
  t.deepEqual(owner.failures, []);
});

test('activity log: an operation joins the outstanding transaction when that activates all it needs', (t) => {
  const owner = new Owner(8);
  owner.begin(1, 1);
  owner.issue();
  owner.begin(1, 1);
  owner.begin(2, 1);
  t.deepEqual(owner.commit(), [0, 1]);
  t.is(owner.waiting.size, 1);
});

test('activity log: an operation on active extents starts at once, though others wait', (t) => {
  const owner = new Owner(8);
  owner.begin(1, 1);
  owner.issue();
  owner.commit();
  owner.begin(2, 1);
  owner.issue();
  owner.begin(1, 1);
  t.deepEqual([...owner.running.keys()], [0, 2]);
});

test('activity log: the least recently used extent makes room', (t) => {
  const owner = new Owner(3);
  for (const first of [1, 2, 3]) owner.begin(first, 1);
  owner.issue();
  owner.commit();
  for (const op of [...owner.running.values()]) owner.end(op);
  owner.end(owner.begin(1, 1));
  owner.flush();
  owner.begin(9, 1);
  t.deepEqual(owner.issue()?.deactivate, [{ first: 2, count: 1 }]);
});

/** An owner whose log is full of these extents, idle and stable, the first one used least recently. */
function fullOf(...extents: readonly number[]): Owner {
  const owner = new Owner(extents.length);
  for (const first of extents) owner.begin(first, 1);
  owner.issue();
  owner.commit();
  for (const op of [...owner.running.values()]) owner.end(op);
  owner.flush();
  return owner;
}

test('activity log: an operation does not push out what it needs itself', (t) => {
  const owner = fullOf(2, 3, 4, 5);
  owner.begin(1, 2);
  t.deepEqual(owner.issue(), { activate: [{ first: 1, count: 1 }], deactivate: [{ first: 3, count: 1 }] });
});

test('activity log: what one operation pushed out and the next one needs simply stays', (t) => {
  const owner = fullOf(2, 4, 5, 6);
  owner.begin(9, 1);
  owner.begin(2, 2);
  t.deepEqual(owner.issue(), {
    activate: [9, 3].map((first) => ({ first, count: 1 })),
    deactivate: [4, 5].map((first) => ({ first, count: 1 })),
  });
  owner.commit();
  t.deepEqual(owner.failures, []);
});

test('activity log: an operation on what is active anyway starts from behind a blocked one', (t) => {
  const owner = fullOf(1, 2, 3, 4);
  for (const first of [1, 2, 3]) owner.begin(first, 1);
  const [fits, , same] = [owner.begin(20, 1), owner.begin(30, 1), owner.begin(20, 1)];
  owner.issue();
  t.deepEqual(owner.commit(), [fits.id, same.id]);
});

test('activity log: it asks for a flush when one would make room, and only then', (t) => {
  const owner = new Owner(2);
  const hot = owner.begin(1, 1);
  const warm = owner.begin(2, 1);
  owner.issue();
  owner.commit();
  owner.begin(3, 1);
  t.is(owner.issue(), null);
  t.false(owner.log.needsFlush(), 'both are in use');
  owner.end(warm);
  t.is(owner.issue(), null);
  t.true(owner.log.needsFlush());
  owner.flush();
  t.deepEqual(owner.issue(), { activate: [{ first: 3, count: 1 }], deactivate: [{ first: 2, count: 1 }] });
  t.false(owner.log.needsFlush());
  owner.commit();
  owner.end(hot);
  t.deepEqual(owner.failures, []);
});

test('activity log: a waiting operation gets its place though the active extents are never idle', (t) => {
  const owner = new Owner(4);
  const busy = new Map<number, Op>();
  for (const first of [1, 2, 3, 4]) busy.set(first, owner.begin(first, 1));
  owner.issue();
  owner.commit();
  const cold = owner.begin(50, 2);
  for (let turn = 0; turn < 12 && !owner.running.has(cold.id); turn++) {
    // Each hot extent gets its next operation before the previous one ends.
    for (const [first, op] of busy) {
      if (!owner.running.has(op.id)) continue;
      busy.set(first, owner.begin(first, 1));
      owner.end(op);
    }
    owner.issue();
    owner.flush();
    owner.issue();
    owner.commit();
  }
  t.true(owner.running.has(cold.id));
  t.deepEqual(owner.failures, []);
});

test('activity log: when the blocked operation is given up, those it held back start', (t) => {
  const owner = new Owner(2);
  owner.begin(1, 1);
  owner.begin(2, 1);
  owner.issue();
  owner.commit();
  const blocked = owner.begin(3, 1);
  owner.issue();
  const held = owner.begin(1, 1);
  const other = owner.begin(2, 1);
  t.deepEqual([...owner.waiting.keys()], [blocked.id, held.id], 'one of the two makes room');
  t.true(owner.running.has(other.id));
  owner.forget(blocked);
  t.deepEqual(owner.issue(), { activate: [], deactivate: [] });
  t.deepEqual(owner.commit(), [held.id]);
});

test('activity log: a huge operation has one entry of its own, gone once stable, and takes no capacity', (t) => {
  const owner = new Owner(2);
  owner.begin(1, 1);
  owner.begin(2, 1);
  const trim = owner.begin(0, 1_000);
  t.deepEqual(owner.issue()?.activate.at(-1), { first: 0, count: 1_000 });
  owner.commit();
  const inner = owner.begin(10, 100);
  t.true(owner.running.has(inner.id), 'covered by an entry that is active');
  owner.end(trim);
  owner.end(inner);
  t.is(owner.issue(), null);
  owner.flush();
  t.deepEqual(owner.issue(), { activate: [], deactivate: [{ first: 0, count: 1_000 }] });
  owner.commit();
  t.deepEqual(owner.failures, []);
});

test('activity log: hints at a flush when more than half is not stable', (t) => {
  const owner = new Owner(4);
  for (const first of [1, 2, 3, 4]) owner.begin(first, 1);
  owner.issue();
  owner.commit();
  const [a, b, c] = [...owner.running.values()];
  for (const op of [a, b]) if (op !== undefined) owner.end(op);
  t.false(owner.log.wantsFlush());
  if (c !== undefined) owner.end(c);
  t.true(owner.log.wantsFlush());
  owner.flush();
  t.false(owner.log.wantsFlush());
});

test('activity log: a clean stop empties it, but not under an operation', (t) => {
  const owner = new Owner(4);
  const op = owner.begin(1, 2);
  t.throws(() => owner.log.deactivateAll());
  owner.issue();
  t.throws(() => owner.log.deactivateAll());
  owner.commit();
  t.throws(() => owner.log.deactivateAll());
  owner.end(op);
  owner.flush();
  t.deepEqual(owner.log.deactivateAll(), [
    { first: 1, count: 1 },
    { first: 2, count: 1 },
  ]);
  t.deepEqual(owner.log.activeRanges(), []);
});

test('activity log: ending or forgetting what it does not know is a bug', (t) => {
  const log = new ActivityLog(4);
  t.throws(() => log.end(1, 1));
  t.throws(() => log.forgetWaiting(1));
  t.throws(() => log.committed());
  t.throws(() => new ActivityLog(1), { instanceOf: RangeError });
});
