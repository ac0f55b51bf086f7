/**
 * Growing the device while it is in use. Nobody uses the new area before both nodes have it on record, and neither
 * records it before its backing has it, as zeroes, on stable storage: so both copies of it are equal from the first
 * moment on, with nothing to copy and no mark (design.md, W5 and W12). In this order:
 *   1. the backing of the node that was asked, 2. the peer's backing, 3. the peer's record, 4. this node's record;
 *      each node takes the new size into use, and shows it to clients, when its own record is durable.
 * Cut short before 3, nothing has happened but that a backing is larger than its device. Cut short between 3 and 4, the
 * two sizes differ; the next handshake makes the smaller node grow as well (rules grow-self and grow-peer). A node's own
 * backing beyond its recorded size never holds anything acknowledged, so it may be zeroed again at any time.
 */
import { commandDeadlineMs } from './command.ts';
import { isNegotiating } from './connection.ts';
import type { Core } from './core.ts';
import type { DiskGrowth } from './event.ts';
import { assert } from './out.ts';
import type { Packet, PeerState } from './packet.ts';
import type { CommandResult, Refusal } from './refusal.ts';
import { done, refuse } from './refusal.ts';
import { blockBytes, isDeviceSize, maxDeviceBytes } from './vocabulary.ts';

type Answer = (result: CommandResult) => void;
type GrowPacket = Extract<Packet, { kind: 'grow' | 'grown' }>;

type State =
  | { readonly kind: 'idle' }
  /** The own backing is being enlarged. `handshake`: the session that waits for it. */
  | {
      readonly kind: 'preparing';
      readonly id: number;
      readonly handshake: number | null;
      readonly then: (outcome: DiskGrowth) => void;
    }
  /** The peer is asked to grow, before this node does. */
  | { readonly kind: 'asking'; readonly id: number; readonly sizeBytes: number }
  /** The new size is being recorded here. */
  | { readonly kind: 'recording' };

export class Resize {
  readonly #core: Core;
  #state: State = { kind: 'idle' };
  #command: { readonly answer: Answer; readonly sinceMs: number } | null = null;
  /** The link was given up until this is idle again: a handshake cannot wait as long as the backing takes. */
  #linkWaits = false;

  constructor(core: Core) {
    this.#core = core;
  }

  /** The device is growing, or about to. */
  get isBusy(): boolean {
    return this.#state.kind !== 'idle';
  }

  /** The recorded size is about to change: no handshake may rest on it yet. */
  get isRecording(): boolean {
    return this.#state.kind === 'recording';
  }

  /** An operator's word: grow to that many bytes. */
  command(sizeBytes: number, answer: Answer): void {
    const core = this.#core;
    const before = core.options.sizeBytes;
    if (sizeBytes === before) return answer(done(`the device has ${sizeBytes} bytes already`));
    const refusal = this.#whyNot(sizeBytes);
    if (refusal !== null) return answer(refusal);
    this.#command = { answer, sinceMs: core.out.nowMs };
    this.#prepare(sizeBytes, null, (outcome) => {
      this.#state = { kind: 'idle' };
      // The world may have changed while the backing grew.
      const refused = outcome.kind === 'refused' ? asResult(outcome.refusal) : this.#whyNot(sizeBytes);
      if (refused !== null) return this.#finish(refused);
      if (!core.isMirrored) return this.#record(sizeBytes, () => this.#finish(grown(before, sizeBytes)));
      const id = core.out.newId();
      this.#state = { kind: 'asking', id, sizeBytes };
      core.send({ kind: 'grow', id, sizeBytes });
    });
  }

  #whyNot(sizeBytes: number): CommandResult | null {
    const core = this.#core;
    const { connection, options } = core;
    if (!isDeviceSize(sizeBytes)) {
      return refuse(
        'not-supported',
        `a device has a multiple of ${blockBytes} bytes, at most ${maxDeviceBytes}, not ${sizeBytes}`,
        'give such a size',
      );
    }
    if (sizeBytes < options.sizeBytes) {
      return refuse(
        'cannot-shrink',
        `the device has ${options.sizeBytes} bytes; it can grow, and never shrinks to ${sizeBytes}`,
        'define a smaller resource and copy what is to be kept',
      );
    }
    if (this.#state.kind !== 'idle')
      return refuse('busy', 'the device is growing just now', 'look at the size, then try again');
    if (!core.hasDisk)
      return refuse('no-disk', 'there is no backing device attached here', 'attach it first');
    if (!core.isMirrored) return null;
    if (connection.conn !== 'Connected') {
      return refuse(
        'not-connected',
        `${options.peerName} is not connected, and both copies grow together`,
        'connect the nodes first',
      );
    }
    const { phase, peer } = connection;
    if (isNegotiating(phase))
      return refuse('busy', 'a handshake with the peer is under way', 'try again in a moment');
    if (phase.kind === 'syncSource' || phase.kind === 'syncTarget')
      return refuse('resync-running', 'a resync is running', 'wait for it to end, then grow');
    if (core.verify.part !== null)
      return refuse('verify-running', 'a verify is running', 'wait for it to end, or stop it, then grow');
    if (phase.kind !== 'established' || core.diskState !== 'UpToDate' || peer.disk !== 'UpToDate') {
      return refuse(
        'not-up-to-date',
        `the disk here is ${core.diskState}, the peer's is ${peer.disk}: both copies have to be UpToDate`,
        'attach what is detached and wait for the resync, then grow',
      );
    }
    if (core.role === 'Secondary' && peer.role === 'Primary')
      return refuse('not-primary', `${options.peerName} is Primary`, 'run it there');
    return null;
  }

  onPacket(packet: GrowPacket): void {
    const { connection } = this.#core;
    if (connection.conn !== 'Connected') return;
    if (packet.kind === 'grown') return this.#onGrown(packet.id, packet.refusal);
    this.#onGrow(connection.session, packet.id, packet.sizeBytes);
  }

  // The peer's part.

  #onGrow(session: number, id: number, sizeBytes: number): void {
    const core = this.#core;
    const isTaking = (): boolean => {
      const { connection } = core;
      const isStillOn = connection.conn === 'Connected' && connection.session === session;
      const isWhole = isStillOn && connection.phase.kind === 'established' && core.diskState === 'UpToDate';
      return isWhole && core.verify.part === null;
    };
    const reply = (refusal: Refusal | null): void => {
      const { connection } = core;
      if (connection.conn !== 'Connected' || connection.session !== session) return;
      core.send({ kind: 'grown', id, refusal });
    };
    if (!isDeviceSize(sizeBytes) || sizeBytes <= core.options.sizeBytes)
      return core.session.breakProtocol(`grow from ${core.options.sizeBytes} to ${sizeBytes} bytes`);
    if (this.#state.kind !== 'idle')
      return reply({ code: 'busy', reason: 'it is growing just now', nextStep: 'try again in a moment' });
    const unfit: Refusal = {
      code: core.verify.part === null ? 'not-up-to-date' : 'verify-running',
      reason: core.verify.part === null ? `its disk is ${core.diskState}` : 'a verify is running',
      nextStep: 'wait until both copies are UpToDate and no verify is running, then grow',
    };
    if (!isTaking()) return reply(unfit);
    this.#prepare(sizeBytes, null, (outcome) => {
      this.#state = { kind: 'idle' };
      if (outcome.kind === 'refused') return reply(outcome.refusal);
      if (!isTaking()) return reply(unfit);
      this.#record(sizeBytes, () => reply(null));
    });
  }

  /** The peer has the new size on record, or will not grow. */
  #onGrown(id: number, refusal: Refusal | null): void {
    const core = this.#core;
    const state = this.#state;
    if (state.kind !== 'asking' || state.id !== id) return;
    if (refusal !== null) {
      this.#state = { kind: 'idle' };
      return this.#finish(
        asResult({ ...refusal, reason: `${core.options.peerName} cannot grow: ${refusal.reason}` }),
      );
    }
    const before = core.options.sizeBytes;
    // The peer may be Primary by now, and write to the new area next.
    const unblock = core.inbound.block();
    this.#record(state.sizeBytes, () => {
      unblock();
      this.#finish(grown(before, state.sizeBytes));
    });
  }

  // A handshake found this node smaller than its peer.

  growForHandshake(session: number, peer: PeerState): void {
    const core = this.#core;
    if (this.#state.kind !== 'idle') {
      this.#waitWithoutLink();
      return core.session.restart('the backing device is growing');
    }
    this.#prepare(peer.sizeBytes, session, (outcome) => {
      this.#state = { kind: 'idle' };
      // Detached meanwhile: a handshake without a disk comes next.
      if (!core.hasDisk) return;
      if (outcome.kind === 'refused') {
        this.#linkWaits = false;
        return core.session.onGrowthRefused(outcome.refusal);
      }
      this.#record(peer.sizeBytes, () => core.session.onGrown(session, peer));
    });
  }

  onSessionEnded(): void {
    const state = this.#state;
    if (state.kind === 'preparing' && state.handshake !== null) this.#waitWithoutLink();
    if (state.kind !== 'asking') return;
    this.#state = { kind: 'idle' };
    this.#finish(
      refuse(
        'not-connected',
        'the connection was lost before the peer answered',
        'look at the size once the nodes are connected again: if the peer has grown, this node follows; if not, repeat this',
      ),
    );
  }

  #waitWithoutLink(): void {
    this.#linkWaits = true;
    this.#core.lastError = 'the backing device grows to the size of the peer first';
    this.#core.out.emit({ kind: 'wantLink', want: false });
  }

  #resumeLink(): void {
    if (!this.#linkWaits) return;
    this.#linkWaits = false;
    if (this.#core.connection.conn !== 'StandAlone') this.#core.out.emit({ kind: 'wantLink', want: true });
  }

  // Steps.

  #prepare(sizeBytes: number, handshake: number | null, then: (outcome: DiskGrowth) => void): void {
    const { out } = this.#core;
    const id = out.newId();
    this.#state = { kind: 'preparing', id, handshake, then };
    out.emit({ kind: 'growDisk', id, sizeBytes });
  }

  onDiskGrown(id: number, outcome: DiskGrowth): void {
    const state = this.#state;
    assert(
      state.kind === 'preparing' && state.id === id,
      `growth ${id} was answered twice or never asked for`,
    );
    state.then(outcome);
    if (this.#state.kind === 'idle') this.#resumeLink();
  }

  #record(sizeBytes: number, then: () => void): void {
    const core = this.#core;
    this.#state = { kind: 'recording' };
    core.meta.update({ sizeBytes }, {}, () => {
      core.out.log('info', `the device has grown from ${core.options.sizeBytes} to ${sizeBytes} bytes`);
      core.growTo(sizeBytes);
      this.#state = { kind: 'idle' };
      then();
      this.#resumeLink();
      core.session.introduce();
    });
  }

  /** Zeroing a large block device may go on for longer than a command may. */
  onTick(): void {
    if (this.#command === null) return;
    if (this.#core.out.nowMs - this.#command.sinceMs <= commandDeadlineMs) return;
    this.#finish(done('still growing: the status shows the new size when it is done'));
  }

  #finish(result: CommandResult): void {
    const command = this.#command;
    this.#command = null;
    if (command !== null) return command.answer(result);
    if (!result.ok) this.#core.out.log('error', `the device did not grow: ${result.refusal.reason}`);
  }
}

function asResult(refusal: Refusal): CommandResult {
  return { ok: false, refusal };
}

function grown(before: number, after: number): CommandResult {
  return done(
    `the device has grown from ${before} to ${after} bytes; clients that attach from now on see the new size`,
  );
}
