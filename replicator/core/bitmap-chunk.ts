/**
 * The marked blocks of one chunk (65,536 blocks, 256 MiB) that is neither clean nor full: a sorted list while few are
 * marked, a bit field beyond. Positions are relative to the chunk, so 32-bit operations are safe here and only here.
 * Functions that change a chunk return the one to keep: it may have changed its form. Ranges are half open.
 */

export const chunkBlocks = 65_536;
const wordCount = chunkBlocks / 32;
/** A longer list would take more memory than the bit field. */
const listMax = 4096;
/** Back to a list well below `listMax`, so that a block set and cleared in turn does not convert each time. */
const listAgain = 2048;

export interface ListChunk {
  readonly form: 'list';
  /** Ascending in [0, count); the rest is spare capacity. */
  values: Uint16Array;
  count: number;
}

export interface BitsChunk {
  readonly form: 'bits';
  readonly words: Uint32Array;
  count: number;
}

export type Chunk = ListChunk | BitsChunk;

export function chunkWith(first: number, end: number): Chunk {
  return setIn({ form: 'list', values: new Uint16Array(0), count: 0 }, first, end);
}

export function copyChunk(chunk: Chunk): Chunk {
  return chunk.form === 'list'
    ? { form: 'list', values: chunk.values.slice(0, chunk.count), count: chunk.count }
    : { form: 'bits', words: chunk.words.slice(), count: chunk.count };
}

export function setIn(chunk: Chunk, first: number, end: number): Chunk {
  if (chunk.form === 'bits') {
    setBits(chunk, first, end);
    return chunk;
  }
  const from = lowerBound(chunk, first);
  const to = lowerBound(chunk, end);
  const length = end - first;
  const present = to - from;
  if (present === length) return chunk;
  const count = chunk.count - present + length;
  if (count > listMax) {
    const bits = bitsFromList(chunk);
    setBits(bits, first, end);
    return bits;
  }
  reserve(chunk, count);
  chunk.values.copyWithin(from + length, to, chunk.count);
  for (let i = 0; i < length; i++) chunk.values[from + i] = first + i;
  chunk.count = count;
  return chunk;
}

export function clearIn(chunk: Chunk, first: number, end: number): Chunk {
  if (chunk.form === 'list') {
    const from = lowerBound(chunk, first);
    const to = lowerBound(chunk, end);
    chunk.values.copyWithin(from, to, chunk.count);
    chunk.count -= to - from;
    return chunk;
  }
  clearBits(chunk, first, end);
  return chunk.count <= listAgain ? listFromBits(chunk) : chunk;
}

export function hasIn(chunk: Chunk, at: number): boolean {
  if (chunk.form === 'bits') return ((word(chunk, at >>> 5) >>> (at & 31)) & 1) === 1;
  return nextSetIn(chunk, at) === at;
}

export function countBetween(chunk: Chunk, first: number, end: number): number {
  if (chunk.form === 'list') return lowerBound(chunk, end) - lowerBound(chunk, first);
  let count = 0;
  for (let index = first >>> 5; index << 5 < end; index++) {
    count += ones(word(chunk, index) & maskWithin(index, first, end));
  }
  return count;
}

/** First marked position at or after `from`; `chunkBlocks` when there is none. */
export function nextSetIn(chunk: Chunk, from: number): number {
  if (chunk.form === 'list') {
    const at = lowerBound(chunk, from);
    return at < chunk.count ? (chunk.values[at] ?? chunkBlocks) : chunkBlocks;
  }
  for (let index = from >>> 5; index < wordCount; index++) {
    const bits = word(chunk, index) & maskWithin(index, from, chunkBlocks);
    if (bits !== 0) return (index << 5) + lowestBit(bits);
  }
  return chunkBlocks;
}

/** First unmarked position at or after `from`; `chunkBlocks` when there is none. */
export function nextClearIn(chunk: Chunk, from: number): number {
  if (chunk.form === 'list') {
    let at = lowerBound(chunk, from);
    let position = from;
    while (at < chunk.count && chunk.values[at] === position) {
      at++;
      position++;
    }
    return position;
  }
  for (let index = from >>> 5; index < wordCount; index++) {
    const bits = ~word(chunk, index) & maskWithin(index, from, chunkBlocks);
    if (bits !== 0) return (index << 5) + lowestBit(bits);
  }
  return chunkBlocks;
}

/** Takes over a bit field of `wordCount` words. */
export function chunkFromWords(words: Uint32Array): Chunk {
  let count = 0;
  for (const bits of words) count += ones(bits);
  const bits: BitsChunk = { form: 'bits', words, count };
  return count <= listAgain ? listFromBits(bits) : bits;
}

/** Marks in `chunk` all that is marked in `other`, which stays as it is. */
export function orIn(chunk: Chunk, other: Chunk): Chunk {
  let result = chunk;
  if (other.form === 'list') {
    for (let i = 0; i < other.count; i++) {
      const at = other.values[i] ?? 0;
      result = setIn(result, at, at + 1);
    }
    return result;
  }
  const bits = result.form === 'bits' ? result : bitsFromList(result);
  let count = 0;
  for (let index = 0; index < wordCount; index++) {
    const merged = word(bits, index) | word(other, index);
    bits.words[index] = merged;
    count += ones(merged);
  }
  bits.count = count;
  return bits;
}

export function chunkMemoryBytes(chunk: Chunk): number {
  return 96 + (chunk.form === 'list' ? chunk.values.byteLength : chunk.words.byteLength);
}

function setBits(chunk: BitsChunk, first: number, end: number): void {
  for (let index = first >>> 5; index << 5 < end; index++) {
    const before = word(chunk, index);
    const added = maskWithin(index, first, end) & ~before;
    chunk.words[index] = before | added;
    chunk.count += ones(added);
  }
}

function clearBits(chunk: BitsChunk, first: number, end: number): void {
  for (let index = first >>> 5; index << 5 < end; index++) {
    const before = word(chunk, index);
    const removed = maskWithin(index, first, end) & before;
    chunk.words[index] = before & ~removed;
    chunk.count -= ones(removed);
  }
}

function bitsFromList(chunk: ListChunk): BitsChunk {
  const words = new Uint32Array(wordCount);
  for (let i = 0; i < chunk.count; i++) {
    const at = chunk.values[i] ?? 0;
    words[at >>> 5] = (words[at >>> 5] ?? 0) | (1 << (at & 31));
  }
  return { form: 'bits', words, count: chunk.count };
}

function listFromBits(chunk: BitsChunk): ListChunk {
  const values = new Uint16Array(chunk.count);
  let length = 0;
  for (let index = 0; index < wordCount; index++) {
    for (let bits = word(chunk, index); bits !== 0; bits &= bits - 1) {
      values[length++] = (index << 5) + lowestBit(bits);
    }
  }
  return { form: 'list', values, count: length };
}

function reserve(chunk: ListChunk, count: number): void {
  if (chunk.values.length >= count) return;
  const values = new Uint16Array(Math.min(listMax, Math.max(4, count, chunk.values.length * 2)));
  values.set(chunk.values.subarray(0, chunk.count));
  chunk.values = values;
}

/** Index of the first value that is not below `value`. */
function lowerBound(chunk: ListChunk, value: number): number {
  let low = 0;
  let high = chunk.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((chunk.values[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function word(chunk: BitsChunk, index: number): number {
  return chunk.words[index] ?? 0;
}

/** The bits of word `index` whose positions lie in [first, end). */
function maskWithin(index: number, first: number, end: number): number {
  const base = index << 5;
  const low = first > base ? -1 << (first - base) : -1;
  const high = end < base + 32 ? (1 << (end - base)) - 1 : -1;
  return low & high;
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

function ones(bits: number): number {
  let n = bits - ((bits >>> 1) & 0x5555_5555);
  n = (n & 0x3333_3333) + ((n >>> 2) & 0x3333_3333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
