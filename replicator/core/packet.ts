/**
 * The packets of the peer link as values. replicator/wire encodes them; sequence, checksum and framing are its
 * business. Packets of one session arrive in order, once, or not at all (then the session is over).
 */
import type { AfterSb1pri, AfterSb2pri, Agreed0pri } from './after-split-brain.ts';
import type { Refusal } from './refusal.ts';
import type { LimitReason } from './resync-rate.ts';
import type { DiskState, Generation, Protocol, Role } from './vocabulary.ts';
import type { Origin } from './metadata.ts';

/** Opaque bytes: a Buffer in production, a model in the simulator. The core only ever asks for the length. */
export interface Payload {
  readonly byteLength: number;
}

/** Strong hashes of a range, `digestBytes` each, in order: see `digestsBytes`. Made and compared by the driver. */
export interface Digests extends Payload {
  /**
   * Where `other`, as many hashes that the peer sent, tells another one: blocks counted from the first, ascending. Of
   * coarse hashes all blocks that one of them is about.
   */
  differing(other: Payload): readonly BlockRun[];
}

/** All that the handshake decision rests on. Sent by both sides first, and nothing else before it. */
export interface PeerState {
  readonly sizeBytes: number;
  readonly protocol: Protocol;
  readonly role: Role;
  readonly disk: DiskState;
  readonly origin: Origin;
  readonly current: Generation;
  readonly bitmap: readonly Generation[];
  readonly history: readonly Generation[];
  /** Generation that the clients of a Primary see (a diskless Primary's own current is older); zero when Secondary. */
  readonly exposed: Generation;
  readonly writer: boolean;
  readonly crashedPrimary: boolean;
  readonly linked: boolean;
  readonly peerExcluded: boolean;
  /** Blocks marked in this side's bitmap. */
  readonly dirtyBlocks: number;
  readonly discardMyData: boolean;
  /** Means something while `bitmap` is not empty. */
  readonly partedAsPrimary: boolean;
  readonly 'after-sb-0pri': Agreed0pri;
  readonly 'after-sb-1pri': AfterSb1pri;
  readonly 'after-sb-2pri': AfterSb2pri;
}

export type MirrorOp = 'write' | 'trim' | 'zeroes';

export type Packet =
  | { readonly kind: 'state'; readonly state: PeerState }
  /** Part of the sender's bitmap: runs of blocks, ascending. The last one of a bitmap has `last`. */
  | { readonly kind: 'bitmap'; readonly runs: readonly BlockRun[]; readonly last: boolean }
  /** Source to target: the resync set is durable here; what follows in the stream is mirrored. */
  | { readonly kind: 'syncStart'; readonly current: Generation; readonly history: readonly Generation[] }
  /** Both ways: what the handshake decided is on record here; mirrored writes (and a target's requests) may follow. */
  | { readonly kind: 'syncReady' }
  | { readonly kind: 'resyncRequest'; readonly id: number; readonly offset: number; readonly length: number }
  /** `zero`: the range is a hole at the source and carries no payload. */
  | {
      readonly kind: 'resyncData';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly zero: boolean;
    }
  /** As `resyncRequest`, for several runs that lie apart, ascending. */
  | { readonly kind: 'scatteredRequest'; readonly id: number; readonly runs: readonly BlockRun[] }
  /** Some of the runs of a `scatteredRequest`: holes (`zero`), or `length` bytes of data, one run after the other. */
  | {
      readonly kind: 'scatteredData';
      readonly id: number;
      readonly runs: readonly BlockRun[];
      readonly length: number;
      readonly zero: boolean;
    }
  /** As `resyncRequest`, with the hashes of the target's blocks as payload: only what differs is to be sent. */
  | {
      readonly kind: 'digestRequest';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly coarse: boolean;
    }
  /**
   * These blocks of a `digestRequest` are equal. The rest of it follows as `resyncData`; where the hashes were coarse this is
   * all of the answer, and the rest is asked for again.
   */
  | { readonly kind: 'resyncSame'; readonly id: number; readonly runs: readonly BlockRun[] }
  /** The source cannot read that range, or a part of what is left of it. */
  | { readonly kind: 'resyncFailed'; readonly id: number }
  /** Target to source: these blocks are written and flushed at the target (the proof that clears their bits). */
  | { readonly kind: 'resyncStable'; readonly runs: readonly BlockRun[] }
  /** Target to source: the target has recorded the source's generation as its own and is UpToDate. */
  | { readonly kind: 'syncFinished'; readonly current: Generation }
  | {
      readonly kind: 'write';
      readonly seq: number;
      readonly op: MirrorOp;
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly noHole: boolean;
    }
  /** Protocol B: the write has been received. */
  | { readonly kind: 'received'; readonly seq: number }
  | { readonly kind: 'written'; readonly seq: number }
  /** The peer's disk failed that write (it detaches; a `diskState` packet follows). */
  | { readonly kind: 'writeFailed'; readonly seq: number }
  /** Barrier: all writes before it in the stream, onto stable storage. */
  | { readonly kind: 'flush'; readonly epoch: number }
  | { readonly kind: 'flushed'; readonly epoch: number }
  | { readonly kind: 'flushFailed'; readonly epoch: number }
  | { readonly kind: 'read'; readonly id: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'readData'; readonly id: number }
  | { readonly kind: 'readFailed'; readonly id: number }
  /** A new generation begun by the writer while both replicas take part. */
  | {
      readonly kind: 'newGeneration';
      readonly current: Generation;
      readonly history: readonly Generation[];
    }
  | { readonly kind: 'newGenerationDone'; readonly current: Generation }
  /** The sender's disk is gone: from here on the receiver holds the only copy, as generation `current`. */
  | { readonly kind: 'peerDiskGone'; readonly current: Generation; readonly history: readonly Generation[] }
  | { readonly kind: 'peerDiskGoneDone'; readonly current: Generation }
  /** Facts about the sender, for display and decisions; sent on every change. */
  | { readonly kind: 'diskState'; readonly disk: DiskState; readonly role: Role }
  | { readonly kind: 'promoteRequest'; readonly id: number }
  | { readonly kind: 'promoteReply'; readonly id: number; readonly granted: boolean }
  | {
      readonly kind: 'handoverRequest';
      readonly id: number;
      readonly force: boolean;
      readonly dryRun: boolean;
    }
  | { readonly kind: 'handoverReply'; readonly id: number; readonly refusal: Refusal | null }
  /** May the sender give up its copy? Granted: the receiver's is on stable storage, and stays (giving-up.ts). */
  | { readonly kind: 'giveUpRequest'; readonly id: number }
  | { readonly kind: 'giveUpReply'; readonly id: number; readonly granted: boolean }
  /** The sender's copy stays after all. */
  | { readonly kind: 'giveUpEnded' }
  /** Leaving on purpose. `outdate`: the sender stays Primary, so the receiver's data is about to be outdated. */
  | {
      readonly kind: 'goodbye';
      readonly reason: 'disconnect' | 'shutdown' | 'split-brain' | 'reattach';
      readonly outdate: boolean;
    }
  /** The link is being refused after the handshake, with the rule that says so. */
  | { readonly kind: 'refused'; readonly rule: string }
  /** Whether the sender's operator has paused the resync; first told right after `state`, when that is so. */
  | { readonly kind: 'resyncPause'; readonly paused: boolean }
  /** Both ways, on every change: what the sender grants the resync. The lower of the two holds. */
  | {
      readonly kind: 'resyncLimit';
      readonly windowBytes: number;
      readonly bytesPerSecond: number | null;
      readonly reason: LimitReason;
    }
  /** The receiver's data is to be overwritten from the sender. */
  | { readonly kind: 'invalidate' }
  /** The receiver is to grow, and to answer when that is on record there; the sender's backing has grown already. */
  | { readonly kind: 'grow'; readonly id: number; readonly sizeBytes: number }
  | { readonly kind: 'grown'; readonly id: number; readonly refusal: Refusal | null }
  /** The sender compares both copies, from here on until `verifyEnd`. */
  | { readonly kind: 'verifyStart' }
  /** Hash this range, block by block or not. `mark`: say `verifyPoint` in the step that fixes what is hashed. */
  | {
      readonly kind: 'verifyRequest';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly mark: boolean;
      readonly coarse: boolean;
    }
  /** Writes before this in the stream are in the hashes that follow, writes after it are not. */
  | { readonly kind: 'verifyPoint'; readonly id: number }
  /** The hashes are the payload. */
  | { readonly kind: 'verifyDigests'; readonly id: number }
  /** The range cannot be read. */
  | { readonly kind: 'verifyFailed'; readonly id: number }
  /** These blocks of the receiver's are to be copied again from the sender: runs, ascending. The last packet has `last`. */
  | { readonly kind: 'verifyFound'; readonly runs: readonly BlockRun[]; readonly last: boolean }
  /** To the node that runs the verify: it is to stop. */
  | { readonly kind: 'verifyStop' }
  /** The sender's verify is over. */
  | { readonly kind: 'verifyEnd' }
  | { readonly kind: 'ping' }
  | { readonly kind: 'pong' };

/** `count` blocks of 4 KiB from block `first`. */
export interface BlockRun {
  readonly first: number;
  readonly count: number;
}

export type PacketKind = Packet['kind'];

/** Packets that carry a payload, whose length is not part of the packet itself. */
export const payloadKinds: ReadonlySet<PacketKind> = new Set([
  'write',
  'resyncData',
  'scatteredData',
  'readData',
  'digestRequest',
  'verifyDigests',
]);
