/**
 * The hash of 128 KiB under the keys of a session, against the formula of docs/peer-protocol.md: worked out here with plain
 * AES and arithmetic on polynomials, and twice by OpenSSL's command line (`openssl mac ... GMAC`, then `openssl dgst`).
 */
import { createCipheriv, createHash, createHmac } from 'node:crypto';
import { inspect } from 'node:util';
import test from 'ava';
import { PeerAuth } from '../../../replicator/shell/auth.ts';
import type { Transcript } from '../../../replicator/shell/auth.ts';
import { coarseBytes, CoarseHash } from '../../../replicator/shell/coarse-hash.ts';

const macKey = Buffer.from(Array.from({ length: 32 }, (_, at) => at));
const functionKey = Buffer.from(Array.from({ length: 32 }, (_, at) => 32 + at));
const transcript: Transcript = { dialler: Buffer.from('one'), listener: Buffer.from('two!') };

function patterned(lengthBytes: number): Buffer {
  return Buffer.from(Array.from({ length: lengthBytes }, (_, at) => (at * 7 + (at >> 8)) & 255));
}

function hashOf(hash: CoarseHash, data: Uint8Array): string {
  const into = Buffer.alloc(34, 9);
  hash.write(data, into, 1);
  if (into[0] !== 9 || into[33] !== 9) throw new Error('it has written beside its place');
  return into.subarray(1, 33).toString('hex');
}

/** GHASH of NIST SP 800-38D, bit by bit: blocks of 16 bytes are polynomials whose first bit is the constant term. */
function gmac(key: Buffer, data: Buffer): Buffer {
  const aes = (block: Buffer): bigint => {
    const cipher = createCipheriv('aes-256-ecb', key, null);
    return BigInt(`0x${cipher.update(block).toString('hex')}`);
  };
  const h = aes(Buffer.alloc(16));
  const timesH = (x: bigint): bigint => {
    let product = 0n;
    let v = h;
    for (let bit = 127n; bit >= 0n; bit--) {
      if ((x >> bit) & 1n) product ^= v;
      v = v & 1n ? (v >> 1n) ^ (0xe1n << 120n) : v >> 1n;
    }
    return product;
  };
  const padded = Buffer.concat([data, Buffer.alloc((16 - (data.length % 16)) % 16)]);
  let y = 0n;
  for (let at = 0; at < padded.length; at += 16)
    y = timesH(y ^ BigInt(`0x${padded.subarray(at, at + 16).toString('hex')}`));
  y = timesH(y ^ (BigInt(data.length * 8) << 64n));
  const counter = Buffer.alloc(16);
  counter.writeUInt8(1, 15);
  return Buffer.from((y ^ aes(counter)).toString(16).padStart(32, '0'), 'hex');
}

test('it is SHA-256 of the function key and the GMAC of the data', (t) => {
  const hash = new CoarseHash(macKey, functionKey);
  for (const lengthBytes of [1, 512, 4096, 4608, 3 * 4096]) {
    const data = patterned(lengthBytes);
    const expected = createHash('sha256').update(functionKey).update(gmac(macKey, data)).digest('hex');
    t.is(hashOf(hash, data), expected, `${lengthBytes} bytes`);
  }
});

test('it is what OpenSSL makes of the same keys and data', (t) => {
  const hash = new CoarseHash(macKey, functionKey);
  t.is(hashOf(hash, patterned(4096)), '992b92a2c9b0ea8414d5d58047b213ca419381e6ebfed1fe0be1e4bd5c0d3eca');
  t.is(
    hashOf(hash, patterned(coarseBytes)),
    '90fa67b2a2253afcdbfc143f939a773258047a09f79e2c0427c5a41ffa5d1ac4',
  );
});

test('either key makes it another one, and so does any bit of the data', (t) => {
  const hash = new CoarseHash(macKey, functionKey);
  const data = patterned(coarseBytes);
  const first = hashOf(hash, data);
  const seen = new Set([first]);
  const other = Buffer.alloc(32, 1);
  seen.add(hashOf(new CoarseHash(other, functionKey), data));
  seen.add(hashOf(new CoarseHash(macKey, other), data));
  seen.add(hashOf(hash, data.subarray(0, coarseBytes - 1)));
  const places = [0, 1, 15, 16, 4095, 4096, 65536, coarseBytes - 17, coarseBytes - 1];
  for (const at of places) {
    const changed = Buffer.from(data);
    changed.writeUInt8(changed.readUInt8(at) ^ 0x80, at);
    seen.add(hashOf(hash, changed));
  }
  t.is(seen.size, 4 + places.length);
  t.is(hashOf(hash, data), first, 'what was hashed before has no part in it');
});

test('what is known of zeroes is known of these keys alone', (t) => {
  const hashes = [new CoarseHash(macKey, functionKey), new CoarseHash(functionKey, macKey)];
  for (const lengthBytes of [coarseBytes, 4096, 4096 + 512, coarseBytes]) {
    for (const hash of [...hashes, ...hashes]) {
      const into = Buffer.alloc(40);
      hash.writeOfZeroes(lengthBytes, into, 4);
      t.is(into.subarray(4, 36).toString('hex'), hashOf(hash, Buffer.alloc(lengthBytes)));
      // What it keeps is not this memory.
      into.fill(1);
    }
  }
});

test('keys have 32 bytes each', (t) => {
  t.throws(() => new CoarseHash(macKey.subarray(1), functionKey), { instanceOf: RangeError });
  t.throws(() => new CoarseHash(macKey, Buffer.alloc(0)), { instanceOf: RangeError });
});

test('auth: both sides of a session make the same of secret and hellos, and it is what the protocol page says', (t) => {
  const data = patterned(4096);
  const hash = new PeerAuth('sesame').coarseHash(transcript);
  t.is(hashOf(hash, data), hashOf(new PeerAuth('sesame').coarseHash(transcript), data));
  t.is(hashOf(hash, data), 'b2d5f9fb552aeddf77f542108701a7c74fb2ccb60caacd01cccba321c4d54c06');
});

test('auth: another secret, another hello of either side, or the two exchanged: another hash', (t) => {
  const data = patterned(4096);
  const of = (secret: string, dialler: string, listener: string): string =>
    hashOf(
      new PeerAuth(secret).coarseHash({ dialler: Buffer.from(dialler), listener: Buffer.from(listener) }),
      data,
    );
  const seen = new Set([
    of('sesame', 'one', 'two!'),
    of('Sesame', 'one', 'two!'),
    of('sesame', 'onf', 'two!'),
    of('sesame', 'one', 'two?'),
    of('sesame', 'two!', 'one'),
    of('sesame', 'onet', 'wo!'),
  ]);
  t.is(seen.size, 6);
});

test('auth: what is on the wire for a proof is neither of the keys, nor are they the same', (t) => {
  const auth = new PeerAuth('sesame');
  const data = patterned(4096);
  const proofs = [auth.diallerProof(transcript), auth.listenerProof(transcript, new Uint8Array(0))];
  const words = Buffer.from('\0\0\0\x03one\0\0\0\x04two!');
  const keyOf = (label: string): Buffer =>
    createHmac('sha256', createHmac('sha256', 'sesame').update(label).digest()).update(words).digest();
  const mac = keyOf('lockstep peer 1: coarse hash mac');
  const fn = keyOf('lockstep peer 1: coarse hash function');
  t.is(hashOf(auth.coarseHash(transcript), data), hashOf(new CoarseHash(mac, fn), data));
  const all = [mac, fn, ...proofs].map((bytes) => Buffer.from(bytes).toString('hex'));
  t.is(new Set(all).size, 4);
});

test('the keys are nowhere to be seen', (t) => {
  const hash = new CoarseHash(macKey, functionKey);
  hash.writeOfZeroes(4096, Buffer.alloc(32), 0);
  t.is(inspect(hash, { depth: 9 }), 'CoarseHash {}');
  t.is(JSON.stringify(hash), '{}');
});
