/**
 * Promote, demote, failover (design.md, W8), and the two-node agreement behind them: while connected, a node becomes
 * Primary only after the other has granted it, and refuses its own promotion from then until it hears how that ended.
 */
import { commandDeadlineMs } from './command.ts';
import { isNegotiating } from './connection.ts';
import type { Core } from './core.ts';
import { descend } from './metadata-keeper.ts';
import type { Packet } from './packet.ts';
import type { CommandResult } from './refusal.ts';
import { done, refuse } from './refusal.ts';

type RolePacket = Extract<
  Packet,
  { kind: 'promoteRequest' | 'promoteReply' | 'handoverRequest' | 'handoverReply' }
>;
type Answer = (result: CommandResult) => void;

type Step =
  | { readonly kind: 'none' }
  /** The peer's leave to become Primary is asked for. */
  | { readonly kind: 'promoting'; readonly id: number; readonly answer: Answer; readonly sinceMs: number }
  /** The peer, Primary, is asked to step down. */
  | { readonly kind: 'takingOver'; readonly id: number; readonly answer: Answer; readonly sinceMs: number }
  /** Waits for requests in flight to end. */
  | { readonly kind: 'draining'; readonly answer: Answer; readonly sinceMs: number }
  /** A change of role is being recorded. */
  | { readonly kind: 'recording' };

interface Postponed {
  readonly run: () => void;
  readonly answer: Answer;
  readonly sinceMs: number;
}

export class RoleCommands {
  readonly #core: Core;
  #step: Step = { kind: 'none' };
  /** The peer was given leave and has not said yet that it is Primary. */
  #granted = false;
  /** Commands that arrived during a handshake, which must not be disturbed. */
  #postponed: Postponed[] = [];
  /** Promotions that the peer stands in the way of, if it is still there: it has been asked for a sign of life. */
  #inDoubt: (Postponed & { readonly refuse: () => void })[] = [];

  constructor(core: Core) {
    this.#core = core;
  }

  get isChangingRole(): boolean {
    return this.#step.kind === 'recording';
  }

  // Promote.

  /** `isPeerThere`: it has just given a sign of life, or a last chance to. */
  promote(force: boolean, dryRun: boolean, answer: Answer, isPeerThere = false): void {
    const again = (): void => this.promote(force, dryRun, answer);
    if (this.#isPostponed(again, answer)) return;
    const core = this.#core;
    if (core.role === 'Primary') return this.#promotePrimary(force, dryRun, answer);
    const refusal = this.#whyNotPromote(force);
    if (!isPeerThere && refusal?.ok === false && refusal.refusal.code === 'peer-is-primary')
      return this.#askPeer(again, () => this.promote(force, dryRun, answer, true), answer);
    core.out.decide(
      'promotion',
      refusal?.ok === false ? refusal.refusal.code : 'granted',
      dryRun ? 'dry run' : 'asked',
      {
        force,
        disk: core.diskState,
        connection: core.connection.conn,
      },
    );
    if (refusal !== null) return answer(refusal);
    if (dryRun) return answer(done('would become Primary', this.#givenUp(force)));
    if (!core.isMirrored) return this.#become(false, [], answer);
    if (core.connection.conn !== 'Connected') return this.#becomeAlone(this.#givenUp(true), answer);
    const { connection } = core;
    if (!core.hasData && connection.phase.kind === 'idle')
      return this.#becomeAlone(this.#givenUp(true), answer);
    const id = core.out.newId();
    this.#step = { kind: 'promoting', id, answer, sinceMs: core.out.nowMs };
    core.send({ kind: 'promoteRequest', id });
  }

  /**
   * A Primary that has just died is connected until that is noticed. Before it is said to stand in the way it is asked for a
   * sign of life, as DRBD does: its answer refuses the promotion, its loss has it decided anew.
   */
  #askPeer(run: () => void, refuse: () => void, answer: Answer): void {
    const asked = { run, refuse, answer, sinceMs: this.#core.out.nowMs };
    this.#inDoubt.push(asked);
    this.#core.liveness.ask(() => this.#refuseInDoubt((one) => one === asked));
  }

  #refuseInDoubt(which: (one: Postponed) => boolean): void {
    const refused = this.#inDoubt.filter(which);
    this.#inDoubt = this.#inDoubt.filter((one) => !which(one));
    for (const { refuse } of refused) refuse();
  }

  /** Already in the role, there may still be something to decide: to go on without the peer, or on a disk that is behind. */
  #promotePrimary(force: boolean, dryRun: boolean, answer: Answer): void {
    const core = this.#core;
    const peer = core.options.peerName ?? 'the peer';
    if (core.solo.isSuspended) return this.#goOnAlone(peer, force, dryRun, answer);
    if (core.hasData) return answer(done('already Primary'));
    if (this.#step.kind !== 'none')
      return answer(refuse('busy', 'another change of role is under way', 'try again when it is done'));
    if (!core.hasDisk) {
      return answer(
        refuse(
          'no-disk',
          'this Primary has no disk, and no UpToDate one in reach',
          core.isMirrored ? `attach the disk, or connect to ${peer}` : 'attach the disk',
        ),
      );
    }
    if (!force) {
      return answer(
        refuse(
          'not-up-to-date',
          `the disk of this Primary is ${core.diskState}, and no UpToDate one is in reach: I/O waits`,
          `connect to ${peer} or attach its disk if that is newer, or force, which makes the disk here the newest`,
        ),
      );
    }
    const givenUp = [
      ...(core.connection.conn === 'Connected' ? [] : this.#givenUp(true)),
      ...this.#givenUpHere(peer),
    ];
    if (dryRun) return answer(done('would make the disk here the newest', givenUp));
    this.#becomeAlone(givenUp, answer);
  }

  #givenUpHere(peer: string): readonly string[] {
    const core = this.#core;
    const given = [`what ${peer} has of the data and the ${core.diskState} disk here has not`];
    if (this.#isOlderThanShown) given.push('the connections of clients, which have seen newer data');
    return given;
  }

  /** The clients of this Primary were answered from newer data than this disk holds. */
  get #isOlderThanShown(): boolean {
    const core = this.#core;
    return core.role === 'Primary' && core.exposed !== core.meta.superblock.current;
  }

  #goOnAlone(peer: string, force: boolean, dryRun: boolean, answer: Answer): void {
    const core = this.#core;
    if (!force) {
      return answer(
        refuse(
          'suspended',
          `${peer} is lost, and I/O waits for it (policy onPeerLoss=suspend)`,
          `bring ${peer} back, or make sure that it is down and repeat this with force to go on alone`,
        ),
      );
    }
    const givenUp = [
      `the second copy: ${peer} lacks all that is written from here on, until it has resynced`,
      `certainty that ${peer} is not Primary: if it is and cannot be asked, this is a split brain`,
    ];
    if (dryRun) return answer(done('would go on alone', givenUp));
    core.solo.goOnAlone((outcome) => {
      switch (outcome) {
        case 'alone':
          return answer(done('Primary, going on alone', givenUp));
        case 'superseded':
          return answer(
            refuse(
              'peer-is-primary',
              `${peer} has taken over meanwhile`,
              'this node has stepped down: use it there',
            ),
          );
        case 'no-disk':
          return answer(
            refuse('no-disk', 'the disk here has failed', `bring ${peer} back, or attach the disk`),
          );
        default:
          return outcome satisfies never;
      }
    });
  }

  #whyNotPromote(force: boolean): CommandResult | null {
    const core = this.#core;
    const { connection } = core;
    if (this.#step.kind !== 'none')
      return refuse('busy', 'another change of role is under way', 'try again when it is done');
    if (!core.isMirrored)
      return core.hasDisk ? null : refuse('no-disk', 'the backing device is detached', 'attach it first');
    if (connection.conn === 'Connected') {
      if (connection.peer.role === 'Primary') {
        return refuse(
          'peer-is-primary',
          `${core.options.peerName} is Primary`,
          'use failover to take over, or demote it first',
        );
      }
      if (this.#granted) {
        return refuse(
          'busy',
          `${core.options.peerName} is becoming Primary just now`,
          'look at the status, then try again',
        );
      }
      if (core.diskState === 'UpToDate') return null;
      if (!core.hasDisk && core.isPeerUpToDate) return null;
      if (force && (core.isPeerUpToDate || core.hasDisk)) return null;
      return refuse(
        'not-up-to-date',
        `the disk here is ${core.diskState}`,
        core.isPeerUpToDate
          ? 'wait for the resync to end, or promote the peer'
          : 'connect to a peer with UpToDate data, or force',
      );
    }
    if (!core.hasDisk)
      return refuse(
        'no-disk',
        'there is no disk here, and no peer',
        'attach the disk, or connect to the peer',
      );
    if (force) return null;
    if (core.diskState === 'Inconsistent' || core.diskState === 'Outdated') {
      return refuse(
        'not-up-to-date',
        `the data here is known to be ${core.diskState}`,
        `connect to ${core.options.peerName}, or force and give up what only it has`,
      );
    }
    if (connection.conn === 'StandAlone' && connection.because === 'split-brain') {
      return refuse(
        'split-brain',
        'both nodes have written without each other',
        'connect with discardMyData on one of them first',
      );
    }
    return refuse(
      'peer-may-be-primary',
      `${core.options.peerName} cannot be reached; it may still be Primary and hold newer data`,
      'make sure it is down or cut off from clients, then repeat this with force',
    );
  }

  #givenUp(force: boolean): readonly string[] {
    const core = this.#core;
    const isConnected = core.connection.conn === 'Connected';
    if (!force || !core.isMirrored || (isConnected && core.hasData)) return [];
    const peer = core.options.peerName;
    const given = isConnected
      ? [`what ${peer} has of the data and the ${core.diskState} disk here has not`]
      : [
          `writes that ${peer} acknowledged while this node was not connected, if there are any`,
          `certainty that ${peer} is not Primary: if it is, this is a split brain`,
        ];
    if (core.diskState === 'Inconsistent')
      given.push('consistency: the data here is a mixture of old and new blocks');
    if (core.diskState === 'Outdated') given.push('the newest data: the disk here is known to be Outdated');
    return given;
  }

  /**
   * Without a peer to ask: by force. Under protocol A and B the lost Primary may have acknowledged what has arrived here and is
   * not written yet: that comes first, or clients would not find it.
   */
  #becomeAlone(givenUp: readonly string[], answer: Answer): void {
    const core = this.#core;
    this.#step = { kind: 'recording' };
    if (core.options.protocol === 'C') return this.#recordAlone(givenUp, answer);
    core.peerWrites.whenApplied(() => {
      if (core.hasDisk) return this.#recordAlone(givenUp, answer);
      this.#ended();
      core.session.introduce();
      answer(refuse('no-disk', 'the disk here has failed', 'attach it, or connect to the peer'));
    });
  }

  /** With a generation of its own from the start, so that the two can be told apart. */
  #recordAlone(givenUp: readonly string[], answer: Answer): void {
    const core = this.#core;
    const current = core.ids.newGeneration();
    const { superblock } = core.meta;
    const relink = core.connection.conn === 'Connected';
    const wasOlder = this.#isOlderThanShown;
    core.meta.update(
      {
        ...descend(superblock, current, false),
        ...{ origin: 'settled', disk: 'UpToDate', primary: true, writer: true, peerExcluded: true },
      },
      {},
      () => {
        core.crashedPrimary = false;
        if (wasOlder) {
          // What their caches hold would be a mixture of two histories with what they read from now on.
          core.failHeld('ESHUTDOWN');
          core.out.emit({ kind: 'serveClients', serve: false });
        }
        if (core.role !== 'Primary') core.writes.onPromoted();
        core.role = 'Primary';
        // The disk may have gone since this was granted: then no data has been shown, and what comes back is looked at anew.
        if (core.hasDisk) core.diskState = 'UpToDate';
        core.solo.onPromoted(core.hasDisk ? current : 0n, false);
        core.serve();
        this.#ended();
        if (relink) core.session.restart('promoted by force');
        else core.session.introduce();
        core.releaseHeld();
        answer(done('Primary, by force', givenUp));
      },
    );
  }

  #become(shared: boolean, givenUp: readonly string[], answer: Answer): void {
    const core = this.#core;
    this.#step = { kind: 'recording' };
    core.meta.update({ primary: true }, {}, () => {
      this.#ended();
      core.writes.onPromoted();
      core.role = 'Primary';
      const { connection } = core;
      const isWhole = core.diskState === 'UpToDate';
      // The own disk may have gone since this was granted, and what the peer holds may be no data to show.
      const elsewhere = core.isPeerUpToDate && connection.conn === 'Connected' ? connection.peerCurrent : 0n;
      core.solo.onPromoted(isWhole ? core.meta.superblock.current : elsewhere, shared && isWhole);
      core.serve();
      core.announce();
      core.session.introduce();
      answer(done('Primary', givenUp));
    });
  }

  // Demote.

  demote(force: boolean, dryRun: boolean, answer: Answer): void {
    if (this.#isPostponed(() => this.demote(force, dryRun, answer), answer)) return;
    const core = this.#core;
    if (core.role === 'Secondary') return answer(done('already Secondary'));
    if (this.#step.kind !== 'none')
      return answer(refuse('busy', 'another change of role is under way', 'try again when it is done'));
    if (core.solo.isSuspended && core.waitingRequests > 0 && !force) {
      return answer(
        refuse(
          'suspended',
          `${core.waitingRequests} requests of clients wait for ${core.options.peerName} (policy onPeerLoss=suspend)`,
          'bring it back, go on alone (promote with force), or demote with force, which fails these requests',
        ),
      );
    }
    if (core.clients > 0 && !force) {
      return answer(
        refuse(
          'device-in-use',
          `${core.clients} NBD client${core.clients === 1 ? ' is' : 's are'} attached`,
          'unmount and detach them (nbd-client -d), or demote with force, which disconnects them',
        ),
      );
    }
    const givenUp =
      core.clients > 0 ? [`what the ${core.clients} attached clients have not been answered yet`] : [];
    if (dryRun) return answer(done('would become Secondary', givenUp));
    core.demoting = true;
    this.#step = {
      kind: 'draining',
      sinceMs: core.out.nowMs,
      answer: (result) => answer(result.ok ? done(result.message, givenUp) : result),
    };
    core.serve();
    core.failHeld('ESHUTDOWN');
    core.solo.onSteppingDown();
    this.onDrained();
  }

  /** Requests in flight have their answers; what they wrote is made stable, and the activity log is emptied. */
  onDrained(): void {
    const core = this.#core;
    if (this.#step.kind !== 'draining') return;
    if (!core.writes.isIdle || !core.flushes.isIdle || !core.reads.isIdle) return;
    const { answer } = this.#step;
    this.#step = { kind: 'recording' };
    core.flushes.final(() => this.#stepDown(answer));
  }

  #stepDown(answer: Answer): void {
    const core = this.#core;
    const deactivate = core.hasDisk ? core.replaceLog() : [];
    const chunks = core.hasDisk ? core.outOfSync.takeUnsaved(Infinity) : [];
    core.meta.update({ primary: false }, { deactivate, chunks }, () => {
      core.role = 'Secondary';
      core.demoting = false;
      core.exposed = 0n;
      this.#ended();
      core.announce();
      core.session.introduce();
      answer(done('Secondary'));
    });
  }

  // Failover.

  failover(force: boolean, dryRun: boolean, answer: Answer): void {
    if (this.#isPostponed(() => this.failover(force, dryRun, answer), answer)) return;
    const core = this.#core;
    const { connection } = core;
    if (core.role === 'Primary') return answer(done('already Primary'));
    if (!core.isMirrored)
      return answer(refuse('not-mirrored', 'there is no peer to take over from', 'use promote'));
    if (connection.conn !== 'Connected' || connection.peer.role !== 'Primary')
      return this.promote(force, dryRun, answer);
    if (this.#step.kind !== 'none')
      return answer(refuse('busy', 'another change of role is under way', 'try again when it is done'));
    if (core.diskState !== 'UpToDate') {
      return answer(
        refuse(
          'not-up-to-date',
          `the disk here is ${core.diskState}`,
          'wait for the resync to end, then fail over',
        ),
      );
    }
    const id = core.out.newId();
    const then: Answer = (result) => {
      if (!result.ok) return answer(result);
      if (dryRun) return answer(done(`would take over from ${core.options.peerName}`));
      this.promote(false, false, answer);
    };
    this.#step = { kind: 'takingOver', id, answer: then, sinceMs: core.out.nowMs };
    core.send({ kind: 'handoverRequest', id, force, dryRun });
  }

  // The peer's part.

  onPacket(packet: RolePacket): void {
    const core = this.#core;
    switch (packet.kind) {
      case 'promoteRequest':
        return this.#onPromoteRequest(packet.id);
      case 'promoteReply': {
        const step = this.#step;
        if (step.kind !== 'promoting' || step.id !== packet.id) return;
        if (packet.granted) return this.#become(true, [], step.answer);
        this.#ended();
        return step.answer(
          refuse(
            'peer-is-primary',
            `${core.options.peerName} is Primary, or becoming it`,
            'use failover to take over',
          ),
        );
      }
      case 'handoverRequest':
        return this.#onHandoverRequest(packet);
      case 'handoverReply': {
        const step = this.#step;
        if (step.kind !== 'takingOver' || step.id !== packet.id) return;
        this.#ended();
        return step.answer(
          packet.refusal === null ? done('stepped down') : { ok: false, refusal: packet.refusal },
        );
      }
      default:
        return packet satisfies never;
    }
  }

  /** With its session the wish of the peer is over, which has been told so: stepping down later would leave no Primary. */
  #onHandoverRequest(packet: Extract<RolePacket, { kind: 'handoverRequest' }>): void {
    const core = this.#core;
    const asked = core.connection;
    const answer: Answer = (result) =>
      core.send({ kind: 'handoverReply', id: packet.id, refusal: result.ok ? null : result.refusal });
    const again = (): void => {
      if (core.connection === asked) this.#onHandoverRequest(packet);
    };
    if (!this.#isPostponed(again, answer)) this.demote(packet.force, packet.dryRun, answer);
  }

  /** Of two nodes that ask at once, the one whose name sorts first goes on. */
  #onPromoteRequest(id: number): void {
    const core = this.#core;
    const sortsFirst = core.options.nodeName < (core.options.peerName ?? '');
    const contested = this.#step.kind === 'promoting' && sortsFirst;
    const granted = core.role === 'Secondary' && this.#step.kind !== 'recording' && !contested;
    this.#granted = granted;
    core.send({ kind: 'promoteReply', id, granted });
  }

  onPeerChanged(): void {
    this.#granted = false;
  }

  onSessionEnded(): void {
    this.#granted = false;
    // Decided anew once all that goes with the session is done.
    this.#postponed.push(...this.#inDoubt);
    this.#inDoubt = [];
    const step = this.#step;
    if (step.kind !== 'promoting' && step.kind !== 'takingOver') return;
    this.#ended();
    step.answer(
      refuse(
        'not-connected',
        'the connection was lost before the peer answered',
        'look at the status, then try again',
      ),
    );
  }

  // Waiting.

  #isPostponed(run: () => void, answer: Answer): boolean {
    const core = this.#core;
    const { connection } = core;
    const negotiating = connection.conn === 'Connected' && isNegotiating(connection.phase);
    if (!negotiating && !core.solo.isBusy) return false;
    this.#postponed.push({ run, answer, sinceMs: core.out.nowMs });
    return true;
  }

  /** A handshake (or a record of a new generation) is over. */
  onNegotiated(): void {
    const postponed = this.#postponed;
    this.#postponed = [];
    for (const { run } of postponed) run();
  }

  /** The link is down, and the session over. */
  onLinkLost(): void {
    if (this.#core.connection.conn !== 'Connected' && !this.#core.solo.isBusy) this.onNegotiated();
  }

  #ended(): void {
    this.#step = { kind: 'none' };
    this.#core.changed();
  }

  onTick(): void {
    const core = this.#core;
    const { connection } = core;
    const negotiating = connection.conn === 'Connected' && isNegotiating(connection.phase);
    if (this.#postponed.length > 0 && !negotiating && !core.solo.isBusy) this.onNegotiated();
    // Silence for this long ends the session; a peer that says other things meanwhile is there.
    this.#refuseInDoubt(({ sinceMs }) => core.out.nowMs - sinceMs > core.options.peerTimeoutMs);
    if (this.#postponed.length === 0 && this.#step.kind === 'none') return;
    const isLate = (sinceMs: number): boolean => core.out.nowMs - sinceMs > commandDeadlineMs;
    const late = this.#postponed.filter(({ sinceMs }) => isLate(sinceMs));
    this.#postponed = this.#postponed.filter(({ sinceMs }) => !isLate(sinceMs));
    for (const { answer } of late)
      answer(refuse('busy', 'a handshake with the peer is under way', 'try again in a moment'));
    const step = this.#step;
    if ((step.kind === 'promoting' || step.kind === 'takingOver') && isLate(step.sinceMs)) {
      this.#ended();
      // The peer may have given its leave: hearing what this node is takes it back.
      core.announce();
      step.answer(refuse('busy', 'the peer did not answer in time', 'look at its status, then try again'));
    }
    if (step.kind === 'draining') {
      if (!isLate(step.sinceMs)) return this.onDrained();
      core.demoting = false;
      this.#ended();
      core.serve();
      core.releaseHeld();
      step.answer(
        refuse('busy', 'requests in flight did not end in time', 'look at the status, then try again'),
      );
    }
  }
}
