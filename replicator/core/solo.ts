/**
 * Leaving and changing the set of copies while Primary (design.md, W13): what must be on record before a write may be
 * acknowledged by fewer copies than before, or as part of a new generation; and stepping down when superseded.
 */
import { isNegotiating } from './connection.ts';
import type { Core } from './core.ts';
import type { ProbeOutcome } from './event.ts';
import { descend, isUntracked, settleLineage } from './metadata-keeper.ts';
import type { PeerState } from './packet.ts';
import type { SuspendReason } from './status.ts';
import type { Generation } from './vocabulary.ts';
import { formatGeneration } from './vocabulary.ts';

type State =
  | { readonly kind: 'idle' }
  /** Asking whether the lost peer has taken over. */
  | { readonly kind: 'probing'; readonly id: number; readonly unanswered: number }
  /** The last probe found nobody, but this process has just stood still: it asks again at the next tick. */
  | { readonly kind: 'askingAgain'; readonly unanswered: number }
  /** The policy wants an operator's word before this node goes on alone. */
  | { readonly kind: 'suspended' }
  /** A generation that both copies are to share is due; what is under way in the old one ends first. */
  | { readonly kind: 'draining' }
  /** A new generation is being committed here. */
  | { readonly kind: 'recording' }
  /** Without a disk: the peer is recording that it holds the only copy. */
  | { readonly kind: 'handingOff'; readonly current: Generation };

/** What came of an operator's word to go on alone. */
export type WordOutcome = 'alone' | 'superseded' | 'no-disk';

/** Probes that find nobody, one per tick, before a process that has stood still goes on alone. */
const probesAfterStandstill = 5;

export class Solo {
  readonly #core: Core;
  #state: State = { kind: 'idle' };
  /** Promoted and not written since: the first write begins a generation that both copies share. */
  #sharedIsDue = false;
  /** Who said to go on alone, and waits to hear of it. */
  #told: ((outcome: WordOutcome) => void)[] = [];
  /** Without a disk, and the peer has recorded so. */
  #handedOff = false;

  constructor(core: Core) {
    this.#core = core;
  }

  /** After promotion, with `exposed` the generation that clients see. */
  armShared(exposed: Generation): void {
    this.#core.exposed = exposed;
    this.#sharedIsDue = true;
  }

  /** The next write to a whole disk begins a generation, if nothing else has by then. */
  oweShared(): void {
    this.#sharedIsDue = true;
  }

  onPromoted(exposed: Generation, shared: boolean): void {
    this.#core.exposed = exposed;
    // A copy that is put to use is not given up any more, whatever was said before.
    this.#core.discardMyData = false;
    this.#sharedIsDue = shared;
    this.#handedOff = false;
  }

  /**
   * A Primary has whole data here, by a handshake. One that was promoted while all data went out of reach has shown none so
   * far: its first write begins a generation, as after any promotion. One that has shown another copy's, which is given up
   * (its own disk was away, and that copy now counts no more): what its clients' caches hold would be a mixture of two
   * histories with what they read from now on, so they have to come back.
   */
  onDataFound(current: Generation): void {
    const core = this.#core;
    if (core.role !== 'Primary' || core.exposed === current) return;
    const wasShown = core.exposed !== 0n;
    this.armShared(current);
    if (!wasShown) return;
    core.out.log(
      'error',
      'the data that clients of this Primary have seen is given up: they are disconnected',
    );
    core.writes.onPromoted();
    core.failHeld('ESHUTDOWN');
    core.out.emit({ kind: 'serveClients', serve: false });
    core.serve();
  }

  holdReason(): SuspendReason | null {
    switch (this.#state.kind) {
      case 'idle':
        return null;
      case 'probing':
      case 'askingAgain':
        return 'peer-lost';
      case 'suspended':
        return 'policy';
      case 'draining':
      case 'recording':
      case 'handingOff':
        return 'generation';
      default:
        return this.#state satisfies never;
    }
  }

  /** The own state is about to change: no handshake may rest on it yet. */
  get isBusy(): boolean {
    const { kind } = this.#state;
    return kind === 'probing' || kind === 'askingAgain' || kind === 'draining' || kind === 'recording';
  }

  /** Whether something has to be on record before an answer may rest on fewer copies than took part. */
  mustRecord(): boolean {
    const core = this.#core;
    if (!core.isMirrored) return false;
    if (!core.hasDisk) return !this.#handedOff;
    if (core.diskState !== 'UpToDate') return false;
    return !core.isMirroring && !core.meta.durable.peerExcluded;
  }

  /** Whether a write has to wait for a record; sets it going. */
  blocksWrite(): boolean {
    const core = this.#core;
    if (!core.isMirrored) return this.#blocksUnmirrored();
    if (this.mustRecord()) {
      this.begin();
      return true;
    }
    if (this.#sharedIsDue && core.diskState === 'UpToDate') {
      this.#beginShared();
      return true;
    }
    return false;
  }

  begin(): void {
    const core = this.#core;
    if (core.role !== 'Primary' || !this.mustRecord()) return;
    // What is under way waits for this record: it cannot end first, and there is nothing to share any more.
    if (this.#state.kind === 'draining') this.#postponeShared();
    if (this.#state.kind !== 'idle') return;
    const { connection } = core;
    // The handshake under way rests on the generation as it is; its outcome settles what waits here.
    if (connection.conn === 'Connected' && isNegotiating(connection.phase)) return;
    if (!core.hasDisk) return this.#handOff();
    // With the peer connected (its disk is gone) there is nobody who could have taken over.
    if (connection.conn === 'Connected') return this.#record('the peer has no disk');
    if (core.options.onPeerLoss === 'suspend') {
      this.#state = { kind: 'suspended' };
      core.out.log(
        'warn',
        'the peer is lost: I/O is suspended, as configured, until it is back or promote --force says to go on alone',
      );
      return core.changed();
    }
    this.#probe(0);
  }

  /** I/O waits for the peer, as configured. */
  get isSuspended(): boolean {
    return this.#state.kind === 'suspended';
  }

  #probe(unanswered: number): void {
    const { out } = this.#core;
    const id = out.newId();
    this.#state = { kind: 'probing', id, unanswered };
    out.emit({ kind: 'probe', id });
    this.#core.changed();
  }

  onTick(): void {
    if (this.#state.kind === 'askingAgain') this.#probe(this.#state.unanswered);
  }

  /**
   * An operator's word to a suspended node: go on without the peer. The operator may not know that the peer was promoted
   * meanwhile, so it is looked for all the same.
   */
  goOnAlone(then: (outcome: WordOutcome) => void): void {
    this.#told.push(then);
    this.#probe(0);
  }

  /** Going on alone may be allowed now, or suspended from now on. */
  onConfigured(): void {
    const core = this.#core;
    const { conn } = core.connection;
    if (core.options.onPeerLoss === 'suspend') {
      if (conn !== 'Connected') this.begin();
    } else if (this.#state.kind === 'suspended') {
      this.#resume();
    }
  }

  /** Suspended no more; what waits begins anew, and asks for whatever it still needs. */
  #resume(): void {
    const core = this.#core;
    this.#state = { kind: 'idle' };
    core.changed();
    if (core.writes.waitingForRecord + core.flushes.waitingForRecord > 0) this.begin();
    core.releaseHeld();
  }

  /** Steps down while suspended: clients get an error for what waits, as the operator was told. */
  onSteppingDown(): void {
    if (this.#state.kind !== 'suspended') return;
    this.#state = { kind: 'idle' };
    this.#core.writes.onFenced();
    this.#core.flushes.onFenced();
  }

  #tell(outcome: WordOutcome): void {
    const told = this.#told;
    this.#told = [];
    for (const then of told) then(outcome);
  }

  onProbed(id: number, outcome: ProbeOutcome): void {
    if (this.#state.kind !== 'probing' || this.#state.id !== id) return;
    const core = this.#core;
    const answer = outcome.kind === 'answered' ? outcome.state : null;
    // What a new session has brought meanwhile is an answer as well, also when the probe itself was lost.
    const heard = core.session.heardEarly();
    const unanswered = this.#state.unanswered + 1;
    // Time enough to be superseded has gone by unseen: a busy new Primary gets more than one chance to say so.
    if (
      answer === null &&
      heard === null &&
      core.liveness.hasStoodStill &&
      unanswered < probesAfterStandstill
    ) {
      this.#state = { kind: 'askingAgain', unanswered };
      return;
    }
    this.#state = { kind: 'idle' };
    if (this.#isSuperseded(answer) || this.#isSuperseded(heard)) {
      return this.fence('the peer has become Primary meanwhile');
    }
    this.#record(answer === null && heard === null ? 'the peer is out of reach' : 'the peer is not Primary');
  }

  #isSuperseded(peer: PeerState | null): boolean {
    if (peer === null) return false;
    const { current } = this.#core.meta.superblock;
    if (peer.role === 'Primary') return true;
    return peer.current !== current && (peer.bitmap.includes(current) || peer.history.includes(current));
  }

  /**
   * A generation of this node alone. The marked blocks lie in active extents: they need no record of their own. The own
   * disk is flushed first: from the record on this copy wins over the peer's, so it must hold all that was acknowledged
   * by both, even if it loses power next.
   */
  #record(why: string): void {
    const core = this.#core;
    this.#state = { kind: 'recording' };
    core.changed();
    core.disk.flush((outcome) => {
      if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
      // Without its disk this node has nothing to go on with; what waits finds that out.
      if (core.hasDisk) this.#recordAlone(why);
      else this.#finish();
    });
  }

  #recordAlone(why: string): void {
    const core = this.#core;
    const current = core.ids.newGeneration();
    const change = { peerExcluded: true, writer: true, primary: true };
    core.meta.update({ ...descend(core.meta.superblock, current, true), ...change }, {}, () => {
      const name = formatGeneration(current);
      core.out.decide('peer-loss', 'single-copy', `going on alone: ${why}`, { current: name });
      core.out.log(
        'warn',
        `going on alone (${why}): generation ${name}, the peer is excluded until it has resynced`,
      );
      core.exposed = current;
      // A peer without a disk is connected all the same, and may be Primary next: it has to know what its clients see then.
      const { history } = core.meta.superblock;
      core.send({ kind: 'newGeneration', current, history });
      this.#sharedIsDue = false;
      this.#finish();
      // Two disks of which neither was to be the source: now one has gone on, and a new handshake can say so.
      const { connection } = core;
      if (connection.conn !== 'Connected' || connection.phase.kind !== 'idle') return;
      const { disk } = connection.peer;
      if (disk === 'Outdated' || disk === 'Inconsistent')
        core.session.restart('this node has gone on, the other copy was not whole');
    });
  }

  /**
   * From the record of it on, this copy wins over the peer's until that has recorded it too. So it must hold all that was
   * acknowledged by both, even if it loses power next: what is under way ends, and the own disk is flushed, before.
   */
  #beginShared(): void {
    if (this.#state.kind !== 'idle') return;
    this.#state = { kind: 'draining' };
    this.#sharedIsDue = false;
    this.#core.changed();
    this.onWriteEnded();
  }

  #postponeShared(): void {
    this.#state = { kind: 'idle' };
    this.#sharedIsDue = true;
  }

  /** Perhaps the last one that a shared generation waited for. */
  onWriteEnded(): void {
    const core = this.#core;
    if (this.#state.kind !== 'draining' || core.writes.isUnderWay) return;
    this.#state = { kind: 'recording' };
    core.disk.flush((outcome) => {
      if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
      if (core.hasDisk) return this.#recordShared();
      // Still due when the disk is back, and whole.
      this.#sharedIsDue = true;
      this.#finish();
    });
  }

  #recordShared(): void {
    const core = this.#core;
    const current = core.ids.newGeneration();
    core.meta.update({ ...descend(core.meta.superblock, current, true), writer: true }, {}, () => {
      core.exposed = current;
      core.send({ kind: 'newGeneration', current, history: core.meta.superblock.history });
      this.#finish();
    });
  }

  /**
   * Nothing tracks what is written without mirroring, and the peer of an earlier time may come back: before the first such
   * write the copy takes a generation that no bitmap covers, so that the two meet as descendant and ancestor, and everything
   * is copied. A device that never had a peer has been begun like that (disk-keeper.ts).
   */
  #blocksUnmirrored(): boolean {
    const core = this.#core;
    if (isUntracked(core.meta.durable)) return false;
    // Otherwise that is on its way to the record.
    if (core.hasDisk && this.#state.kind === 'idle' && !isUntracked(core.meta.superblock))
      this.#recordUntracked();
    return core.hasDisk;
  }

  /** Flushed first: from the record on this copy wins over that of the former peer. */
  #recordUntracked(): void {
    const core = this.#core;
    this.#state = { kind: 'recording' };
    core.changed();
    core.disk.flush((outcome) => {
      if (outcome === 'failed') core.disks.fail('a flush of the backing device failed');
      if (!core.hasDisk) return this.#finish();
      const { superblock } = core.meta;
      const current = core.ids.newGeneration();
      const { history } = settleLineage(descend(superblock, current, true));
      const name = formatGeneration(current);
      core.out.log(
        'warn',
        `written without its former peer: generation ${name}; a peer gets a full copy again`,
      );
      core.meta.update(
        { current, history, bitmap: [], disk: 'UpToDate', linked: false, writer: true, peerExcluded: true },
        {},
        () => {
          core.exposed = current;
          this.#finish();
        },
      );
    });
  }

  #handOff(): void {
    const core = this.#core;
    if (!core.isPeerUpToDate) return;
    const current = core.ids.newGeneration();
    this.#state = { kind: 'handingOff', current };
    core.changed();
    core.send({ kind: 'peerDiskGone', current, history: core.meta.superblock.history });
  }

  /** The own disk goes; whatever a peer recorded when it was out before has been settled since. */
  onDiskGoing(): void {
    this.#handedOff = false;
  }

  onDiskGone(): void {
    if (this.#state.kind === 'suspended') this.#state = { kind: 'idle' };
    // What waited for a record of this copy alone has to find another copy.
    this.#core.writes.onRecorded();
    this.#core.flushes.onRecorded();
    this.begin();
    // What waited for a record of this copy alone has lost it.
    this.#core.writes.onRecorded();
    this.#core.flushes.onRecorded();
  }

  onHandedOff(current: Generation): void {
    if (this.#state.kind !== 'handingOff' || this.#state.current !== current) return;
    const core = this.#core;
    core.exposed = current;
    core.out.log(
      'warn',
      `this node has no disk: the peer goes on as the only copy, generation ${formatGeneration(current)}`,
    );
    this.#handedOff = true;
    this.#finish();
  }

  /** The peer's disk may be gone as well, while it was to take over: then there is nothing to wait for. */
  onPeerDisk(): void {
    if (this.#state.kind !== 'handingOff' || this.#core.isPeerUpToDate) return;
    // Neither disk has flushed what both had acknowledged: clients hear of it (W2).
    this.#core.flushes.onOnlyCopyFailed();
    this.#finish();
  }

  #finish(): void {
    const core = this.#core;
    this.#state = { kind: 'idle' };
    core.changed();
    core.writes.onRecorded();
    core.flushes.onRecorded();
    core.session.introduce();
    this.#tell(core.hasDisk ? 'alone' : 'no-disk');
    core.roles.onNegotiated();
    core.releaseHeld();
  }

  onSessionEnded(): void {
    const core = this.#core;
    if (this.#state.kind === 'handingOff') this.#state = { kind: 'idle' };
    // Answers that wait for a record wait for this one too. To suspend, nobody has to ask first.
    const isAwaited = core.writes.waitingForRecord + core.flushes.waitingForRecord > 0;
    if (isAwaited || core.options.onPeerLoss === 'suspend') this.begin();
  }

  /** The handshake after a loss is on record on both sides, and with it what the peer lacks: what waited may go on. */
  onEstablished(): void {
    if (this.#state.kind === 'suspended') this.#state = { kind: 'idle' };
    this.#core.writes.onRecorded();
    this.#core.flushes.onRecorded();
  }

  /** Steps down: this node's data has been superseded, and nothing it does may land any more (W13). */
  fence(why: string): void {
    const core = this.#core;
    core.out.log('error', `superseded: ${why}; this node steps down and refuses the writes it still holds`);
    core.out.decide('peer-loss', 'fenced', why, { current: formatGeneration(core.meta.superblock.current) });
    this.#state = { kind: 'idle' };
    this.#sharedIsDue = false;
    core.role = 'Secondary';
    core.exposed = 0n;
    core.serve();
    core.writes.onFenced();
    core.flushes.onFenced();
    core.failHeld('ESHUTDOWN');
    if (core.hasDisk && core.diskState !== 'Inconsistent') core.diskState = 'Outdated';
    core.meta.update({
      primary: false,
      disk: core.diskState === 'Outdated' ? 'Outdated' : core.meta.superblock.disk,
    });
    core.session.restart('superseded');
    core.session.introduce();
    this.#tell('superseded');
    core.changed();
  }
}
