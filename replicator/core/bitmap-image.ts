/**
 * One chunk of the dirty bitmap as bytes, the way it is kept in the metadata. The first byte names the form, numbers are
 * little endian:
 *   1 full   u32 count: the first `count` blocks are marked (all the chunk had when it was written; it may have grown)
 *   2 list   u16 positions, strictly ascending, at least one
 *   3 bits   65,536 bits, position 0 is the lowest bit of the first byte, at least one set
 * A clean chunk has no image.
 */
import { chunkBlocks, chunkFromWords, chunkWith, nextSetIn, setIn } from './bitmap-chunk.ts';
import type { Chunk } from './bitmap-chunk.ts';

const formFull = 1;
const formList = 2;
const formBits = 3;
const bitsBytes = chunkBlocks / 8;
/** A longer list would be larger than the bit field. */
const listMax = bitsBytes / 2;

export type DecodedChunk = { readonly prefix: number } | { readonly chunk: Chunk };

export function encodeFull(count: number): Uint8Array {
  const image = new Uint8Array(5);
  image[0] = formFull;
  view(image).setUint32(1, count, true);
  return image;
}

export function encodePartial(chunk: Chunk): Uint8Array {
  if (chunk.count <= listMax) {
    const image = new Uint8Array(1 + 2 * chunk.count);
    image[0] = formList;
    const bytes = view(image);
    let offset = 1;
    for (let at = nextSetIn(chunk, 0); at < chunkBlocks; at = nextSetIn(chunk, at + 1)) {
      bytes.setUint16(offset, at, true);
      offset += 2;
    }
    return image;
  }
  const image = new Uint8Array(1 + bitsBytes);
  image[0] = formBits;
  // A list never gets this long, so the chunk has the form of bits.
  if (chunk.form === 'bits') {
    const bytes = view(image);
    chunk.words.forEach((bits, index) => bytes.setUint32(1 + 4 * index, bits, true));
  }
  return image;
}

/** Null when the image is malformed or marks a block at or beyond `blocks`, the number of blocks the chunk has. */
export function decodeImage(image: Uint8Array, blocks: number): DecodedChunk | null {
  switch (image[0]) {
    case formFull:
      return decodeFull(image, blocks);
    case formList:
      return decodeList(image, blocks);
    case formBits:
      return decodeBits(image, blocks);
    default:
      return null;
  }
}

function decodeFull(image: Uint8Array, blocks: number): DecodedChunk | null {
  if (image.length !== 5) return null;
  const prefix = view(image).getUint32(1, true);
  return prefix > 0 && prefix <= blocks ? { prefix } : null;
}

function decodeList(image: Uint8Array, blocks: number): DecodedChunk | null {
  const count = (image.length - 1) / 2;
  if (!Number.isInteger(count) || count < 1 || count > listMax) return null;
  const bytes = view(image);
  let previous = bytes.getUint16(1, true);
  let chunk = chunkWith(previous, previous + 1);
  for (let i = 1; i < count; i++) {
    const at = bytes.getUint16(1 + 2 * i, true);
    if (at <= previous) return null;
    chunk = setIn(chunk, at, at + 1);
    previous = at;
  }
  return previous < blocks ? { chunk } : null;
}

function decodeBits(image: Uint8Array, blocks: number): DecodedChunk | null {
  if (image.length !== 1 + bitsBytes) return null;
  const bytes = view(image);
  const words = new Uint32Array(bitsBytes / 4);
  for (let index = 0; index < words.length; index++) words[index] = bytes.getUint32(1 + 4 * index, true);
  const chunk = chunkFromWords(words);
  return chunk.count > 0 && nextSetIn(chunk, blocks) === chunkBlocks ? { chunk } : null;
}

function view(image: Uint8Array): DataView {
  return new DataView(image.buffer, image.byteOffset, image.byteLength);
}
