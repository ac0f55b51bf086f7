/** Many short ranges of the backing store read into one buffer, or written out of one, for resyncs of scattered marks. */
import type { ByteRange } from '../core/blocks.ts';
import type { RangesFound } from '../core/event.ts';
import type { BackingStore, StoreDone } from './backing-store.ts';

/** Null: one of them could not be read. Holes are not read. */
export function readRanges(
  store: BackingStore,
  ranges: readonly ByteRange[],
  done: (found: RangesFound | null) => void,
): void {
  const isHole = ranges.map(() => false);
  forEach(
    ranges,
    (range, at, next) =>
      store.isHole(range.offset, range.length, (error, hole) => {
        isHole[at] = error === null && hole;
        next(null);
      }),
    () => readData(store, ranges, isHole, done),
  );
}

function readData(
  store: BackingStore,
  ranges: readonly ByteRange[],
  isHole: readonly boolean[],
  done: (found: RangesFound | null) => void,
): void {
  const withData = ranges.filter((_, at) => isHole[at] !== true);
  if (withData.length === 0) {
    done({ isHole, payload: null });
    return;
  }
  const payload = store.takeMemory(bytesIn(withData));
  let filled = 0;
  forEach(
    withData,
    ({ offset, length }, _, next) => {
      const from = filled;
      filled += length;
      store.readInto(offset, payload.subarray(from, from + length), next);
    },
    (error) => done(error === null ? { isHole, payload } : null),
  );
}

/** `data`: of all ranges, one after the other; null for zeroes. All have ended when `done` is called. */
export function writeRanges(
  store: BackingStore,
  ranges: readonly ByteRange[],
  data: Uint8Array | null,
  done: StoreDone,
): void {
  let taken = 0;
  forEach(
    ranges,
    ({ offset, length }, _, next) => {
      if (data === null) {
        store.writeZeroes(offset, length, false, next);
        return;
      }
      const from = taken;
      taken += length;
      store.write(offset, data.subarray(from, from + length), next);
    },
    done,
  );
}

function bytesIn(ranges: readonly ByteRange[]): number {
  return ranges.reduce((sum, { length }) => sum + length, 0);
}

/** Begins all of it; `done` gets the first error when all have ended, which may be at once. */
function forEach(
  ranges: readonly ByteRange[],
  begin: (range: ByteRange, at: number, ended: StoreDone) => void,
  done: StoreDone,
): void {
  let running = ranges.length;
  let failure: Error | null = null;
  ranges.forEach((range, at) =>
    begin(range, at, (error) => {
      failure ??= error;
      if (--running === 0) done(failure);
    }),
  );
}
