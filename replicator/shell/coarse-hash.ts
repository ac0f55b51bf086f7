/**
 * The coarse hash of one session, for comparing 128 KiB of two copies at a time: a universal hash of the data under a secret
 * key (GMAC), then a pseudo-random function of its value (docs/peer-protocol.md, "Hashes"). Far less work than SHA-256, and
 * for data that was written without knowledge of the keys as good as it. Which hash a block is judged by in the end is
 * none of this: that is SHA-256 (block-digests.ts).
 */
import { createCipheriv, hash } from 'node:crypto';
import { blockBytes, coarseBlocks, digestBytes } from '../core/vocabulary.ts';

/** The longest data that one coarse hash is of, in bytes. */
export const coarseBytes = coarseBlocks * blockBytes;

const keyBytes = 32;
const tagBytes = 16;
/** One for all data: a universal hash needs no nonce, since its value is never shown, only what is made of it. */
const iv = new Uint8Array(12);

/**
 * There is one for each session, made of its handshake (`PeerAuth.coarseHash`), and no other: two nodes whose hashes are of
 * different sessions find everything different, which costs a second look. Private fields: logging or serialising the object
 * shows nothing.
 */
export class CoarseHash {
  readonly #macKey: Uint8Array;
  /** The key of the function, and behind it the tag it is taken of. */
  readonly #keyAndTag = Buffer.alloc(keyBytes + tagBytes);
  /** By length, of whole blocks up to `coarseBytes`: few. */
  readonly #ofZeroes = new Map<number, Buffer>();

  /** 32 bytes each, known to the two nodes of one session alone. */
  constructor(macKey: Uint8Array, functionKey: Uint8Array) {
    if (macKey.length !== keyBytes || functionKey.length !== keyBytes)
      throw new RangeError(`keys of ${macKey.length} and ${functionKey.length} bytes, not ${keyBytes}`);
    this.#macKey = macKey;
    this.#keyAndTag.set(functionKey);
  }

  /** The hash of `data` (1 byte to `coarseBytes`), into the `digestBytes` of `into` from `at`. */
  write(data: Uint8Array, into: Buffer, at: number): void {
    const mac = createCipheriv('aes-256-gcm', this.#macKey, iv);
    mac.setAAD(data);
    mac.final();
    this.#keyAndTag.set(mac.getAuthTag(), keyBytes);
    // A third quicker than having it as a Buffer of its own.
    into.write(hash('sha256', this.#keyAndTag, 'binary'), at, digestBytes, 'latin1');
  }

  /** The same of so many zeroes. */
  writeOfZeroes(lengthBytes: number, into: Buffer, at: number): void {
    const known = this.#ofZeroes.get(lengthBytes);
    if (known !== undefined) return void known.copy(into, at);
    this.write(new Uint8Array(lengthBytes), into, at);
    if (lengthBytes % blockBytes !== 0) return;
    this.#ofZeroes.set(lengthBytes, Buffer.from(into.subarray(at, at + digestBytes)));
  }
}
