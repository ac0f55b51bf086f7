/**
 * The handshake of one connection, from the first hello to the listener's verdict, without socket and clock:
 *
 *     dialler                      listener
 *     hello  ------------------->
 *            <-------------------  hello            (or reject: versions, resource, names)
 *     proof  ------------------->                   the dialler proves itself first: anybody can call the
 *            <-------------------  answer           listener, and a caller learns nothing to guess the secret by
 *
 * The answer's proof covers its verdict: accepted, the state asked for by a probe, or a refusal. Each side takes every
 * frame at most once and in this order only, so an unauthenticated peer can make the other buffer 1 KiB at most.
 */
import type { PeerState } from '../core/packet.ts';
import type { FramePhase } from '../wire/frame-decoder.ts';
import type { FrameEncoder } from '../wire/frame-encoder.ts';
import type { VersionRange } from '../wire/constants.ts';
import * as codec from '../wire/handshake-codec.ts';
import type { Hello, Intent, RefusedReason, RejectReason, Verdict } from '../wire/handshake-codec.ts';
import { handshakeTypes } from '../wire/constants.ts';
import { ProtocolError } from '../wire/protocol-error.ts';
import { isSameProof } from './auth.ts';
import type { PeerAuth, Transcript } from './auth.ts';
import type { CoarseHash } from './coarse-hash.ts';

export interface Identity {
  readonly resourceName: string;
  readonly nodeName: string;
  readonly peerName: string;
  readonly versions: VersionRange;
}

/** What a handshake needs of its connection. */
export interface HandshakeConnection {
  readonly frames: FrameEncoder;
  /** Acceptable from the next frame on. */
  become(phase: FramePhase): void;
  /** What was encoded is to be sent. */
  flush(): void;
}

export interface HandshakeOptions {
  readonly connection: HandshakeConnection;
  readonly identity: Identity;
  readonly auth: PeerAuth;
  /** 32 random bytes, never used before. */
  readonly nonce: Uint8Array;
}

/** How it ended without the connection being of use. What was sent to the peer about it has been flushed. */
export interface HandshakeFailure<Reason = RejectReason | RefusedReason> {
  readonly kind: 'failed';
  readonly reason: Reason;
  readonly detail: string;
}

/** A session may begin. */
export interface Accepted {
  readonly kind: 'accepted';
  readonly version: number;
  readonly coarseHash: CoarseHash;
}

export type DialOutcome = Accepted | { readonly kind: 'state'; readonly state: PeerState } | HandshakeFailure;

export type ListenOutcome =
  | Accepted
  /** A probe was answered, or the authenticated peer was refused what it asked for. */
  | { readonly kind: 'answered' }
  | HandshakeFailure;

/** Sends the hello and takes it from there; `done` is called once, or never if the connection ends before. */
export function dial(options: HandshakeOptions, intent: Intent, done: (outcome: DialOutcome) => void): void {
  const { connection, identity, auth } = options;
  const hello = codec.encodeHello(connection.frames, ourHello(options, intent));
  connection.become({
    bounds: codec.handshakeBounds('hello', 'reject'),
    deliver(type, body) {
      if (type === handshakeTypes.reject) {
        done(rejected(identity, codec.decodeReject(body)));
        return;
      }
      const checked = checkHello(identity, codec.decodeHello(body, identity.versions));
      if (checked.kind === 'failed') {
        reject(connection, identity, checked.reason);
        done(checked);
        return;
      }
      if (checked.hello.intent !== intent)
        throw new ProtocolError('hello.intent', 'is not the one asked for');
      const transcript: Transcript = { dialler: hello, listener: body.all() };
      codec.encodeProof(connection.frames, auth.diallerProof(transcript));
      awaitAnswer(options, intent, checked.version, transcript, done);
      connection.flush();
    },
  });
  connection.flush();
}

/**
 * Waits for a hello. `judge` is asked once the dialler has proved itself; a session it accepts is the caller's from
 * `done` on, which is called once, or never if the connection ends before.
 */
export function listen(
  options: HandshakeOptions,
  judge: (intent: Intent) => Verdict,
  done: (outcome: ListenOutcome) => void,
): FramePhase {
  const { connection, identity, auth } = options;
  return {
    bounds: codec.handshakeBounds('hello'),
    deliver(_type, body) {
      const checked = checkHello(identity, codec.decodeHello(body, identity.versions));
      if (checked.kind === 'failed') {
        reject(connection, identity, checked.reason);
        done(checked);
        return;
      }
      const { intent } = checked.hello;
      const hello = codec.encodeHello(connection.frames, ourHello(options, intent));
      const transcript: Transcript = { dialler: body.all(), listener: hello };
      connection.become({
        bounds: codec.handshakeBounds('proof', 'reject'),
        deliver(type, proofBody) {
          if (type === handshakeTypes.reject) {
            done(rejected(identity, codec.decodeReject(proofBody)));
            return;
          }
          if (!isSameProof(codec.decodeProof(proofBody), auth.diallerProof(transcript))) {
            reject(connection, identity, 'authentication-failed');
            done(failed('authentication-failed', 'a caller does not know the shared secret'));
            return;
          }
          const verdict = judge(intent);
          codec.encodeAnswer(connection.frames, verdict, (bytes) => auth.listenerProof(transcript, bytes));
          connection.flush();
          done(
            verdict.kind === 'accepted' ? accepted(auth, checked.version, transcript) : { kind: 'answered' },
          );
        },
      });
      connection.flush();
    },
  };
}

function awaitAnswer(
  options: HandshakeOptions,
  intent: Intent,
  version: number,
  transcript: Transcript,
  done: (outcome: DialOutcome) => void,
): void {
  const { connection, identity, auth } = options;
  connection.become({
    bounds: codec.handshakeBounds('answer', 'reject'),
    deliver(type, body) {
      if (type === handshakeTypes.reject) {
        done(rejected(identity, codec.decodeReject(body)));
        return;
      }
      const answer = codec.decodeAnswer(body);
      if (!isSameProof(answer.proof, auth.listenerProof(transcript, answer.verdictBytes))) {
        done(
          failed(
            'authentication-failed',
            `whoever answers for ${identity.peerName} does not know the secret`,
          ),
        );
        return;
      }
      done(conclude(options, intent, version, transcript, answer.verdict));
    },
  });
}

function conclude(
  { identity, auth }: HandshakeOptions,
  intent: Intent,
  version: number,
  transcript: Transcript,
  verdict: Verdict,
): DialOutcome {
  switch (verdict.kind) {
    case 'accepted':
      if (intent !== 'session') throw new ProtocolError('answer.verdict', 'accepts what was not asked for');
      return accepted(auth, version, transcript);
    case 'state':
      if (intent !== 'probe') throw new ProtocolError('answer.verdict', 'has a state nobody asked for');
      return { kind: 'state', state: verdict.state };
    case 'refused':
      return failed(verdict.reason, refusedDetail(identity, verdict.reason));
    default:
      return verdict satisfies never;
  }
}

function accepted(auth: PeerAuth, version: number, transcript: Transcript): Accepted {
  return { kind: 'accepted', version, coarseHash: auth.coarseHash(transcript) };
}

type CheckedHello =
  { readonly kind: 'fine'; readonly hello: Hello; readonly version: number } | HandshakeFailure<RejectReason>;

function checkHello(identity: Identity, hello: Hello | codec.ForeignHello): CheckedHello {
  const version = codec.commonVersion(identity.versions, hello.versions);
  if (version === null || !('nodeName' in hello)) {
    return failed('version-mismatch', versionDetail(identity, hello.versions));
  }
  // Names from the wire are quoted: they come from somebody who has not proved anything yet.
  if (hello.resourceName !== identity.resourceName) {
    return failed(
      'wrong-resource',
      `the other side is there for resource ${JSON.stringify(hello.resourceName)}, not ${identity.resourceName}`,
    );
  }
  if (hello.nodeName !== identity.peerName || hello.peerName !== identity.nodeName) {
    return failed(
      'wrong-peer',
      `the other side is ${JSON.stringify(hello.nodeName)} looking for ${JSON.stringify(hello.peerName)}, ` +
        `where ${identity.peerName} looking for ${identity.nodeName} is expected`,
    );
  }
  return { kind: 'fine', hello, version };
}

function ourHello(options: HandshakeOptions, intent: Intent): Hello {
  const { identity, nonce } = options;
  return { ...identity, intent, features: 0, nonce };
}

function reject(connection: HandshakeConnection, identity: Identity, reason: RejectReason): void {
  codec.encodeReject(connection.frames, { reason, versions: identity.versions });
  connection.flush();
}

function failed<Reason extends string>(reason: Reason, detail: string): HandshakeFailure<Reason> {
  return { kind: 'failed', reason, detail: `${reason}: ${detail}` };
}

function rejected(identity: Identity, reject: codec.Reject): HandshakeFailure {
  switch (reject.reason) {
    case 'authentication-failed':
      return failed(reject.reason, `${identity.peerName} has another shared secret`);
    case 'version-mismatch':
      return failed(reject.reason, versionDetail(identity, reject.versions));
    case 'wrong-resource':
      return failed(reject.reason, `the other side does not have resource ${identity.resourceName} there`);
    case 'wrong-peer':
      return failed(
        reject.reason,
        `the other side is not ${identity.peerName}, or does not expect ${identity.nodeName}`,
      );
    default:
      return reject.reason satisfies never;
  }
}

function refusedDetail(identity: Identity, reason: RefusedReason): string {
  switch (reason) {
    case 'stand-alone':
      return `${identity.peerName} is StandAlone and accepts no connection`;
    case 'no-state':
      return `${identity.peerName} is just starting and has no state to show yet`;
    case 'wrong-direction':
      return `${identity.peerName} expects to be the one who dials`;
    default:
      return reason satisfies never;
  }
}

function versionDetail(identity: Identity, theirs: VersionRange): string {
  const { min, max } = identity.versions;
  return `this node speaks versions ${min} to ${max}, the other side ${theirs.min} to ${theirs.max}`;
}
