/**
 * A session with the peer from its first packet to its end: both sides send their state, reach the same decision
 * (handshake-rules.ts), exchange bitmaps if there is something to copy, record the decision, and only then mirror.
 */
import { agreed0pri } from './after-split-brain.ts';
import type { Connected, Phase, StandAloneReason } from './connection.ts';
import { isNegotiating, isReplicating } from './connection.ts';
import type { Core } from './core.ts';
import type { LinkDownReason } from './event.ts';
import { describeDiscard, describeVerdict, handshakeInputs, standApartReason } from './handshake-report.ts';
import type { HandshakeRule, Verdict } from './handshake-rules.ts';
import { decideHandshake } from './handshake-rules.ts';
import type { Superblock, Transaction } from './metadata.ts';
import { settleLineage } from './metadata-keeper.ts';
import type { Packet, Payload, PeerState } from './packet.ts';
import { assert } from './out.ts';
import type { Refusal } from './refusal.ts';
import { comparesHashes } from './resync-method.ts';
import { ResyncSource } from './resync-source.ts';
import { SyncStart } from './sync-start.ts';

/** Rules by which a peer that says `refused` went StandAlone, as this node then does too. */
const splitBrainRules: ReadonlySet<string> = new Set([
  'bitmap-both',
  'history-both',
  'two-primaries',
  'after-sb-mismatch',
  'after-sb-undecided',
]);
const unrelatedRules: ReadonlySet<string> = new Set([
  'unrelated',
  'fresh-both-data',
  'just-created-with-data',
]);

export class Session {
  readonly #core: Core;
  readonly #syncStart: SyncStart;
  /** The loss of the last session is being recorded: the next handshake waits for it. */
  #recordingLoss = false;
  /**
   * This disk holds what this node answered its peer. Not so when it went down while linked, until a handshake has found it
   * whole: under protocol A and B, or in its cache, it may have had more. It has noticed no loss then, whatever comes.
   */
  #keptAll = false;
  /** The peer was lost with a whole copy, of which nothing worse has been heard since. */
  lostWholePeer = false;
  #started = false;

  constructor(core: Core) {
    this.#core = core;
    this.#syncStart = new SyncStart(core, this);
  }

  /** Whether this disk, once flushed, may speak for all that the peer has acknowledged. */
  get keptAll(): boolean {
    return this.#keptAll;
  }

  /** After the disk has been opened: look for the peer. */
  start(): void {
    const core = this.#core;
    this.#started = true;
    this.#keptAll = !core.meta.superblock.linked;
    core.out.emit({ kind: 'publishState', state: this.describeState() });
    // An operator may have disconnected it meanwhile.
    if (core.connection.conn !== 'StandAlone') core.out.emit({ kind: 'wantLink', want: true });
    core.changed();
  }

  /** The disk is open and what a crash left is on record: sessions may begin. */
  get hasStarted(): boolean {
    return this.#started;
  }

  describeState(): PeerState {
    const core = this.#core;
    const { superblock } = core.meta;
    const { options } = core;
    return {
      sizeBytes: options.sizeBytes,
      protocol: options.protocol,
      role: core.role,
      disk: core.diskState,
      origin: superblock.origin,
      current: superblock.current,
      bitmap: superblock.bitmap,
      history: superblock.history,
      exposed: core.role === 'Primary' ? core.exposed : 0n,
      writer: superblock.writer,
      crashedPrimary: core.crashedPrimary,
      linked: superblock.linked,
      peerExcluded: superblock.peerExcluded,
      dirtyBlocks: core.outOfSync.blocks,
      discardMyData: core.discardMyData,
      partedAsPrimary: superblock.partedAsPrimary,
      'after-sb-0pri': agreed0pri(options['after-sb-0pri'], options.nodeName, options.peerName ?? ''),
      'after-sb-1pri': options['after-sb-1pri'],
      'after-sb-2pri': options['after-sb-2pri'],
    };
  }

  // Beginning.

  onLinkUp(session: number): void {
    const core = this.#core;
    const { nowMs } = core.out;
    if (core.connection.conn === 'StandAlone') {
      core.out.emit({ kind: 'closeLink', session, why: 'TearDown', detail: 'this node is StandAlone' });
      return;
    }
    if (core.connection.conn === 'Connected')
      this.#end('NetworkFailure', 'a new session replaces the old one');
    core.lastError = null;
    core.connection = {
      conn: 'Connected',
      session,
      phase: { kind: 'settling', sinceMs: nowMs, early: null },
      peer: { role: 'Unknown', disk: 'DUnknown' },
      peerCurrent: 0n,
      lastHeardMs: nowMs,
      lastPingMs: nowMs,
    };
    core.peerWrites.onSessionBegun(session);
    core.liveness.onSessionBegun();
    core.pace.onSessionBegun();
    core.pause.onSessionBegun();
    core.changed();
    this.introduce();
  }

  /** Sends the own state once it no longer changes by itself: the loss of the last session is on record. */
  introduce(): void {
    const core = this.#core;
    const { connection } = core;
    if (connection.conn !== 'Connected' || connection.phase.kind !== 'settling') return;
    if (this.#recordingLoss || core.solo.isBusy || core.roles.isChangingRole || core.resize.isRecording)
      return;
    const { early, sinceMs } = connection.phase;
    const sent = this.describeState();
    connection.phase = { kind: 'negotiating', sinceMs, sent };
    core.send({ kind: 'state', state: sent });
    core.pause.introduce();
    if (early !== null) this.#decide(connection, sent, early);
  }

  /** What the peer of a session has said of itself while this node is not ready to. */
  heardEarly(): PeerState | null {
    const { connection } = this.#core;
    return connection.conn === 'Connected' && connection.phase.kind === 'settling'
      ? connection.phase.early
      : null;
  }

  // Deciding.

  #onState(connection: Connected, state: PeerState): void {
    const { phase } = connection;
    if (phase.kind === 'settling' && phase.early === null) connection.phase = { ...phase, early: state };
    else if (phase.kind === 'negotiating') this.#decide(connection, phase.sent, state);
    else this.breakProtocol(`a state packet in phase ${phase.kind}`);
  }

  #decide(connection: Connected, self: PeerState, peer: PeerState): void {
    const core = this.#core;
    // Its disk was attached after it had said that there is none: what would be decided is not about that disk (W6, W12).
    if (core.hasDisk && (self.disk === 'Diskless' || self.disk === 'Failed'))
      return this.restart('the disk was attached during the handshake');
    const sortsFirst = core.options.nodeName < (core.options.peerName ?? '');
    const { rule, verdict } = decideHandshake(self, peer, sortsFirst);
    const discard = describeDiscard(rule, self, peer, core.options);
    if (discard !== null) core.out.log('error', discard);
    core.out.decide('handshake', rule, discard ?? describeVerdict(verdict), handshakeInputs(self, peer));
    connection.peer = { role: peer.role, disk: peer.disk };
    connection.peerCurrent = peer.current;
    core.flushes.onPeerState(peer);
    this.lostWholePeer &&= peer.current === self.current && ['Consistent', 'UpToDate'].includes(peer.disk);
    core.changed();
    this.#follow(connection, rule, verdict, self, peer);
  }

  #follow(
    connection: Connected,
    rule: HandshakeRule,
    verdict: Verdict,
    self: PeerState,
    peer: PeerState,
  ): void {
    const core = this.#core;
    switch (verdict.kind) {
      case 'in-sync':
        connection.peer = { role: peer.role, disk: 'UpToDate' };
        return this.#recordInSync(verdict.adoptCurrent);
      case 'sync':
        if (verdict.fenceTarget) {
          // Superseded: the one that was Primary of older data steps down and comes back as a target.
          if (verdict.source === 'self') return;
          // By policy: once it has stepped down, which changes who is Primary, the decision is still this one.
          if (rule.startsWith('after-sb-')) core.discardMyData = true;
          return core.solo.fence(
            `rule ${rule}: the peer's data ${rule.startsWith('after-sb-') ? 'is kept' : 'has moved on'}`,
          );
        }
        core.discardMyData = false;
        if (verdict.source === 'self') return this.#syncStart.asSource(connection, peer, verdict.full);
        return this.#syncStart.asTarget(
          connection,
          peer,
          comparesHashes(core.options.checksumResync, rule, verdict.full, self, peer),
        );
      case 'diskless':
        return this.#recordDiskless(connection, verdict.newest, peer);
      case 'no-data':
        return this.confirm({ kind: 'idle' }, { linked: true });
      case 'fence':
        if (verdict.side === 'self') core.solo.fence(`rule ${rule}: the peer's data has moved on`);
        return;
      case 'grow':
        // The larger side waits here for the other one's new state.
        if (verdict.side === 'self') core.resize.growForHandshake(connection.session, peer);
        return;
      case 'split-brain':
        return this.#standApart(rule, 'split-brain');
      case 'unrelated-data':
        return this.#standApart(rule, 'unrelated-data');
      case 'mismatch':
        return this.#standApart(rule, 'mismatch');
      default:
        return verdict satisfies never;
    }
  }

  /** This node has become as large as its peer: the handshake goes on with what it is now. */
  onGrown(session: number, peer: PeerState): void {
    const { connection } = this.#core;
    if (connection.conn !== 'Connected' || connection.session !== session) return;
    if (connection.phase.kind !== 'negotiating') return;
    const sent = this.describeState();
    connection.phase = { kind: 'negotiating', sinceMs: this.#core.out.nowMs, sent };
    this.#core.send({ kind: 'state', state: sent });
    this.#decide(connection, sent, peer);
  }

  /** It cannot become as large as its peer; an operator has to make room. */
  onGrowthRefused({ reason, nextStep }: Refusal): void {
    const { connection } = this.#core;
    if (connection.conn === 'StandAlone') return;
    this.#standApart(
      'size-mismatch',
      'mismatch',
      `the peer's device has grown and this one cannot follow: ${reason} ${nextStep} Then connect.`,
    );
  }

  /** Both sides stop replicating, keep serving as they are, and wait for a decision (W7). */
  #standApart(rule: string, because: StandAloneReason, why = standApartReason(rule, because)): void {
    const core = this.#core;
    core.send({ kind: 'refused', rule });
    core.lastError = why;
    core.out.log('error', core.lastError);
    this.close(because, 'TearDown', `handshake rule ${rule}`);
  }

  #recordInSync(current: bigint): void {
    const core = this.#core;
    const { superblock } = core.meta;
    core.crashedPrimary = false;
    core.discardMyData = false;
    core.diskState = 'UpToDate';
    core.solo.onDataFound(current);
    if (core.role === 'Primary') core.exposed = current;
    const writer = superblock.writer && current === superblock.current;
    this.confirm(
      { kind: 'established' },
      {
        ...settleLineage(superblock),
        ...{ current, writer, origin: 'settled', disk: 'UpToDate', linked: true, peerExcluded: false },
        primary: core.role === 'Primary',
      },
    );
  }

  #recordDiskless(connection: Connected, newest: boolean, peer: PeerState): void {
    const core = this.#core;
    if (!newest) return this.confirm({ kind: 'idle' }, { linked: true });
    if (core.hasDisk) {
      core.diskState = 'UpToDate';
      core.crashedPrimary = false;
      core.solo.onDataFound(core.meta.superblock.current);
      return this.confirm(
        { kind: 'established' },
        { linked: true, disk: 'UpToDate', primary: core.role === 'Primary' },
      );
    }
    connection.peer = { role: peer.role, disk: 'UpToDate' };
    if (core.role === 'Primary') core.exposed = peer.current;
    this.confirm({ kind: 'established' }, { linked: true, primary: core.role === 'Primary' });
  }

  // Recording.

  /** Records the decision; `next` begins when both sides have. `recorded` runs before the peer is told. */
  confirm(
    next: Phase,
    change: Partial<Superblock>,
    more: Omit<Transaction, 'superblock'> = {},
    recorded: () => void = () => undefined,
  ): void {
    const core = this.#core;
    const { connection } = core;
    assert(connection.conn === 'Connected', 'a decision without a session');
    const { session } = connection;
    this.lostWholePeer &&= next.kind !== 'syncSource';
    connection.phase = {
      kind: 'confirming',
      sinceMs: core.out.nowMs,
      recorded: false,
      peerReady: false,
      next,
    };
    core.changed();
    core.meta.update(change, more, () => {
      const now = core.connection;
      if (now.conn !== 'Connected' || now.session !== session || now.phase.kind !== 'confirming') return;
      recorded();
      core.send({ kind: 'syncReady' });
      now.phase = { ...now.phase, recorded: true };
      this.#enterWhenReady(now);
    });
  }

  #onReady(connection: Connected): void {
    const { phase } = connection;
    // The target may be done recording before this node, which has yet to be told what it will hear next.
    if (phase.kind !== 'confirming') return this.breakProtocol(`syncReady in phase ${phase.kind}`);
    connection.phase = { ...phase, peerReady: true };
    this.#enterWhenReady(connection);
  }

  #enterWhenReady(connection: Connected): void {
    const { phase } = connection;
    if (phase.kind !== 'confirming' || !phase.recorded || !phase.peerReady) return;
    const core = this.#core;
    connection.phase = phase.next;
    this.lostWholePeer = false;
    // A target is Inconsistent on record until it is.
    if (phase.next.kind !== 'idle') this.#keptAll = true;
    if (phase.next.kind === 'established') core.onInSync();
    core.announce();
    if (phase.next.kind === 'syncTarget') phase.next.sync.pump();
    core.solo.onEstablished();
    core.roles.onNegotiated();
    core.releaseHeld();
  }

  // Packets of an established session.

  onPacket(packet: Packet, payload: Payload | null): void {
    const core = this.#core;
    const { connection } = core;
    if (connection.conn !== 'Connected') return;
    const { phase } = connection;
    switch (packet.kind) {
      case 'state':
        return this.#onState(connection, packet.state);
      case 'syncReady':
        return this.#onReady(connection);
      case 'bitmap':
        return this.#syncStart.onBitmap(connection, packet.runs, packet.last);
      case 'syncStart':
        return this.#syncStart.onSyncStart(connection, packet.current, packet.history);
      case 'resyncRequest':
        if (phase.kind === 'syncSource') phase.sync.onRequest(packet.id, packet.offset, packet.length);
        return;
      case 'scatteredRequest':
        if (phase.kind === 'syncSource') phase.sync.onScatteredRequest(packet.id, packet.runs);
        return;
      case 'scatteredData':
        if (phase.kind === 'syncTarget') phase.sync.onScatteredData(packet, payload);
        return;
      case 'digestRequest':
        if (phase.kind === 'syncSource') phase.sync.onDigestRequest(packet, payload);
        return;
      case 'resyncSame':
        if (phase.kind === 'syncTarget') phase.sync.onSame(packet.id, packet.runs);
        return;
      case 'resyncStable':
        if (phase.kind === 'syncSource') phase.sync.onStable(packet.runs);
        return;
      case 'resyncData':
        if (phase.kind === 'syncTarget') {
          phase.sync.onData(packet.id, packet.offset, packet.length, packet.zero, payload);
        }
        return;
      case 'resyncFailed':
        if (phase.kind === 'syncTarget') phase.sync.onFailed(packet.id);
        return;
      case 'syncFinished':
        return core.lineage.onSyncFinished(connection, packet.current);
      case 'newGeneration':
        return core.lineage.onNewGeneration(connection, packet.current, packet.history);
      case 'newGenerationDone':
        return core.lineage.onPeerHolds(packet.current);
      case 'peerDiskGone':
        return core.lineage.onPeerDiskGone(connection, packet.current, packet.history);
      case 'peerDiskGoneDone':
        return core.solo.onHandedOff(packet.current);
      case 'diskState':
        return this.#onDiskState(connection, packet.disk, packet.role);
      case 'goodbye':
        return this.#onGoodbye(packet.outdate, packet.reason);
      case 'refused':
        return this.#onRefused(packet.rule);
      case 'resyncPause':
        return core.pause.onPeer(packet.paused);
      case 'resyncLimit':
        return core.pace.onPeerLimit(packet);
      case 'invalidate':
        return core.admin.onPeerInvalidates();
      default:
        return this.breakProtocol(`${packet.kind} is not for the session`);
    }
  }

  #onDiskState(connection: Connected, disk: PeerState['disk'], role: PeerState['role']): void {
    const core = this.#core;
    if (isNegotiating(connection.phase)) return;
    const wasMirroring = core.isMirroring;
    connection.peer = { role, disk };
    if (disk === 'Failed') core.flushes.onPeerDiskFailed();
    core.changed();
    core.verify.onNodesChanged();
    if (wasMirroring && !core.isMirroring) {
      this.#onPeerDataLost();
      this.#secureOnlyCopy(role);
    }
    core.givingUp.onPeerDisk(disk === 'UpToDate');
    core.solo.onPeerDisk();
    core.roles.onPeerChanged();
    core.releaseHeld();
  }

  /**
   * The peer's disk has gone, and with it perhaps what was in its cache: what this one's cache holds is all there is of it.
   * A Primary without a disk asks for the same with `peerDiskGone`.
   */
  #secureOnlyCopy(peerRole: PeerState['role']): void {
    const core = this.#core;
    if (!core.hasDisk || peerRole === 'Primary') return;
    core.disk.flush((outcome) => {
      if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
    });
  }

  // Ending.

  #onGoodbye(outdate: boolean, reason: string): void {
    const core = this.#core;
    const outdated =
      outdate && core.hasDisk && core.role === 'Secondary' && core.diskState !== 'Inconsistent';
    this.restart(`the peer said goodbye (${reason})`);
    if (!outdated) return;
    core.setDisk('Outdated');
    core.meta.update({ disk: 'Outdated' });
  }

  #onRefused(rule: string): void {
    const because = splitBrainRules.has(rule)
      ? 'split-brain'
      : unrelatedRules.has(rule)
        ? 'unrelated-data'
        : 'mismatch';
    this.#core.lastError = standApartReason(rule, because);
    this.#core.out.log('error', this.#core.lastError);
    this.close(because, 'TearDown', `the peer refused by rule ${rule}`);
  }

  onLinkDown(session: number, why: LinkDownReason, detail: string): void {
    const core = this.#core;
    if (core.connection.conn !== 'Connected' || core.connection.session !== session) return;
    core.lastError = `connection lost (${why}): ${detail}`;
    core.out.log('warn', core.lastError);
    this.#end(why, detail);
    core.roles.onLinkLost();
  }

  onLinkRefused(detail: string): void {
    if (this.#core.connection.conn !== 'Connecting' || this.#core.lastError === detail) return;
    this.#core.lastError = detail;
    this.#core.changed();
  }

  /** The peer sent what it must not: this session is over, and nothing else is (W10). */
  breakProtocol(detail: string): void {
    const { connection } = this.#core;
    if (connection.conn === 'Connected') this.giveUp(connection, 'ProtocolError', detail);
  }

  giveUp(connection: Connected, why: 'ProtocolError' | 'Timeout', detail: string): void {
    const core = this.#core;
    core.lastError = `connection lost (${why}): ${detail}`;
    core.out.log('warn', core.lastError);
    core.out.emit({ kind: 'closeLink', session: connection.session, why, detail });
    this.#end(why, detail);
  }

  /** Ends this session and looks for a new one, to decide anew. */
  restart(detail: string): void {
    const { connection, out } = this.#core;
    if (connection.conn !== 'Connected') return;
    out.emit({ kind: 'closeLink', session: connection.session, why: 'TearDown', detail });
    this.#end('TearDown', detail);
  }

  /** Ends this session, if there is one, and wants no other. */
  close(because: StandAloneReason, why: LinkDownReason, detail: string): void {
    const core = this.#core;
    const { connection } = core;
    core.out.emit({ kind: 'wantLink', want: false });
    if (connection.conn === 'Connected') {
      core.out.emit({ kind: 'closeLink', session: connection.session, why, detail });
      this.#end(why, detail);
    }
    core.connection = { conn: 'StandAlone', because };
    // It may have been told that its copy does not count.
    this.lostWholePeer = false;
    core.changed();
    core.releaseHeld();
  }

  #end(why: LinkDownReason, detail: string): void {
    const core = this.#core;
    const { connection } = core;
    assert(connection.conn === 'Connected', 'a session ends that is not there');
    const { phase, peer } = connection;
    const sync = phase.kind === 'syncSource' || phase.kind === 'syncTarget' ? phase.sync : null;
    const wasReplicating = isReplicating(phase);
    if (!isNegotiating(phase)) this.lostWholePeer = wasReplicating && peer.disk === 'UpToDate';
    core.connection = { conn: 'Connecting', after: why };
    core.inbound.onSessionEnded();
    core.peerWrites.onSessionEnded();
    if (core.role === 'Secondary' && peer.role === 'Primary' && core.diskState === 'UpToDate')
      core.diskState = 'Consistent';
    this.#recordLoss();
    core.out.decide('peer-loss', why, detail, { role: core.role, replicating: wasReplicating });
    this.#onPeerDataLost();
    sync?.end();
    core.verify.onSessionEnded(detail);
    core.solo.onSessionEnded();
    core.reads.onSessionEnded();
    core.roles.onSessionEnded();
    core.givingUp.onSessionEnded();
    core.resize.onSessionEnded();
    core.changed();
    core.releaseHeld();
  }

  /** What is not proven stable at the peer is out of sync from here on (W3). */
  #onPeerDataLost(): void {
    const core = this.#core;
    core.epochs.drain((blocks) => core.outOfSync.markFrom(blocks));
    core.log.setStableEpoch(core.epochs.stable);
    core.writes.onPeerLost();
    core.flushes.onPeerLost();
    core.logPump.pumpSoon();
  }

  /**
   * A survivor is told from one that went down as well by its record of the loss. What it received is made stable
   * first: once `linked` is cleared, this disk holds every write the lost Primary may have acknowledged. Under protocol A
   * and B that may be one that has arrived and is not written yet. A disk that fails at this holds less, and says nothing.
   */
  #recordLoss(): void {
    const core = this.#core;
    if (!core.meta.superblock.linked || this.#recordingLoss || !this.#keptAll) return;
    this.#recordingLoss = true;
    const record = (): void => core.meta.update({ linked: false }, {}, () => this.#onLossSettled());
    if (!core.hasDisk) return record();
    const flush = (): void => {
      if (!core.hasDisk) return this.#onLossSettled();
      core.disk.flush((outcome) => {
        if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
        if (core.hasDisk) record();
        else this.#onLossSettled();
      });
    };
    if (core.options.protocol === 'C') flush();
    else core.peerWrites.whenApplied(flush);
  }

  #onLossSettled(): void {
    this.#recordingLoss = false;
    this.introduce();
  }

  /** For SyncStart: the resync begins with these as its two ends. */
  sourcePhase(): Phase {
    return { kind: 'syncSource', sync: new ResyncSource(this.#core) };
  }
}
