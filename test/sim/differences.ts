/**
 * Where the two disks differ, or would differ if either lost its cache now, and whether some record that survives a crash
 * says so: a bit of a persisted bitmap or an active extent, on either side (W3, W4). Followed with every change of a disk
 * and every transaction of the metadata, so that the rule holds at every moment and not only when somebody looks.
 */
import { BlockBitmap } from '../../replicator/core/bitmap.ts';
import type { ActiveRange } from '../../replicator/core/metadata.ts';
import { blockBytes, extentBytes } from '../../replicator/core/vocabulary.ts';
import { sectorsPerBlock } from './disk-faults.ts';
import type { SimDisk } from './sim-disk.ts';
import type { SimMetadata } from './sim-metadata.ts';
import type { World } from './world.ts';

const blocksPerExtent = extentBytes / blockBytes;

export interface Copy {
  readonly name: string;
  readonly disk: SimDisk;
  readonly metadata: SimMetadata;
}

export class Differences {
  readonly blockCount: number;
  readonly #world: World;
  readonly #copies: readonly [Copy, Copy];
  readonly #isDifferent: Uint8Array;
  /** Of each extent: how many of its blocks differ, and how many active ranges of either node cover it. */
  readonly #differing: Uint32Array;
  readonly #active: Uint32Array;
  /** The persisted bitmaps; null when not decoded since the last change. */
  readonly #bitmaps: [BlockBitmap | null, BlockBitmap | null] = [null, null];
  #isArmed = false;
  #isIgnored = false;
  /** Marks have been taken away by the transaction that is being applied. */
  #isReduced = false;

  constructor(world: World, copies: readonly [Copy, Copy]) {
    this.#world = world;
    this.#copies = copies;
    this.blockCount = copies[0].disk.visible.length / sectorsPerBlock;
    const extentCount = Math.ceil(this.blockCount / blocksPerExtent);
    this.#isDifferent = new Uint8Array(this.blockCount);
    this.#differing = new Uint32Array(extentCount);
    this.#active = new Uint32Array(extentCount);
    for (const [index, { disk, metadata }] of copies.entries()) {
      disk.listener = { onChanged: (first, count) => this.#onChanged(first, count) };
      metadata.listener = {
        onActivated: (range) => this.#count(range, 1),
        onDeactivated: (range) => {
          this.#count(range, -1);
          this.#isReduced = true;
        },
        onBitmap: () => {
          this.#bitmaps[index] = null;
          this.#isReduced = true;
        },
        onDurable: () => this.#onDurable(),
      };
    }
  }

  /** A disk is exchanged for another: until `watch` nobody has promised that records tell what differs. */
  ignore(): void {
    this.#isIgnored = true;
    this.#isArmed = false;
  }

  watch(): void {
    this.#isIgnored = false;
    this.#onDurable();
  }

  /** Blocks in which the four images (what either disk shows, what either would keep) are not all the same. */
  get count(): number {
    return this.#differing.reduce((sum, count) => sum + count, 0);
  }

  isDifferent(block: number): boolean {
    return this.#isDifferent[block] === 1;
  }

  /** Blocks in which what the two disks show differs, with or without the corrupt ones. Ascending. */
  shown(which: 'all' | 'not-corrupt'): readonly number[] {
    const [{ disk: a }, { disk: b }] = this.#copies;
    const found: number[] = [];
    const isDifferent = this.#isDifferent;
    for (let block = isDifferent.indexOf(1); block !== -1; block = isDifferent.indexOf(1, block + 1)) {
      if (which === 'not-corrupt' && this.#isCorrupt(block)) continue;
      const [from, to] = [block * sectorsPerBlock, (block + 1) * sectorsPerBlock];
      for (let sector = from; sector < to; sector++) {
        if (a.visible[sector] === b.visible[sector]) continue;
        found.push(block);
        break;
      }
    }
    return found;
  }

  /** Whether a record that survives a crash says that the block may differ. */
  isMarked(block: number): boolean {
    if ((this.#active[Math.floor(block / blocksPerExtent)] ?? 0) > 0) return true;
    return this.#bitmap(0).isSet(block) || this.#bitmap(1).isSet(block);
  }

  #onChanged(first: number, count: number): void {
    if (count === 0) return;
    const [{ disk: a }, { disk: b }] = this.#copies;
    const { visible, stable } = a;
    const { visible: otherVisible, stable: otherStable } = b;
    const isDifferent = this.#isDifferent;
    const last = (first + count - 1) >>> 3;
    for (let block = first >>> 3; block <= last; block++) {
      let now = 0;
      for (let sector = block << 3, end = sector + sectorsPerBlock; sector < end; sector++) {
        const value = visible[sector];
        if (value === stable[sector] && value === otherVisible[sector] && value === otherStable[sector])
          continue;
        now = 1;
        break;
      }
      const before = isDifferent[block] ?? 0;
      if (now !== before) {
        isDifferent[block] = now;
        const extent = Math.floor(block / blocksPerExtent);
        this.#differing[extent] = (this.#differing[extent] ?? 0) + now - before;
      }
      if (now === 1 && this.#isArmed && !this.isMarked(block)) this.#complain(block);
    }
  }

  #count(range: ActiveRange, by: number): void {
    const end = Math.min(range.first + range.count, this.#active.length);
    for (let extent = range.first; extent < end; extent++)
      this.#active[extent] = (this.#active[extent] ?? 0) + by;
  }

  #onDurable(): void {
    const isArmed =
      !this.#isIgnored && this.#copies.every(({ metadata }) => metadata.superblock.origin === 'settled');
    const isDue = isArmed && (this.#isReduced || !this.#isArmed);
    this.#isArmed = isArmed;
    this.#isReduced = false;
    if (!isDue) return;
    for (let extent = 0; extent < this.#differing.length; extent++) {
      if (this.#differing[extent] === 0 || (this.#active[extent] ?? 0) > 0) continue;
      const end = Math.min((extent + 1) * blocksPerExtent, this.blockCount);
      for (let block = extent * blocksPerExtent; block < end; block++)
        if (this.#isDifferent[block] === 1 && !this.isMarked(block)) return this.#complain(block);
    }
  }

  #complain(block: number): void {
    // Corruption that no record can know of; online verify has to find it.
    if (this.#isCorrupt(block)) return;
    const images = this.#copies.flatMap(({ name, disk }) =>
      (['visible', 'stable'] as const).map((which) => {
        const from = block * sectorsPerBlock;
        return `${name} ${which} ${disk[which].subarray(from, from + sectorsPerBlock).join(' ')}`;
      }),
    );
    this.#world.violation(
      'unmarked-difference',
      `block ${block} differs, and no record says so: ${images.join('; ')}`,
    );
  }

  #isCorrupt(block: number): boolean {
    return this.#copies.some(({ disk }) => disk.faults.corrupt.has(block));
  }

  #bitmap(index: 0 | 1): BlockBitmap {
    const known = this.#bitmaps[index];
    if (known !== null) return known;
    const { name, metadata } = this.#copies[index];
    const bitmap = new BlockBitmap(this.blockCount);
    for (const [chunk, image] of metadata.chunks) {
      if (!bitmap.decodeChunk(chunk, image))
        this.#world.violation('contract', `${name}: a malformed chunk ${chunk}`);
    }
    this.#bitmaps[index] = bitmap;
    return bitmap;
  }
}
