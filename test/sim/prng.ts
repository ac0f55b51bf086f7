/**
 * The only randomness of a simulation: xoshiro128** (Blackman, Vigna), its state drawn from a 64-bit seed by splitmix64.
 * Parts of a simulation fork streams of their own, so that a change in one does not shift all the others.
 */

const mask = (1n << 64n) - 1n;

export class Prng {
  // Four fields and no array: this is called for nearly everything that happens.
  #s0: number;
  #s1: number;
  #s2: number;
  #s3: number;

  constructor(seed: bigint) {
    let word = seed & mask;
    const next = (): bigint => {
      word = (word + 0x9e37_79b9_7f4a_7c15n) & mask;
      let z = word;
      z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & mask;
      z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & mask;
      return z ^ (z >> 31n);
    };
    const [a, b] = [next(), next()];
    this.#s0 = Number(a & 0xffff_ffffn) | 0;
    this.#s1 = Number((a >> 32n) & 0xffff_ffffn) | 0;
    this.#s2 = Number(b & 0xffff_ffffn) | 0;
    this.#s3 = Number((b >> 32n) & 0xffff_ffffn) | 0;
  }

  uint32(): number {
    const s1 = this.#s1;
    const result = Math.imul(rotate(Math.imul(s1, 5), 7), 9) >>> 0;
    const c = this.#s2 ^ this.#s0;
    const d = this.#s3 ^ s1;
    this.#s1 = s1 ^ c;
    this.#s0 = this.#s0 ^ d;
    this.#s2 = c ^ (s1 << 9);
    this.#s3 = rotate(d, 11);
    return result;
  }

  /** A whole number in [0, n). The bias is below n / 2^32. */
  int(n: number): number {
    return Math.floor((this.uint32() / 2 ** 32) * n);
  }

  /** A whole number in [low, high]. */
  between(low: number, high: number): number {
    return low + this.int(high - low + 1);
  }

  chance(probability: number): boolean {
    return this.uint32() < probability * 2 ** 32;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.int(items.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }

  /** 64 random bits, never zero. */
  bits64(): bigint {
    const bits = (BigInt(this.uint32()) << 32n) | BigInt(this.uint32());
    return bits === 0n ? 1n : bits;
  }

  fork(): Prng {
    return new Prng(this.bits64());
  }
}

function rotate(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}
