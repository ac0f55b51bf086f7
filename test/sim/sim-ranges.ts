/** Several ranges of a simulated disk at once: each is an operation of its own there, with its own time and its own fate. */
import type { ByteRange } from '../../replicator/core/blocks.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { DiskOutcome, Event, RangesFound } from '../../replicator/core/event.ts';
import { isZero, sectorBytes, SimPayload } from './sim-disk.ts';
import type { SimDisk } from './sim-disk.ts';

export function onRanges(
  disk: SimDisk,
  effect: Extract<Effect, { kind: 'readRanges' | 'writeRanges' }>,
  tell: (event: Event) => void,
): void {
  const { id } = effect;
  if (effect.kind === 'writeRanges')
    writeRanges(disk, effect, (outcome) => tell({ kind: 'localWritten', id, outcome }));
  else readRanges(disk, effect.ranges, (found) => tell({ kind: 'localRangesRead', id, found }));
}

function readRanges(
  disk: SimDisk,
  ranges: readonly ByteRange[],
  done: (found: RangesFound | null) => void,
): void {
  const images: (Uint32Array | null)[] = ranges.map(() => null);
  let running = ranges.length;
  ranges.forEach(({ offset, length }, at) =>
    disk.read(offset, length, (sectors) => {
      images[at] = sectors;
      if (--running === 0) done(foundIn(images));
    }),
  );
}

function foundIn(images: readonly (Uint32Array | null)[]): RangesFound | null {
  const read = images.filter((image) => image !== null);
  if (read.length < images.length) return null;
  const isHole = read.map((image) => isZero(image, 0, image.length));
  const data = read.filter((_, at) => isHole[at] === false);
  if (data.length === 0) return { isHole, payload: null };
  const sectors = new Uint32Array(data.reduce((sum, image) => sum + image.length, 0));
  let filled = 0;
  for (const image of data) {
    sectors.set(image, filled);
    filled += image.length;
  }
  return { isHole, payload: new SimPayload(sectors) };
}

function writeRanges(
  disk: SimDisk,
  { op, ranges, payload }: Extract<Effect, { kind: 'writeRanges' }>,
  done: (outcome: DiskOutcome) => void,
): void {
  const sectors = payload instanceof SimPayload ? payload.sectors : null;
  if (sectors?.length !== (op === 'write' ? sectorsIn(ranges) : undefined))
    throw new Error('ranges that are not what their payload is for');
  let running = ranges.length;
  let outcome: DiskOutcome = 'ok';
  let taken = 0;
  for (const { offset, length } of ranges) {
    const count = length / sectorBytes;
    const piece = sectors === null ? null : new SimPayload(sectors.slice(taken, taken + count));
    taken += count;
    disk.write(op, offset, length, piece, (one) => {
      if (one === 'failed') outcome = one;
      if (--running === 0) done(outcome);
    });
  }
}

function sectorsIn(ranges: readonly ByteRange[]): number {
  return ranges.reduce((sum, { length }) => sum + length / sectorBytes, 0);
}
