/** Things that happened, told to the core by its driver (the shell or the simulator). */
import type { DeviceError } from '../../nbd/block-device.ts';
import type { Command } from './command.ts';
import type { MetadataImage } from './metadata.ts';
import type { CorePolicies } from './options.ts';
import type { Digests, Packet, Payload, PeerState } from './packet.ts';
import type { Refusal } from './refusal.ts';
import type { ClientLatency } from './resync-rate.ts';

export type DiskOutcome = 'ok' | 'failed';

export type Event =
  /** Client requests; `id` is the driver's, unique among requests in flight. */
  | { readonly kind: 'clientRead'; readonly id: number; readonly offset: number; readonly length: number }
  | {
      readonly kind: 'clientWrite';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly payload: Payload;
      readonly fua: boolean;
    }
  | {
      readonly kind: 'clientTrim' | 'clientZeroes';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly noHole: boolean;
    }
  | { readonly kind: 'clientFlush'; readonly id: number }
  /** Answers of the backing device; `id` is the effect's. */
  | { readonly kind: 'localWritten'; readonly id: number; readonly outcome: DiskOutcome }
  | {
      readonly kind: 'localRead';
      readonly id: number;
      readonly payload: Payload | null;
      readonly hole: boolean;
      /** Of a hole that begins the range and does not fill it: its length. */
      readonly holeBytes?: number;
    }
  /** `found` is null when one of the ranges could not be read. */
  | { readonly kind: 'localRangesRead'; readonly id: number; readonly found: RangesFound | null }
  /** Null: the range could not be read. */
  | { readonly kind: 'localDigested'; readonly id: number; readonly digests: Digests | null }
  | { readonly kind: 'localFlushed'; readonly id: number; readonly outcome: DiskOutcome }
  | { readonly kind: 'diskGrown'; readonly id: number; readonly outcome: DiskGrowth }
  | { readonly kind: 'metadataCommitted'; readonly id: number }
  /** Answer to `endTurn`. */
  | { readonly kind: 'turnEnded' }
  /** Answer to `wakeResync`; the clock is that of the ticks. */
  | { readonly kind: 'resyncWoken'; readonly nowMs: number }
  /** An authenticated session with the peer is up; packets of it carry the same number. */
  | { readonly kind: 'linkUp'; readonly session: number }
  | {
      readonly kind: 'linkDown';
      readonly session: number;
      readonly why: LinkDownReason;
      readonly detail: string;
    }
  /** An attempt to connect failed; only for display. */
  | { readonly kind: 'linkRefused'; readonly detail: string }
  | {
      readonly kind: 'packet';
      readonly session: number;
      readonly packet: Packet;
      readonly payload: Payload | null;
    }
  | { readonly kind: 'probed'; readonly id: number; readonly outcome: ProbeOutcome }
  /** The number of NBD clients attached just now. */
  | { readonly kind: 'clients'; readonly count: number }
  | { readonly kind: 'command'; readonly id: number; readonly command: Command }
  /** New limits and policies, from now on. Node names, size, protocol and activity log stay as they were. */
  | { readonly kind: 'configured'; readonly policies: CorePolicies }
  /** Answer to the effect `openDisk`; with id 0 the first event of all, once disk and metadata are open. */
  | { readonly kind: 'diskOpened'; readonly id: number; readonly outcome: DiskOpenOutcome }
  /** Time, monotonic milliseconds; about every 100 ms. With what clients' requests took since the last one. */
  | { readonly kind: 'tick'; readonly nowMs: number; readonly clientLatency: ClientLatency };

/** `isHole`: of each range. `payload`: what is in the others, one after the other; null when there is none. */
export interface RangesFound {
  readonly isHole: readonly boolean[];
  readonly payload: Payload | null;
}

export type LinkDownReason = 'BrokenPipe' | 'NetworkFailure' | 'ProtocolError' | 'Timeout' | 'TearDown';

/** What a short authenticated look at the peer, apart from any session, found. */
export type ProbeOutcome =
  | { readonly kind: 'unreachable'; readonly detail: string }
  | { readonly kind: 'answered'; readonly state: PeerState };

export type DiskOpenOutcome =
  | { readonly kind: 'opened'; readonly image: MetadataImage }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

export type DiskGrowth = { readonly kind: 'grown' } | { readonly kind: 'refused'; readonly refusal: Refusal };

export type ClientOutcome = DeviceError | null;
