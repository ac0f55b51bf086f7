/** Commands of the operator other than those that change roles: connect, disconnect, attach, detach, resync, stop. */
import type { Command } from './command.ts';
import { commandDeadlineMs } from './command.ts';
import type { Core } from './core.ts';
import type { CommandResult } from './refusal.ts';
import { done, refuse } from './refusal.ts';

type Answer = (result: CommandResult) => void;

export class AdminCommands {
  readonly #core: Core;
  #stopping = false;
  /** Counts orders to connect: a disconnect that still waits for the disk is overtaken by a later one. */
  #connects = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  onCommand(id: number, command: Command): void {
    const answer = this.#core.deadlines.begin(id, command.kind);
    if (this.#stopping) return answer(refuse('shutting-down', 'this node is stopping', 'start it again'));
    this.#core.changed();
    switch (command.kind) {
      case 'promote':
        return this.#core.roles.promote(command.force, command.dryRun, answer);
      case 'demote':
        return this.#core.roles.demote(command.force, command.dryRun, answer);
      case 'failover':
        return this.#core.roles.failover(command.force, command.dryRun, answer);
      case 'connect':
        return this.#connect(command.discardMyData, command.dryRun, answer);
      case 'disconnect':
        return this.#disconnect(answer);
      case 'attach':
        return this.#attach(answer);
      case 'detach':
        return this.#detach(command.force, answer);
      case 'resync':
        return this.#resync(command.action, answer);
      case 'verify':
        return answer(this.#core.verify.onCommand(command.action, command.repair));
      case 'resize':
        return this.#core.resize.command(command.sizeBytes, answer);
      case 'stop':
        return this.#stop(answer);
      default:
        return command satisfies never;
    }
  }

  #connect(discardMyData: boolean, dryRun: boolean, answer: Answer): void {
    const core = this.#core;
    if (!core.isMirrored)
      return answer(refuse('not-mirrored', 'this resource has no peer', 'define it with a peer'));
    if (discardMyData && core.role === 'Primary') {
      return answer(
        refuse(
          'discard-needs-secondary',
          'the data of a Primary is not discarded while clients use it',
          'demote this node first',
        ),
      );
    }
    const isUp = core.connection.conn === 'Connected';
    if (isUp && !discardMyData) {
      if (!dryRun) this.#connects++;
      return answer(done('already connected'));
    }
    if (isUp)
      return answer(
        refuse(
          'already-connected',
          'the nodes are connected: there is nothing to decide',
          'use resync invalidate',
        ),
      );
    const what = discardMyData ? 'connect, and give up what only this node has written' : 'connect';
    const givenUp = discardMyData ? [`what only this node has written since the nodes parted`] : [];
    if (dryRun) return answer(done(`would ${what}`, givenUp));
    this.#connects++;
    core.discardMyData = discardMyData;
    if (core.connection.conn === 'StandAlone') {
      core.lastError = null;
      core.connection = { conn: 'Connecting', after: null };
    }
    // While what the last crash left is still being recorded, the link has to wait: it is asked for once that is done.
    if (core.session.hasStarted) core.out.emit({ kind: 'wantLink', want: true });
    answer(done('connecting', givenUp));
  }

  #disconnect(answer: Answer, isSecure = false): void {
    const core = this.#core;
    if (!core.isMirrored)
      return answer(refuse('not-mirrored', 'this resource has no peer', 'there is nothing to disconnect'));
    if (core.connection.conn === 'StandAlone') return answer(done('already StandAlone'));
    if (core.role === 'Primary' && core.diskState !== 'UpToDate') {
      return answer(
        refuse(
          'last-copy',
          `this Primary's disk is ${core.diskState}: its clients' data is on the peer`,
          'wait for the resync, or fail over',
        ),
      );
    }
    // From the goodbye on the peer's copy counts no more, and with it what only its cache has kept.
    if (core.role === 'Primary' && core.connection.conn === 'Connected' && !isSecure) {
      const connects = this.#connects;
      return this.#secureOwn(answer, () => {
        if (connects === this.#connects) return this.#disconnect(answer, true);
        answer(refuse('busy', 'a later connect has overtaken this disconnect', 'disconnect again'));
      });
    }
    core.send({ kind: 'goodbye', reason: 'disconnect', outdate: core.role === 'Primary' });
    core.session.close('admin', 'TearDown', 'disconnected by an operator');
    core.lastError = 'disconnected by an operator';
    answer(done('StandAlone'));
  }

  #detach(force: boolean, answer: Answer): void {
    const core = this.#core;
    if (!core.hasDisk)
      return answer(refuse('already-detached', 'there is no disk attached', 'attach it when it is back'));
    if (core.role === 'Primary' && !core.isPeerUpToDate && !force) {
      return answer(
        refuse(
          'last-copy',
          'this is the only UpToDate disk in reach of this Primary',
          'connect a peer first, or force: clients then get errors',
        ),
      );
    }
    const { connection } = core;
    const serves = connection.conn === 'Connected' && connection.peer.role === 'Primary';
    if (serves && connection.peer.disk !== 'UpToDate' && !force) {
      return answer(
        refuse(
          'last-copy',
          `${core.options.peerName} is Primary, and this is the only UpToDate disk it has`,
          'attach its own disk first, or force: its clients then get errors',
        ),
      );
    }
    const leave = (): void => {
      core.disks.fail('detached by an operator', 'Diskless');
      answer(done('Diskless'));
    };
    if (!core.isPeerUpToDate) return leave();
    this.#giveUp(answer, () => {
      // Meanwhile the disk may have failed by itself, and the peer's after it was asked.
      if (core.hasDisk && core.isPeerUpToDate) return leave();
      core.givingUp.end();
      this.#detach(force, answer);
    });
  }

  /** Before this copy becomes the only one that counts: what both have acknowledged is on its stable storage. */
  #secureOwn(answer: Answer, then: () => void): void {
    const core = this.#core;
    const sinceMs = core.out.nowMs;
    core.disk.flush((outcome) => {
      if (outcome === 'failed') {
        core.disks.fail('a flush of the backing device failed');
        return answer(
          refuse(
            'backing-failed',
            'this copy could not be made safe, so the other stays',
            'look at the status',
          ),
        );
      }
      if (core.out.nowMs - sinceMs <= commandDeadlineMs) return then();
      // Nobody expects it to happen any more.
      answer(refuse('busy', 'the backing device took too long to make this copy safe', 'try again'));
    });
  }

  /** Before one of two good copies goes: the other one is on stable storage, and stays (giving-up.ts). */
  #giveUp(answer: Answer, then: () => void): void {
    const core = this.#core;
    const peer = core.options.peerName;
    const refuseBusy = (reason: string): void =>
      answer(refuse('busy', reason, 'look at the status of both nodes, then try again'));
    if (core.givingUp.isBusy) return refuseBusy('one of the two copies is just being given up');
    core.givingUp.ask((outcome) => {
      switch (outcome) {
        case 'granted':
          return then();
        case 'denied':
          return refuseBusy(`${peer} is giving up its own copy just now, or could not make it safe`);
        case 'lost':
          return answer(
            refuse(
              'not-connected',
              `the connection was lost before ${peer} had made its copy safe`,
              'look at the status, then try again',
            ),
          );
        case 'late':
          return refuseBusy(`${peer} has not made its copy safe in time: its disk may be slow`);
        default:
          return outcome satisfies never;
      }
    });
  }

  #attach(answer: Answer): void {
    const core = this.#core;
    if (core.hasDisk) return answer(refuse('already-attached', 'the disk is attached', 'detach it first'));
    if (core.disks.isOpening)
      return answer(refuse('busy', 'the disk is just being opened', 'look at the status in a moment'));
    core.disks.attach((outcome) => {
      if (outcome.kind === 'refused') return answer({ ok: false, refusal: outcome.refusal });
      core.disks.onAttached(() => answer(done('attached')));
    });
  }

  #resync(action: 'pause' | 'resume' | 'invalidate' | 'invalidate-peer', answer: Answer): void {
    const core = this.#core;
    switch (action) {
      case 'pause':
      case 'resume':
        return answer(action === 'pause' ? core.pause.pause() : core.pause.resume());
      case 'invalidate':
        return this.#invalidate(answer);
      case 'invalidate-peer':
        if (core.connection.conn !== 'Connected') {
          return answer(refuse('not-connected', 'the peer is not connected', 'connect first'));
        }
        if (core.diskState !== 'UpToDate') {
          return answer(
            refuse(
              'not-up-to-date',
              `the disk here is ${core.diskState}`,
              'run it on the node with the good data',
            ),
          );
        }
        if (core.connection.peer.role === 'Primary') {
          return answer(refuse('peer-is-primary', 'the peer is Primary', 'demote it first'));
        }
        return this.#secureOwn(answer, () => {
          if (core.connection.conn !== 'Connected') {
            return answer(refuse('not-connected', 'the peer was lost', 'connect first'));
          }
          core.send({ kind: 'invalidate' });
          answer(done('the peer was told to copy everything from here'));
        });
      default:
        return action satisfies never;
    }
  }

  #invalidate(answer: Answer): void {
    const core = this.#core;
    if (!core.isMirrored)
      return answer(
        refuse('not-mirrored', 'there is no peer to copy from', 'define the resource with a peer'),
      );
    if (core.role === 'Primary') {
      return answer(
        refuse('not-supported', 'the data of a Primary is not invalidated', 'fail over to the peer first'),
      );
    }
    if (!core.hasDisk) return answer(refuse('no-disk', 'there is no disk attached', 'attach it first'));
    if (!core.isPeerUpToDate) {
      return answer(
        refuse(
          'last-copy',
          'no UpToDate peer is connected: this may be the last good copy',
          'connect the peer first',
        ),
      );
    }
    this.#giveUp(answer, () => {
      // While the peer made its copy safe, it may have failed all the same, or this node may have become Primary.
      if (core.role !== 'Primary' && core.hasDisk && core.isPeerUpToDate) return this.#overwrite(answer);
      core.givingUp.end();
      this.#invalidate(answer);
    });
  }

  #overwrite(answer: Answer): void {
    const core = this.#core;
    core.outOfSync.markAll();
    core.diskState = 'Inconsistent';
    core.meta.update(
      { disk: 'Inconsistent' },
      { clearChunks: true, chunks: core.outOfSync.takeAll() },
      () => {
        core.session.restart('invalidated');
        answer(done('everything will be copied from the peer'));
      },
    );
  }

  onPeerInvalidates(): void {
    this.#invalidate((result) => {
      if (!result.ok)
        this.#core.out.log('warn', `the peer asked to invalidate this disk: ${result.refusal.reason}`);
    });
  }

  /** A clean stop: nothing active, nothing unflushed, and the peer told. */
  #stop(answer: Answer): void {
    const core = this.#core;
    const leave = (): void => {
      this.#stopping = true;
      // Nothing arrives after this, so what is flushed now is all that this node may have acknowledged to its peer.
      core.send({ kind: 'goodbye', reason: 'shutdown', outdate: false });
      core.session.close('stopped', 'TearDown', 'this node is stopping');
      if (!core.hasDisk) return this.#recordStop(true, answer);
      core.peerWrites.whenApplied(() => {
        if (!core.hasDisk) return this.#recordStop(false, answer);
        core.disk.flush((outcome) => {
          if (outcome === 'failed') core.disks.fail('the last flush of the backing device failed');
          this.#recordStop(core.hasDisk, answer);
        });
      });
    };
    if (core.role !== 'Primary') return leave();
    // What cannot be drained is left as a crash would leave it: the record still says Primary.
    core.roles.demote(true, false, (result) => {
      if (result.ok) return leave();
      answer(result);
      core.out.emit({ kind: 'stopped' });
    });
  }

  /** `isWhole`: this disk holds all that it ever acknowledged, which lets it speak for a peer that is lost meanwhile. */
  #recordStop(isWhole: boolean, answer: Answer): void {
    const core = this.#core;
    if (core.role === 'Primary' || core.roles.isChangingRole) {
      // A promotion that had been asked for before: its clients write, so the record stays as a crash would leave it.
      answer(refuse('busy', 'this node became Primary while it was stopping', 'start it again'));
      return core.out.emit({ kind: 'stopped' });
    }
    const change = isWhole && core.session.keptAll ? { linked: false, primary: false } : { primary: false };
    const deactivate = core.hasDisk ? core.replaceLog() : [];
    const chunks = core.hasDisk ? core.outOfSync.takeUnsaved(Infinity) : [];
    core.meta.update(change, { deactivate, chunks }, () => {
      answer(done('stopped'));
      core.out.emit({ kind: 'stopped' });
    });
  }
}
