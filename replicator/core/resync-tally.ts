/** What a resync had to copy and what it found equal, for the record of decisions. */
import { blocksTouched } from './blocks.ts';
import type { Payload } from './packet.ts';

export class ResyncTally {
  /** Blocks copied, as data or as a hole. */
  copiedBlocks = 0;
  /** Bytes of data in them. */
  payloadBytes = 0;
  /** Packets that asked for blocks. */
  requests = 0;
  /** Blocks whose hashes were equal on both nodes. */
  equalBlocks = 0;

  copied(length: number, payload: Payload | null): void {
    this.copiedBlocks += blocksTouched(0, length).count;
    this.payloadBytes += payload?.byteLength ?? 0;
  }

  facts(): {
    readonly copiedBlocks: number;
    readonly payloadBytes: number;
    readonly equalBlocks: number;
    readonly requests: number;
  } {
    const { copiedBlocks, payloadBytes, equalBlocks, requests } = this;
    return { copiedBlocks, payloadBytes, equalBlocks, requests };
  }
}
