/**
 * Received bytes of one connection in the handshake phase -> options -> replies. Knows no socket. Option lengths
 * are bounded here: what is too long is skipped without being kept, what is absurd ends the session.
 */
import type { ByteQueue } from './byte-queue.ts';
import * as nbd from './constants.ts';
import {
  decodeClientFlags,
  decodeOption,
  decodeOptionHeader,
  encodeOptionReply,
  encodeServerGreeting,
} from './handshake-codec.ts';
import { beginHandshake, secureHandshake, stepHandshake } from './handshake.ts';
import type { HandshakeEnvironment, HandshakeNext, HandshakeState, HandshakeStep } from './handshake.ts';
import type { ReplyBuffer } from './reply-buffer.ts';

/** Longest option data that is looked at. An export name and any sensible list of queries fit many times. */
export const MAX_OPTION_BYTES = 64 * 1024;
/** Longest option data that is skipped and answered with NBD_REP_ERR_TOO_BIG; beyond, the session ends. */
export const MAX_SKIPPED_OPTION_BYTES = 1024 * 1024;

type Stage =
  | { readonly kind: 'clientFlags' }
  | { readonly kind: 'header'; readonly state: HandshakeState }
  | {
      readonly kind: 'data';
      readonly state: HandshakeState;
      readonly option: number;
      readonly lengthBytes: number;
    }
  | { readonly kind: 'skip'; readonly state: HandshakeState; readonly option: number; leftBytes: number }
  | { readonly kind: 'startingTls'; readonly state: HandshakeState }
  | { readonly kind: 'over' };

export class HandshakeIntake {
  readonly #environment: HandshakeEnvironment;
  readonly #replies: ReplyBuffer;
  #stage: Stage = { kind: 'clientFlags' };

  /** The greeting is written at once. */
  constructor(environment: HandshakeEnvironment, replies: ReplyBuffer) {
    this.#environment = environment;
    this.#replies = replies;
    replies.append(encodeServerGreeting());
  }

  /** Takes in at most one option. Null: there is no whole one yet. Throws NbdProtocolError when it is not NBD. */
  consume(queue: ByteQueue): HandshakeNext | null {
    for (;;) {
      const stage = this.#stage;
      switch (stage.kind) {
        case 'clientFlags':
          if (queue.length < 4) return null;
          this.#stage = { kind: 'header', state: beginHandshake(decodeClientFlags(queue.take(4))) };
          break;
        case 'header': {
          if (queue.length < nbd.OPTION_HEADER_LENGTH) return null;
          const { option, lengthBytes } = decodeOptionHeader(queue.take(nbd.OPTION_HEADER_LENGTH));
          const { state } = stage;
          if (lengthBytes <= MAX_OPTION_BYTES) this.#stage = { kind: 'data', state, option, lengthBytes };
          else if (lengthBytes > MAX_SKIPPED_OPTION_BYTES || option === nbd.NBD_OPT_EXPORT_NAME)
            return this.#end({ kind: 'close', reason: `option ${option} announces ${lengthBytes} bytes` });
          else this.#stage = { kind: 'skip', state, option, leftBytes: lengthBytes };
          break;
        }
        case 'data': {
          if (queue.length < stage.lengthBytes) return null;
          const option = decodeOption(stage.option, queue.take(stage.lengthBytes));
          return this.#answer(stepHandshake(stage.state, stage.option, option, this.#environment));
        }
        case 'skip':
          stage.leftBytes -= queue.skip(stage.leftBytes);
          if (stage.leftBytes > 0) return null;
          return this.#answer(
            stepHandshake(
              stage.state,
              stage.option,
              { kind: 'tooBig', option: stage.option },
              this.#environment,
            ),
          );
        case 'startingTls':
        case 'over':
          return null;
        default:
          return stage satisfies never;
      }
    }
  }

  /** TLS is up after `startTls` was answered. */
  secured(): void {
    if (this.#stage.kind !== 'startingTls') throw new Error('TLS that nobody asked for');
    this.#stage = { kind: 'header', state: secureHandshake(this.#stage.state) };
  }

  #answer(step: HandshakeStep): HandshakeNext {
    for (const reply of step.replies) this.#replies.append(encodeOptionReply(reply));
    switch (step.next.kind) {
      case 'continue':
        this.#stage = { kind: 'header', state: step.state };
        return step.next;
      case 'startTls':
        this.#stage = { kind: 'startingTls', state: step.state };
        return step.next;
      case 'transmission':
        if (step.next.preamble !== null) this.#replies.append(step.next.preamble);
        return this.#end(step.next);
      case 'close':
        return this.#end(step.next);
      default:
        return step.next satisfies never;
    }
  }

  #end(next: HandshakeNext): HandshakeNext {
    this.#stage = { kind: 'over' };
    return next;
  }
}
