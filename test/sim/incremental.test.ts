/** What the simulator keeps up to date with every change, against the same worked out anew by the plainest means. */
import test from 'ava';
import { BlockBitmap } from '../../replicator/core/bitmap.ts';
import type { ActiveRange, Superblock } from '../../replicator/core/metadata.ts';
import { Differences } from './differences.ts';
import type { Copy } from './differences.ts';
import { Expectations } from './expectations.ts';
import type { WriteOp, WriteRecord } from './expectations.ts';
import { Prng } from './prng.ts';
import { SimDisk, SimPayload } from './sim-disk.ts';
import { SimMetadata } from './sim-metadata.ts';
import { World } from './world.ts';

const mebibyte = 1024 * 1024;
const sizeBytes = 12 * mebibyte;
const sectorCount = sizeBytes / 512;
const blockCount = sectorCount / 8;

const superblock: Superblock = {
  ...{
    sizeBytes,
    origin: 'created-empty',
    current: 1n,
    bitmap: [],
    partedAsPrimary: false,
    history: [],
    disk: 'UpToDate',
  },
  ...{ primary: false, writer: false, linked: false, peerExcluded: false, detached: false },
};

function makeCopies(world: World): readonly [Copy, Copy] {
  const make = (name: string): Copy => ({
    name,
    disk: new SimDisk(world, name, sizeBytes, { latencyMs: 5 }),
    metadata: new SimMetadata(world, name, superblock, 5),
  });
  return [make('a'), make('b')];
}

/** Something happens to a disk, of all that can. */
function disturb(prng: Prng, world: World, { disk }: Copy, stamp: number): void {
  const first = prng.int(sectorCount - 200);
  const count = prng.between(1, 200);
  const whatever = (): void => undefined;
  const dice = prng.int(20);
  if (dice < 16) world.run(world.nowMs + 20);
  if (dice < 10) disk.write('write', first * 512, count * 512, SimPayload.of(count, stamp), whatever);
  else if (dice < 12) disk.write('zeroes', first * 512, count * 512, null, whatever);
  else if (dice === 12) disk.write('trim', 0, sizeBytes, null, whatever);
  else if (dice < 16) disk.flush(whatever);
  else if (dice === 16) disk.powerCut();
  else if (dice === 17) disk.kill();
  else if (dice === 18) disk.faults.failNext(prng.pick(['write', 'flush']));
  else disk.faults.misdirectNext();
  // Left under way half of the time, for a power cut or a kill to find.
  if (dice < 16 && prng.chance(0.5)) world.run(world.nowMs + 20);
}

test('differences: followed with every change, they are those that a comparison of the images finds', (t) => {
  const world = new World(1n);
  const prng = new Prng(2n);
  const copies = makeCopies(world);
  const differences = new Differences(world, copies);
  let most = 0;
  for (let step = 1; step <= 400; step++) {
    disturb(prng, world, prng.pick(copies), step);
    // Now and then what one of them did is done by the other one as well.
    if (step % 7 === 0) {
      world.run(world.nowMs + 20);
      const [from, to] = copies;
      const payload = new SimPayload(from.disk.visible.slice());
      for (const { disk } of [from, to]) {
        disk.faults.repair();
        disk.write('write', 0, sizeBytes, payload, () => undefined);
      }
      world.run(world.nowMs + 20);
      for (const { disk } of copies) disk.flush(() => undefined);
      world.run(world.nowMs + 20);
    }
    const images = copies.flatMap(({ disk }) => [disk.visible, disk.stable]);
    const expected = new Set<number>();
    for (let sector = 0; sector < sectorCount; sector++) {
      if (images.some((image) => image[sector] !== images[0]?.[sector])) expected.add(Math.floor(sector / 8));
    }
    most = Math.max(most, expected.size);
    t.is(differences.count, expected.size, `after step ${step}`);
    t.deepEqual(
      [...expected].filter((block) => !differences.isDifferent(block)),
      [],
    );
  }
  t.deepEqual(world.violations, []);
  t.true(most > 100);
});

test('differences: marks are the active extents and the bitmaps of both nodes', (t) => {
  const world = new World(1n);
  const copies = makeCopies(world);
  const differences = new Differences(world, copies);
  const bitmap = new BlockBitmap(blockCount);
  bitmap.setRange(5, 2);
  const commit = (index: 0 | 1, transaction: Parameters<SimMetadata['commit']>[0]): void => {
    copies[index].metadata.commit(transaction, () => undefined);
    world.run(world.nowMs + 20);
  };
  const range: ActiveRange = { first: 1, count: 2 };
  commit(0, { activate: [range, { first: 2, count: 1 }] });
  commit(1, { chunks: [{ chunk: 0, image: bitmap.encodeChunk(0) }] });
  const marked = (blocks: readonly number[]): readonly number[] =>
    blocks.filter((block) => differences.isMarked(block));
  t.deepEqual(marked([0, 4, 5, 6, 7, 1023, 1024, 2047, 2048, 3071]), [5, 6, 1024, 2047, 2048, 3071]);
  commit(0, { deactivate: [range] });
  t.deepEqual(marked([5, 1024, 2047, 2048]), [5, 2048]);
  commit(1, { clearChunks: true });
  commit(0, { deactivate: [{ first: 2, count: 1 }] });
  t.deepEqual(marked([5, 1024, 2048]), []);
});

test('differences: one that loses its mark, or comes without one, is found at once', (t) => {
  for (const how of ['deactivated', 'never marked', 'settled'] as const) {
    const world = new World(1n);
    const copies = makeCopies(world);
    const differences = new Differences(world, copies);
    const [a, b] = copies;
    const settle = (): void => {
      for (const { metadata } of copies)
        metadata.commit({ superblock: { ...superblock, origin: 'settled' } }, () => undefined);
      world.run(world.nowMs + 20);
    };
    if (how !== 'settled') settle();
    if (how === 'deactivated') b.metadata.commit({ activate: [{ first: 0, count: 1 }] }, () => undefined);
    world.run(world.nowMs + 20);
    a.disk.write('write', 512, 512, SimPayload.of(1, 1), () => undefined);
    world.run(world.nowMs + 20);
    t.is(world.violations.length, how === 'never marked' ? 1 : 0);
    if (how === 'deactivated') b.metadata.commit({ deactivate: [{ first: 0, count: 1 }] }, () => undefined);
    if (how === 'settled') settle();
    world.run(world.nowMs + 20);
    t.deepEqual(
      world.violations.map(({ checker }) => checker),
      ['unmarked-difference'],
    );
    t.deepEqual(differences.shown('all'), [0]);
  }
});

interface Plain {
  readonly record: WriteRecord;
  readonly op: WriteOp;
}

/** The rule of expectations.ts, word for word, over all writes. */
function mayHold(writes: readonly Plain[], sector: number, value: number, since: number): boolean {
  const here = writes
    .map(({ record }) => record)
    .filter(({ first, count }) => first <= sector && sector < first + count);
  const replaced = here
    .filter((record) => record.firm && record.ended <= since)
    .reduce((latest, record) => Math.max(latest, record.issued), 0);
  return (replaced === 0 && value === 0) || here.some((one) => one.value === value && one.ended > replaced);
}

test('expectations: the tables answer as a look through all writes does', (t) => {
  for (let seed = 1n; seed <= 10n; seed++) {
    const prng = new Prng(seed);
    const sectors = 40;
    const expectations = new Expectations(sectors);
    const writes: Plain[] = [];
    const underWay: Plain[] = [];
    const reads: number[] = [];
    for (let step = 0; step < 300; step++) {
      const dice = prng.int(20);
      if (dice < 8) {
        const op = prng.pick(['write', 'write', 'trim', 'zeroes'] as const);
        const first = prng.int(sectors - 8);
        const write = { op, record: expectations.issue(op, first, prng.between(1, 8)) };
        writes.push(write);
        underWay.push(write);
      } else if (dice < 15) {
        const [write] = underWay.splice(prng.int(underWay.length), 1);
        if (write === undefined) continue;
        if (prng.chance(0.1)) expectations.givenUp(write.record);
        else expectations.acknowledged(write.record, write.op, prng.chance(0.2));
      } else if (dice < 17) {
        expectations.flushed(expectations.flushIssued().filter(() => prng.chance(0.7)));
      } else if (dice < 19) {
        reads.push(expectations.readIssued());
        if (reads.length > 3) reads.shift();
      } else if (prng.chance(0.3)) {
        if (prng.chance(0.2)) expectations.loseEverything();
        else expectations.loseUnflushed();
      }
      for (const since of [...reads, expectations.now]) {
        const sector = prng.int(sectors);
        for (const value of [0, ...writes.slice(-12).map(({ record }) => record.value), 9999]) {
          const expected = mayHold(writes, sector, value, since);
          t.is(
            expectations.isLegitimate(sector, value, since),
            expected,
            `seed ${seed}, sector ${sector} holds ${value}: ${expectations.explain(sector)}`,
          );
        }
      }
    }
  }
});
