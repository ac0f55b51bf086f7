/**
 * The frames before a session. Who sends what when, and what it proves, is shell/handshake.ts's business; here are
 * their bytes. Their layout is the same in every protocol version: it is how two versions find out about each other.
 */
import type { PeerState } from '../core/packet.ts';
import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import { codeTable } from './code-table.ts';
import {
  handshakeTypes,
  maxAnswerBytes,
  maxHelloBytes,
  maxNameBytes,
  nonceBytes,
  proofBytes,
} from './constants.ts';
import type { VersionRange } from './constants.ts';
import { peerStateBytesMax, readPeerState, writePeerState } from './fields.ts';
import type { FrameBounds } from './frame-decoder.ts';
import type { FrameEncoder } from './frame-encoder.ts';

/** session: packets are to follow. probe: one answer with the listener's state, apart from any session. */
export type Intent = 'session' | 'probe';

/** What each side says first. */
export interface Hello {
  readonly versions: VersionRange;
  /** The listener repeats the dialler's. */
  readonly intent: Intent;
  /** Bits a later version of this program may define; those that both sides set hold. None so far. */
  readonly features: number;
  /** 32 random bytes, new for each connection. */
  readonly nonce: Uint8Array;
  readonly resourceName: string;
  readonly nodeName: string;
  /** Who the sender expects at the other end. */
  readonly peerName: string;
}

/** A hello of which only the versions can be understood: they do not overlap with ours. */
export interface ForeignHello {
  readonly versions: VersionRange;
}

/** Said before the other side is known to be the peer, so it is no more than a word. */
export type RejectReason = 'authentication-failed' | 'version-mismatch' | 'wrong-resource' | 'wrong-peer';

/** Said to the authenticated peer only. */
export type RefusedReason = 'stand-alone' | 'no-state' | 'wrong-direction';

export interface Reject {
  readonly reason: RejectReason;
  readonly versions: VersionRange;
}

export type Verdict =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'state'; readonly state: PeerState }
  | { readonly kind: 'refused'; readonly reason: RefusedReason };

/** The listener's last word. `proof` covers the verdict as well; `verdictBytes` are the bytes it was made over. */
export interface Answer {
  readonly proof: Uint8Array;
  readonly verdict: Verdict;
  readonly verdictBytes: Uint8Array;
}

const intentCodes = codeTable<Intent>({ session: 1, probe: 2 });
const rejectCodes = codeTable<RejectReason>({
  'authentication-failed': 1,
  'version-mismatch': 2,
  'wrong-resource': 3,
  'wrong-peer': 4,
});
const refusedCodes = codeTable<RefusedReason>({ 'stand-alone': 1, 'no-state': 2, 'wrong-direction': 3 });
const verdictCodes = codeTable<Verdict['kind']>({ accepted: 1, state: 2, refused: 3 });

const bounds = {
  /** The shortest hello is one of another version that has nothing in common with ours but the version range. */
  hello: { name: 'hello', bodyBytesMin: 4, bodyBytesMax: maxHelloBytes, payloadBytesMax: 0 },
  proof: { name: 'proof', bodyBytesMin: proofBytes, bodyBytesMax: proofBytes, payloadBytesMax: 0 },
  answer: { name: 'answer', bodyBytesMin: proofBytes + 1, bodyBytesMax: maxAnswerBytes, payloadBytesMax: 0 },
  reject: { name: 'reject', bodyBytesMin: 5, bodyBytesMax: 5, payloadBytesMax: 0 },
} satisfies Record<keyof typeof handshakeTypes, FrameBounds>;

/** Bounds of the frames that are acceptable at one point of the handshake. */
export function handshakeBounds(
  ...names: readonly (keyof typeof handshakeTypes)[]
): ReadonlyMap<number, FrameBounds> {
  return new Map(names.map((name) => [handshakeTypes[name], bounds[name]]));
}

/** Sends a hello and returns its body, which both proofs cover. */
export function encodeHello(frames: FrameEncoder, hello: Hello): Uint8Array {
  const writer = frames.begin(maxHelloBytes);
  const start = writer.at;
  writer.u16(hello.versions.min);
  writer.u16(hello.versions.max);
  intentCodes.write(writer, hello.intent);
  writer.u8(0);
  writer.u32(hello.features);
  if (hello.nonce.length !== nonceBytes) throw new RangeError('a nonce has 32 bytes');
  writer.raw(hello.nonce);
  writer.text(hello.resourceName, maxNameBytes);
  writer.text(hello.nodeName, maxNameBytes);
  writer.text(hello.peerName, maxNameBytes);
  const body = writer.written(start);
  frames.end(handshakeTypes.hello, null);
  return body;
}

/** `ours` decides whether the rest of the hello can be understood. */
export function decodeHello(reader: ByteReader, ours: VersionRange): Hello | ForeignHello {
  const versions = readVersions(reader);
  if (commonVersion(versions, ours) === null) return { versions };
  const intent = intentCodes.read(reader, 'intent');
  reader.flags('reserved', 0);
  const hello: Hello = {
    versions,
    intent,
    features: reader.u32('features'),
    nonce: reader.raw('nonce', nonceBytes),
    resourceName: reader.text('resourceName', maxNameBytes),
    nodeName: reader.text('nodeName', maxNameBytes),
    peerName: reader.text('peerName', maxNameBytes),
  };
  reader.finish();
  return hello;
}

/** The highest version both ranges hold, or null. */
export function commonVersion(a: VersionRange, b: VersionRange): number | null {
  const highest = Math.min(a.max, b.max);
  return highest >= Math.max(a.min, b.min) ? highest : null;
}

export function encodeProof(frames: FrameEncoder, proof: Uint8Array): void {
  frames.begin(proofBytes).raw(proof);
  frames.end(handshakeTypes.proof, null);
}

export function decodeProof(reader: ByteReader): Uint8Array {
  const proof = reader.raw('proof', proofBytes);
  reader.finish();
  return proof;
}

/** `prove` gets the bytes of the verdict and returns the proof that covers them. */
export function encodeAnswer(
  frames: FrameEncoder,
  verdict: Verdict,
  prove: (verdictBytes: Uint8Array) => Uint8Array,
): void {
  const writer = frames.begin(proofBytes + 1 + peerStateBytesMax);
  const start = writer.at;
  writer.raw(new Uint8Array(proofBytes));
  const verdictStart = writer.at;
  writeVerdict(writer, verdict);
  writer.overwrite(start, prove(writer.written(verdictStart)));
  frames.end(handshakeTypes.answer, null);
}

export function decodeAnswer(reader: ByteReader): Answer {
  const proof = reader.raw('proof', proofBytes);
  const verdictBytes = reader.peekRest();
  const verdict = readVerdict(reader);
  reader.finish();
  return { proof, verdict, verdictBytes };
}

export function encodeReject(frames: FrameEncoder, reject: Reject): void {
  const writer = frames.begin(5);
  rejectCodes.write(writer, reject.reason);
  writer.u16(reject.versions.min);
  writer.u16(reject.versions.max);
  frames.end(handshakeTypes.reject, null);
}

export function decodeReject(reader: ByteReader): Reject {
  const reason = rejectCodes.read(reader, 'reason');
  const versions = readVersions(reader);
  reader.finish();
  return { reason, versions };
}

function readVersions(reader: ByteReader): VersionRange {
  const min = reader.u16('versions');
  const max = reader.u16('versions');
  if (min > max) throw reader.error('versions', `is the empty range ${min} to ${max}`);
  return { min, max };
}

function writeVerdict(writer: ByteWriter, verdict: Verdict): void {
  verdictCodes.write(writer, verdict.kind);
  switch (verdict.kind) {
    case 'accepted':
      return;
    case 'state':
      writePeerState(writer, verdict.state);
      return;
    case 'refused':
      refusedCodes.write(writer, verdict.reason);
      return;
    default:
      verdict satisfies never;
  }
}

function readVerdict(reader: ByteReader): Verdict {
  const kind = verdictCodes.read(reader, 'verdict');
  switch (kind) {
    case 'accepted':
      return { kind };
    case 'state':
      return { kind, state: readPeerState(reader) };
    case 'refused':
      return { kind, reason: refusedCodes.read(reader, 'refused') };
    default:
      return kind satisfies never;
  }
}
