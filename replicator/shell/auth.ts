/**
 * Proof that both ends of a connection know the shared secret, without sending it: HMAC-SHA256 over both hellos
 * (and so over both nonces, names, versions and the resource). Each direction has a key of its own, so a proof sent
 * back to its author proves nothing; fresh nonces make yesterday's proofs worthless. The keys of a session's coarse hashes come
 * from the same words, by keys that prove nothing.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { CoarseHash } from './coarse-hash.ts';

/** The hellos' bodies, byte for byte as they were on the wire. */
export interface Transcript {
  readonly dialler: Uint8Array;
  readonly listener: Uint8Array;
}

/** Holds keys derived from the secret. Private fields: logging or serialising the object shows nothing. */
export class PeerAuth {
  readonly #diallerKey: Uint8Array;
  readonly #listenerKey: Uint8Array;
  readonly #hashMacKey: Uint8Array;
  readonly #hashFunctionKey: Uint8Array;

  /** `secret`: 1 to 1024 bytes of UTF-8. */
  constructor(secret: string) {
    const bytes = Buffer.from(secret, 'utf8');
    if (bytes.length < 1 || bytes.length > 1024) throw new RangeError('a shared secret has 1 to 1024 bytes');
    this.#diallerKey = hmac(bytes, Buffer.from('lockstep peer 1: dialler'));
    this.#listenerKey = hmac(bytes, Buffer.from('lockstep peer 1: listener'));
    this.#hashMacKey = hmac(bytes, Buffer.from('lockstep peer 1: coarse hash mac'));
    this.#hashFunctionKey = hmac(bytes, Buffer.from('lockstep peer 1: coarse hash function'));
  }

  /** What the dialler sends after the hellos. */
  diallerProof(transcript: Transcript): Uint8Array {
    return hmac(this.#diallerKey, ...parts(transcript));
  }

  /** What the listener sends back, together with the verdict it covers. */
  listenerProof(transcript: Transcript, verdictBytes: Uint8Array): Uint8Array {
    return hmac(this.#listenerKey, ...parts(transcript), ...framed(verdictBytes));
  }

  /** Of the session that these hellos began, the same on both sides. Both nonces are in it, so no other session has its keys. */
  coarseHash(transcript: Transcript): CoarseHash {
    const words = parts(transcript);
    return new CoarseHash(hmac(this.#hashMacKey, ...words), hmac(this.#hashFunctionKey, ...words));
  }
}

/** Compares in a time that does not tell how much of a guess was right. */
export function isSameProof(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

function parts(transcript: Transcript): readonly Uint8Array[] {
  return [...framed(transcript.dialler), ...framed(transcript.listener)];
}

/** With its length in front, so that no two transcripts run together into the same bytes. */
function framed(bytes: Uint8Array): readonly [Uint8Array, Uint8Array] {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return [length, bytes];
}

function hmac(key: Uint8Array, ...data: readonly Uint8Array[]): Uint8Array {
  const mac = createHmac('sha256', key);
  for (const part of data) mac.update(part);
  return mac.digest();
}
