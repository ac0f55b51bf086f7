/**
 * The replication core of one resource on one node: `step` takes an event and returns effects, nothing else happens.
 * This file holds the state that its parts share and hands events to the part they concern; the parts are one idea each.
 */
import { ActivityLog } from './activity-log.ts';
import { ActivityLogPump } from './activity-log-pump.ts';
import { AdminCommands } from './admin-commands.ts';
import type { Connection } from './connection.ts';
import { isNegotiating, isReplicating } from './connection.ts';
import { Deadlines } from './deadlines.ts';
import { DiskKeeper } from './disk-keeper.ts';
import type { Effect } from './effect.ts';
import { Epochs } from './epochs.ts';
import type { ClientOutcome, Event } from './event.ts';
import { Flushes } from './flushes.ts';
import { GivingUp } from './giving-up.ts';
import { Inbound } from './inbound.ts';
import { Lineage } from './lineage.ts';
import { Liveness } from './liveness.ts';
import { LocalDisk } from './local-disk.ts';
import { MetadataKeeper } from './metadata-keeper.ts';
import type { ActiveRange } from './metadata.ts';
import type { CoreOptions, GenerationSource } from './options.ts';
import { InvariantError, Out } from './out.ts';
import { OutOfSync } from './out-of-sync.ts';
import type { Packet, Payload } from './packet.ts';
import { PeerWrites } from './peer-writes.ts';
import { Resize } from './resize.ts';
import { ReadPath } from './read-path.ts';
import { ReadRepair } from './read-repair.ts';
import { ResyncPace } from './resync-pace.ts';
import { ResyncPause } from './resync-pause.ts';
import { ResyncProgress } from './resync-progress.ts';
import type { ClientLatency } from './resync-rate.ts';
import type { ResyncSource } from './resync-source.ts';
import type { ResyncTarget } from './resync-target.ts';
import { ResyncWatchdog } from './resync-watchdog.ts';
import { RoleCommands } from './role-commands.ts';
import { Session } from './session.ts';
import { Solo } from './solo.ts';
import type { CoreStatus, SuspendReason } from './status.ts';
import { reportStatus } from './status-report.ts';
import { reportTables } from './table-sizes.ts';
import type { TableSizes } from './table-sizes.ts';
import type { DiskState, Generation } from './vocabulary.ts';
import { Verify } from './verify.ts';
import { WritePath } from './write-path.ts';

/** A client request that waits for a gate to open; `fail` answers it without carrying it out. */
interface Held {
  readonly retry: () => void;
  readonly fail: (outcome: ClientOutcome) => void;
}

/** This node's disk: one of the states a disk of one's own can be in. */
export type OwnDisk = Exclude<DiskState, 'DUnknown' | 'Negotiating' | 'Attaching'>;

export class Core {
  options: CoreOptions;
  readonly ids: GenerationSource;
  readonly out = new Out();
  readonly meta = new MetadataKeeper(this.out);
  readonly disk = new LocalDisk(this.out);
  readonly outOfSync: OutOfSync;
  readonly epochs: Epochs;
  log: ActivityLog;
  readonly logPump = new ActivityLogPump(this);

  role: 'Primary' | 'Secondary' = 'Secondary';
  diskState: OwnDisk = 'Diskless';
  connection: Connection;
  /** Was Primary when it stopped without saying so; until the peer has spoken. */
  crashedPrimary = false;
  /** The operator's decision for the next handshake. */
  discardMyData = false;
  /** The generation that clients of this Primary see. */
  exposed: Generation = 0n;
  clients = 0;
  demoting = false;
  lastError: string | null = null;
  readonly io = { reads: 0, writes: 0, readBytes: 0, writtenBytes: 0, flushes: 0, repairedReads: 0 };

  readonly writes = new WritePath(this);
  readonly reads = new ReadPath(this);
  readonly repairs = new ReadRepair(this);
  readonly flushes = new Flushes(this);
  readonly peerWrites = new PeerWrites(this);
  readonly inbound = new Inbound(this);
  readonly session = new Session(this);
  readonly lineage = new Lineage(this);
  readonly liveness = new Liveness(this);
  readonly pace = new ResyncPace(this);
  readonly pause = new ResyncPause(this);
  readonly progress = new ResyncProgress(this);
  readonly watchdog = new ResyncWatchdog(this);
  readonly solo = new Solo(this);
  readonly roles = new RoleCommands(this);
  readonly givingUp = new GivingUp(this);
  readonly deadlines = new Deadlines(this);
  readonly admin = new AdminCommands(this);
  readonly disks = new DiskKeeper(this);
  readonly verify = new Verify(this);
  readonly resize = new Resize(this);

  #held: Held[] = [];
  #noDataSinceMs: number | null = null;
  #statusChanged = false;

  constructor(options: CoreOptions, ids: GenerationSource) {
    this.options = options;
    this.ids = ids;
    // A mirrored resource looks for its peer from the start; nobody has decided that it should stand alone.
    this.connection =
      options.peerName === null
        ? { conn: 'StandAlone', because: 'unmirrored' }
        : { conn: 'Connecting', after: null };
    this.outOfSync = new OutOfSync(options.sizeBytes);
    this.epochs = new Epochs(this.outOfSync.blockCount);
    this.log = new ActivityLog(options.activityLogExtents);
  }

  step(event: Event): readonly Effect[] {
    try {
      this.#dispatch(event);
      if (this.#statusChanged) {
        this.#statusChanged = false;
        if (this.isMirrored && this.meta.isLoaded) {
          this.out.emit({ kind: 'publishState', state: this.session.describeState() });
        }
        this.out.emit({ kind: 'statusChanged' });
      }
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      this.out.emit({ kind: 'panic', message: error.message });
    }
    return this.out.take();
  }

  status(): CoreStatus {
    return reportStatus(this);
  }

  tableSizes(): TableSizes {
    return reportTables(this);
  }

  #dispatch(event: Event): void {
    switch (event.kind) {
      case 'clientRead':
        return this.reads.submit(event.id, event.offset, event.length);
      case 'clientWrite':
        return this.writes.submit(
          event.id,
          'write',
          event.offset,
          event.length,
          event.payload,
          event.fua,
          false,
        );
      case 'clientTrim':
        return this.writes.submit(
          event.id,
          'trim',
          event.offset,
          event.length,
          null,
          event.fua,
          event.noHole,
        );
      case 'clientZeroes':
        return this.writes.submit(
          event.id,
          'zeroes',
          event.offset,
          event.length,
          null,
          event.fua,
          event.noHole,
        );
      case 'clientFlush':
        return this.flushes.submit(event.id);
      case 'localWritten':
        return this.disk.onWritten(event.id, event.outcome);
      case 'localRead':
        return this.disk.onRead(event.id, event.payload, event.hole, event.holeBytes ?? null);
      case 'localFlushed':
        return this.disk.onFlushed(event.id, event.outcome);
      case 'localRangesRead':
        return this.disk.onRangesRead(event.id, event.found);
      case 'localDigested':
        return this.disk.onDigested(event.id, event.digests);
      case 'diskGrown':
        return this.resize.onDiskGrown(event.id, event.outcome);
      case 'turnEnded':
        return this.logPump.onTurnEnded();
      case 'resyncWoken':
        this.pace.onWoken(event.nowMs);
        if (this.resync?.kind === 'target') this.resync.pump();
        return;
      case 'metadataCommitted':
        return this.meta.onCommitted(event.id);
      case 'linkUp':
        return this.session.onLinkUp(event.session);
      case 'linkDown':
        return this.session.onLinkDown(event.session, event.why, event.detail);
      case 'linkRefused':
        return this.session.onLinkRefused(event.detail);
      case 'packet':
        return this.inbound.onPacket(event.session, event.packet, event.payload);
      case 'probed':
        return this.solo.onProbed(event.id, event.outcome);
      case 'clients':
        this.clients = event.count;
        return this.changed();
      case 'command':
        return this.admin.onCommand(event.id, event.command);
      case 'configured':
        // Whoever hands in more than policies has the size from before a growth.
        this.options = { ...this.options, ...event.policies, sizeBytes: this.options.sizeBytes };
        this.solo.onConfigured();
        return this.changed();
      case 'diskOpened':
        return this.disks.onOpened(event.id, event.outcome);
      case 'tick':
        return this.#onTick(event.nowMs, event.clientLatency);
      default:
        return event satisfies never;
    }
  }

  #onTick(nowMs: number, clientLatency: ClientLatency): void {
    const sinceLastMs = this.out.nowMs === 0 ? 0 : nowMs - this.out.nowMs;
    this.out.nowMs = nowMs;
    this.pace.onTick(sinceLastMs, clientLatency);
    this.liveness.onTick(sinceLastMs);
    this.watchdog.onTick(sinceLastMs);
    this.solo.onTick();
    this.roles.onTick();
    this.repairs.onTick();
    this.givingUp.onTick();
    this.deadlines.onTick();
    this.resize.onTick();
    // What stood in the way of a checkpoint may have ended.
    this.logPump.onChange();
    this.#expireNoData();
  }

  // What the parts ask of the whole.

  get isMirrored(): boolean {
    return this.options.peerName !== null;
  }

  get hasDisk(): boolean {
    return this.diskState !== 'Diskless' && this.diskState !== 'Failed';
  }

  /** Every write goes to the peer as well. */
  get isMirroring(): boolean {
    const { connection } = this;
    if (connection.conn !== 'Connected' || !isReplicating(connection.phase)) return false;
    const { disk } = connection.peer;
    // A target that had nothing to copy is Outdated, not Inconsistent, until it has taken this node's generation.
    return isUsable(disk) || (disk === 'Outdated' && connection.phase.kind === 'syncSource');
  }

  /** This node's end of the resync under way; null when there is none. */
  get resync(): ResyncSource | ResyncTarget | null {
    const { connection } = this;
    if (connection.conn !== 'Connected') return null;
    const { phase } = connection;
    return phase.kind === 'syncSource' || phase.kind === 'syncTarget' ? phase.sync : null;
  }

  get isPeerUpToDate(): boolean {
    return (
      this.isMirroring && this.connection.conn === 'Connected' && this.connection.peer.disk === 'UpToDate'
    );
  }

  get hasData(): boolean {
    return this.diskState === 'UpToDate' || this.isPeerUpToDate;
  }

  /** Why client requests wait just now, or null. */
  holdReason(): SuspendReason | null {
    if (this.demoting) return 'demoting';
    if (this.connection.conn === 'Connected' && isNegotiating(this.connection.phase)) return 'negotiating';
    const solo = this.solo.holdReason();
    if (solo !== null) return solo;
    return this.hasData ? null : 'no-data';
  }

  get heldCount(): number {
    return this.#held.length;
  }

  hold(retry: () => void, fail: (outcome: ClientOutcome) => void): void {
    if (this.demoting) return fail('ESHUTDOWN');
    if (this.#lacksData) {
      this.#noDataSinceMs ??= this.out.nowMs;
      const waited = this.out.nowMs - this.#noDataSinceMs;
      if (waited >= this.options.noDataTimeoutMs || this.connection.conn === 'StandAlone') return fail('EIO');
    }
    this.#held.push({ retry, fail });
    this.changed();
  }

  /** A gate may have opened: everything held tries again, in order. */
  releaseHeld(): void {
    if (this.hasData) this.#noDataSinceMs = null;
    if (this.#held.length === 0 || this.holdReason() !== null) return;
    const held = this.#held;
    this.#held = [];
    this.changed();
    for (const { retry } of held) retry();
  }

  /** Requests of clients that wait here or for a record. */
  get waitingRequests(): number {
    return this.#held.length + this.writes.waitingForRecord + this.flushes.waitingForRecord;
  }

  failHeld(outcome: ClientOutcome): void {
    const held = this.#held;
    this.#held = [];
    for (const { fail } of held) fail(outcome);
  }

  #expireNoData(): void {
    if (this.#held.length > 0 && this.#lacksData) this.#noDataSinceMs ??= this.out.nowMs;
    if (this.#noDataSinceMs === null || !this.#lacksData) return;
    if (this.out.nowMs - this.#noDataSinceMs >= this.options.noDataTimeoutMs) this.failHeld('EIO');
  }

  /** No UpToDate copy in reach, and no handshake under way that may find one. */
  get #lacksData(): boolean {
    const { connection } = this;
    return !this.hasData && !(connection.conn === 'Connected' && isNegotiating(connection.phase));
  }

  complete(id: number, outcome: ClientOutcome, payload: Payload | null = null, payloadFree = false): void {
    this.out.emit({ kind: 'complete', id, outcome, payload, payloadFree });
  }

  /** Sends over the present session; nothing is sent without one. */
  send(packet: Packet, payload: Payload | null = null): void {
    if (this.connection.conn === 'Connected') {
      this.out.emit({ kind: 'send', session: this.connection.session, packet, payload });
    }
  }

  /**
   * Begins with an empty activity log; answers what the store still holds as active. Operations under way keep the old
   * one. Only where the bitmap alone tells every difference, or the disk is gone.
   */
  replaceLog(): readonly ActiveRange[] {
    const active = this.log.activeRanges();
    this.log = new ActivityLog(this.options.activityLogExtents);
    this.log.setStableEpoch(this.epochs.stable);
    this.writes.onLogReplaced();
    this.peerWrites.onLogReplaced();
    return active;
  }

  /** The device has that many bytes from here on, which its record says and its backing has. */
  growTo(sizeBytes: number): void {
    this.options = { ...this.options, sizeBytes };
    this.outOfSync.grow(sizeBytes);
    this.epochs.grow(this.outOfSync.blockCount);
    this.changed();
  }

  /** Both copies are equal: whatever a resync left behind is settled. */
  onInSync(): void {
    this.pause.onInSync();
    this.progress.onInSync();
  }

  changed(): void {
    this.#statusChanged = true;
  }

  setDisk(state: OwnDisk): void {
    if (this.diskState === state) return;
    this.diskState = state;
    this.announce();
  }

  /** Tells the peer, once it may know, what this node's disk and role are. */
  announce(): void {
    this.changed();
    this.verify.onNodesChanged();
    if (this.connection.conn === 'Connected' && !isNegotiating(this.connection.phase)) {
      this.send({ kind: 'diskState', disk: this.diskState, role: this.role });
    }
  }

  serve(): void {
    this.out.emit({ kind: 'serveClients', serve: this.role === 'Primary' && !this.demoting });
    this.changed();
  }
}

export function isUsable(disk: DiskState): boolean {
  return disk === 'UpToDate' || disk === 'Inconsistent';
}
