/** The map of what is in flight behaves as `Map` does, whatever comes and goes, and lists in ascending order. */
import fc from 'fast-check';
import test from 'ava';
import { IdMap } from '../../../replicator/core/id-map.ts';

test('ids come and go as in a Map', (t) => {
  // Few enough ids for collisions, in steps that fall onto the same places.
  const id = fc.integer({ min: 0, max: 40 }).map((n) => (n % 5) * 64 + Math.ceil(n / 5));
  const change = fc.tuple(fc.constantFrom('set', 'delete'), id);
  fc.assert(
    fc.property(fc.array(change, { maxLength: 300 }), (changes) => {
      const map = new IdMap<number>();
      const model = new Map<number, number>();
      for (const [index, [what, key]] of changes.entries()) {
        if (what === 'set') {
          map.set(key, index);
          model.set(key, index);
        } else t.is(map.delete(key), model.delete(key));
        t.is(map.size, model.size);
        for (const [one, value] of model) t.is(map.get(one), value);
      }
      const ids = [...model.keys()].sort((a, b) => a - b);
      t.deepEqual(map.ids(), ids);
      t.is(map.first, ids[0] ?? null);
      t.deepEqual(
        map.values(),
        ids.map((one) => model.get(one)),
      );
    }),
  );
});

test('it grows with what is in flight, far beyond where it began', (t) => {
  const map = new IdMap<string>();
  for (let id = 1; id <= 10_000; id++) map.set(id * 3, `value ${id}`);
  for (let id = 1; id <= 10_000; id++) t.is(map.get(id * 3), `value ${id}`);
  t.false(map.has(4));
  map.clear();
  t.is(map.size, 0);
  t.is(map.first, null);
  t.is(map.get(3), undefined);
});

test('what is below zero is not an id', (t) => {
  t.throws(() => new IdMap<number>().set(-1, 1), { instanceOf: RangeError });
  t.false(new IdMap<number>().has(0));
  t.false(new IdMap<number>().delete(0));
});
