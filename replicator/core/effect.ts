/**
 * Orders of the core to its driver, carried out in the order given. What takes time comes back as an event.
 * The driver executes all effects of one step before it hands in the next event.
 */
import type { ByteRange } from './blocks.ts';
import type { ClientOutcome, LinkDownReason } from './event.ts';
import type { Decision } from './decision.ts';
import type { Transaction } from './metadata.ts';
import type { MirrorOp, Packet, Payload, PeerState } from './packet.ts';
import type { CommandResult } from './refusal.ts';

export type Effect =
  /** -> localWritten. `payload` is null for trim and zeroes. Never overlaps another local write or locked read. */
  | {
      readonly kind: 'writeLocal';
      readonly id: number;
      readonly op: MirrorOp;
      readonly offset: number;
      readonly length: number;
      readonly payload: Payload | null;
      readonly noHole: boolean;
    }
  /**
   * -> localRead. `wantHole`: the answer may be about the beginning of the range only, either data (a shorter payload) or
   * a part without allocated data (`hole`, without payload), in whole blocks; the rest is asked for again.
   */
  | {
      readonly kind: 'readLocal';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly wantHole: boolean;
    }
  /** -> localRangesRead. Several at once, ascending, of whole blocks; each is answered as data or as a hole. */
  | { readonly kind: 'readRanges'; readonly id: number; readonly ranges: readonly ByteRange[] }
  /** -> localWritten. `payload`: the data of all, one range after the other; null for zeroes. Otherwise as writeLocal. */
  | {
      readonly kind: 'writeRanges';
      readonly id: number;
      readonly op: 'write' | 'zeroes';
      readonly ranges: readonly ByteRange[];
      readonly payload: Payload | null;
    }
  /** -> localDigested. Whole blocks; the last of the device may be short. Never overlaps a local write. */
  | {
      readonly kind: 'digestLocal';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly coarse: boolean;
    }
  /** -> localFlushed. Covers every write whose `localWritten` came before. May be merged with other waiting flushes. */
  | { readonly kind: 'flushLocal'; readonly id: number }
  /**
   * -> diskGrown. Room for a device of that many bytes: what it has more than the device has now reads as zeroes, on
   * stable storage. One at a time; reads and writes of the device go on meanwhile.
   */
  | { readonly kind: 'growDisk'; readonly id: number; readonly sizeBytes: number }
  /** -> turnEnded, once the events that have arrived by now are handed in. Never within the step that asks. */
  | { readonly kind: 'endTurn' }
  /** -> resyncWoken, so many milliseconds from now, or somewhat later. One at a time. */
  | { readonly kind: 'wakeResync'; readonly afterMs: number }
  /** -> metadataCommitted, in order. A failure stops the process. */
  | { readonly kind: 'commit'; readonly id: number; readonly transaction: Transaction }
  | {
      readonly kind: 'send';
      readonly session: number;
      readonly packet: Packet;
      readonly payload: Payload | null;
    }
  /** Keep trying to have a session with the peer (-> linkUp), or stop trying and refuse incoming ones. */
  | { readonly kind: 'wantLink'; readonly want: boolean }
  /** End this session, after what was sent before is handed to the network. No linkDown follows. */
  | {
      readonly kind: 'closeLink';
      readonly session: number;
      readonly why: LinkDownReason;
      readonly detail: string;
    }
  /** -> probed. A short authenticated connection that asks for the peer's state. Bounded by the driver's probe timeout. */
  | { readonly kind: 'probe'; readonly id: number }
  /** What probes of the peer are answered with from now on. */
  | { readonly kind: 'publishState'; readonly state: PeerState }
  | {
      readonly kind: 'complete';
      readonly id: number;
      readonly outcome: ClientOutcome;
      readonly payload: Payload | null;
      /** Of a write: neither disk nor link of this node will look at what the client handed in any more. */
      readonly payloadFree: boolean;
    }
  | { readonly kind: 'commandDone'; readonly id: number; readonly result: CommandResult }
  /** Whether NBD clients may attach: role and access to data allow it. Closing disconnects those attached. */
  | { readonly kind: 'serveClients'; readonly serve: boolean }
  /** The backing device is not to be used any more. Requests under way still answer. */
  | { readonly kind: 'closeDisk' }
  /** -> diskOpened. Open the backing device again after it was closed. */
  | { readonly kind: 'openDisk'; readonly id: number }
  /** Something the status shows has changed. */
  | { readonly kind: 'statusChanged' }
  | { readonly kind: 'decided'; readonly decision: Decision }
  | { readonly kind: 'log'; readonly level: 'info' | 'warn' | 'error'; readonly message: string }
  /** A promise can no longer be kept (broken invariant): the driver stops the process. */
  | { readonly kind: 'panic'; readonly message: string }
  /** The last effect: after the command `stop`. */
  | { readonly kind: 'stopped' };
