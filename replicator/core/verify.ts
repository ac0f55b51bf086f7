/**
 * Online verify: both copies are compared while in use. Here is who may begin one, how it ends, what the other node does
 * for it, and what becomes of blocks that differ: by default they are copied again, by a resync that the normal handshake
 * begins. They are marked in the step in which the session ends, or the other copy becomes Inconsistent: two copies that
 * are both UpToDate never have something out of sync. A session that is lost ends the verify.
 */
import { BlockBitmap } from './bitmap.ts';
import { isNegotiating } from './connection.ts';
import type { Core } from './core.ts';
import type { BlockRun, Packet, Payload } from './packet.ts';
import type { Progress } from './progress-meter.ts';
import { ProgressMeter } from './progress-meter.ts';
import type { CommandResult } from './refusal.ts';
import { done, refuse } from './refusal.ts';
import type { VerifyReport } from './status.ts';
import { VerifySweep } from './verify-sweep.ts';
import { blockBytes } from './vocabulary.ts';

type VerifyPacket = Extract<
  Packet,
  {
    kind:
      | 'verifyStart'
      | 'verifyRequest'
      | 'verifyPoint'
      | 'verifyDigests'
      | 'verifyFailed'
      | 'verifyFound'
      | 'verifyStop'
      | 'verifyEnd';
  }
>;

/** Runs in one packet of found blocks. */
const maxRunsPerPacket = 8192;
/** Ranges named in the log and in the record of decisions. */
const maxRangesNamed = 10;

interface Run {
  readonly sweep: VerifySweep;
  readonly repair: boolean;
}

export class Verify {
  readonly #core: Core;
  #run: Run | null = null;
  /** The peer runs one: how far it has come. */
  #serving: ProgressMeter | null = null;
  /** Blocks that the peer, a Secondary like this node, has been told to have copied again. */
  #told: BlockBitmap | null = null;
  /** What the peer has told of that by now. */
  #heard: BlockBitmap | null = null;
  /** What the last run that ended had to say. */
  #last: VerifyReport | null = null;

  constructor(core: Core) {
    this.#core = core;
  }

  /** As the replication state calls it; null while there is no verify. */
  get part(): 'VerifyS' | 'VerifyT' | null {
    if (this.#run !== null) return 'VerifyS';
    return this.#serving === null ? null : 'VerifyT';
  }

  progress(): Progress | null {
    return (this.#run?.sweep ?? this.#serving)?.progress() ?? null;
  }

  report(): VerifyReport | null {
    return this.#run === null ? this.#last : describe(this.#run.sweep, 'running');
  }

  // Commands.

  onCommand(action: 'start' | 'stop', repair: boolean): CommandResult {
    if (action === 'stop') return this.#stop();
    const refusal = this.#whyNotStart();
    if (refusal !== null) return refusal;
    const core = this.#core;
    const sweep = new VerifySweep(core, {
      finished: () => this.#end('finished', 'the whole device was compared'),
      gaveUp: () => this.#end('ended', 'too much of one of the disks cannot be read'),
      stalled: (forMs) => this.#end('ended', `it has got nowhere for ${forMs} ms`),
    });
    this.#run = { sweep, repair };
    core.send({ kind: 'verifyStart' });
    core.out.log('info', `verify: comparing ${core.options.sizeBytes} bytes with ${core.options.peerName}`);
    sweep.pump();
    return done(
      `comparing both copies; what differs is ${repair ? 'copied again' : 'only reported'} in the end`,
    );
  }

  #whyNotStart(): CommandResult | null {
    const core = this.#core;
    const { connection } = core;
    if (!core.isMirrored)
      return refuse('not-mirrored', 'this resource has no peer', 'there is no copy to compare with');
    if (connection.conn !== 'Connected')
      return refuse('not-connected', 'the peer is not connected', 'connect first');
    const { phase, peer } = connection;
    if (isNegotiating(phase))
      return refuse('busy', 'a handshake with the peer is under way', 'try again in a moment');
    if (phase.kind === 'syncSource' || phase.kind === 'syncTarget') {
      return refuse(
        'resync-running',
        `a resync is running with ${core.outOfSync.blocks} blocks to go: until it ends the copies do differ`,
        'wait for it to end, or resume it if it is paused',
      );
    }
    if (!core.hasDisk) return refuse('no-disk', 'there is no disk attached', 'attach it first');
    if (core.resize.isBusy)
      return refuse('busy', 'the device is growing just now', 'look at the size, then try again');
    if (!this.#isPossible) {
      return refuse(
        'not-up-to-date',
        `the disk here is ${core.diskState}, that of ${core.options.peerName} is ${peer.disk}`,
        'verify compares two UpToDate copies: attach or connect the other one first',
      );
    }
    if (this.part === null) return null;
    return refuse(
      'verify-running',
      this.part === 'VerifyS' ? 'a verify is running' : `${core.options.peerName} runs a verify`,
      'wait for it to end, or stop it first',
    );
  }

  #stop(): CommandResult {
    const core = this.#core;
    if (this.#run !== null) {
      this.#end('stopped', 'an operator stopped it');
      return done('the verify is stopped');
    }
    if (this.#serving === null) return refuse('no-verify', 'no verify is running', 'look at the status');
    core.send({ kind: 'verifyStop' });
    return done(`${core.options.peerName} is told to stop its verify`);
  }

  /** Both copies are whole and mirrored. */
  get #isPossible(): boolean {
    const { connection, diskState } = this.#core;
    return (
      connection.conn === 'Connected' &&
      connection.phase.kind === 'established' &&
      diskState === 'UpToDate' &&
      connection.peer.disk === 'UpToDate'
    );
  }

  // What happens meanwhile.

  /** Role or disk of one of the nodes is another one. */
  onNodesChanged(): void {
    if (this.#run === null) return;
    this.#run.sweep.onRolesChanged();
    if (!this.#isPossible) this.#end('ended', 'one of the copies is no longer UpToDate');
  }

  onSessionEnded(detail: string): void {
    this.#serving = null;
    this.#heard = null;
    if (this.#run !== null) this.#end('ended', `the session ended: ${detail}`);
    const told = this.#told;
    this.#told = null;
    if (told !== null && this.#core.hasDisk) this.#mark(told);
  }

  onTick(sinceLastMs: number): void {
    this.#run?.sweep.onTick(sinceLastMs);
    if (this.part !== null) this.#core.changed();
  }

  onPacket(packet: VerifyPacket, payload: Payload | null): void {
    const core = this.#core;
    const { connection } = core;
    if (connection.conn !== 'Connected' || connection.phase.kind !== 'established') return;
    switch (packet.kind) {
      case 'verifyStart':
        this.#serving = new ProgressMeter(core.options.sizeBytes, core.out.nowMs);
        return core.changed();
      case 'verifyRequest':
        return this.#serve(connection.session, packet);
      case 'verifyPoint':
        return this.#run?.sweep.onPoint(packet.id);
      case 'verifyDigests':
        return this.#run?.sweep.onAnswer(packet.id, payload);
      case 'verifyFailed':
        return this.#run?.sweep.onAnswer(packet.id, null);
      case 'verifyFound':
        return this.#onFound(packet.runs, packet.last);
      case 'verifyStop':
        return this.#end('stopped', 'an operator of the peer stopped it');
      case 'verifyEnd':
        this.#serving = null;
        return core.changed();
      default:
        return packet satisfies never;
    }
  }

  /** For the node that runs the verify: hashes a range as it is at one point of the stream. */
  #serve(session: number, packet: Extract<Packet, { kind: 'verifyRequest' }>): void {
    const core = this.#core;
    const { id, offset, length, mark, coarse } = packet;
    const { sizeBytes } = core.options;
    const isWhole = offset % blockBytes === 0 && (length % blockBytes === 0 || offset + length === sizeBytes);
    if (length <= 0 || offset + length > sizeBytes || !isWhole) {
      return core.session.breakProtocol(`verify request ${offset}+${length}`);
    }
    if (!core.hasDisk) return core.send({ kind: 'verifyFailed', id });
    const isOver = (): boolean => core.connection.conn !== 'Connected' || core.connection.session !== session;
    const key = core.out.newId();
    core.disk.lock(key, offset, length, 'shared', () => {
      if (isOver()) return core.disk.unlock(key);
      if (mark) core.send({ kind: 'verifyPoint', id });
      core.disk.digest(offset, length, coarse, (digests) => {
        core.disk.unlock(key);
        if (isOver()) return;
        if (digests === null) core.send({ kind: 'verifyFailed', id });
        else core.send({ kind: 'verifyDigests', id }, digests);
        this.#serving?.update(sizeBytes - offset - length, core.out.nowMs);
      });
    });
  }

  // The end.

  #end(state: 'finished' | 'stopped' | 'ended', why: string): void {
    const run = this.#run;
    if (run === null) return;
    const core = this.#core;
    this.#run = null;
    run.sweep.end();
    this.#last = describe(run.sweep, state);
    core.changed();
    core.send({ kind: 'verifyEnd' });
    this.#record(run, state, why);
    if (run.repair) this.#repair(run.sweep);
  }

  #record({ sweep, repair }: Run, state: string, why: string): void {
    const { out } = this.#core;
    const { differing, checkedBlocks } = sweep;
    const first = firstRanges(differing);
    const result =
      differing.countSet === 0 ? 'no block differs' : `${differing.countSet} blocks differ: ${first}`;
    out.decide('verify', state, result, {
      ...{ why, repair, checkedBlocks, differingBlocks: differing.countSet, firstBlocks: first },
      unreadableHere: sweep.unreadableHere.countSet,
      unreadableThere: sweep.unreadableThere.countSet,
    });
    const found = differing.countSet + sweep.unreadableBlocks > 0;
    const cannotRead =
      sweep.unreadableBlocks > 0
        ? `; unreadable here: ${firstRanges(sweep.unreadableHere)}, at the peer: ${firstRanges(sweep.unreadableThere)}`
        : '';
    out.log(
      found ? 'error' : state === 'ended' ? 'warn' : 'info',
      `verify ${state} (${why}): ${result}${cannotRead}`,
    );
  }

  /**
   * A Primary has the better copy, of two Secondaries the node that verified. What the other disk could not read is written
   * anew by the resync; what the better copy cannot read is not for a resync to mend.
   */
  #repair(sweep: VerifySweep): void {
    const core = this.#core;
    const { connection } = core;
    const isConnected = connection.conn === 'Connected' && connection.phase.kind === 'established';
    const peerIsPrimary = isConnected && connection.peer.role === 'Primary';
    const found = sweep.differing;
    for (const run of (peerIsPrimary ? sweep.unreadableHere : sweep.unreadableThere).runs()) {
      found.setRange(run.first, run.count);
    }
    if (!core.hasDisk || found.isEmpty) return;
    if (!isConnected || connection.peer.disk !== 'UpToDate') return this.#mark(found);
    if (core.role === 'Primary' || peerIsPrimary) {
      // Both nodes flush before they meet again, and then the rules for a Primary find who is the source.
      this.#mark(found);
      return core.session.restart('verify found differing blocks');
    }
    // The rules would choose between two Secondaries by who wrote last: the peer has to say that its copy does not count.
    this.#told = found;
    const runs = [...found.runs()];
    for (let at = 0; at < runs.length; at += maxRunsPerPacket) {
      const last = at + maxRunsPerPacket >= runs.length;
      core.send({ kind: 'verifyFound', runs: runs.slice(at, at + maxRunsPerPacket), last });
    }
  }

  /** For the next handshake. */
  #mark(found: BlockBitmap): void {
    const { outOfSync, meta } = this.#core;
    outOfSync.markFrom(found);
    meta.commit({ chunks: outOfSync.takeUnsaved(Infinity) });
  }

  #onFound(runs: readonly BlockRun[], last: boolean): void {
    const core = this.#core;
    const { blockCount } = core.outOfSync;
    const bad = runs.find(({ first, count }) => first < 0 || first + count > blockCount);
    if (bad !== undefined)
      return core.session.breakProtocol(`blocks ${bad.first}+${bad.count} beyond the device`);
    this.#heard ??= new BlockBitmap(blockCount);
    for (const run of runs) this.#heard.setRange(run.first, run.count);
    if (!last) return;
    const found = this.#heard;
    this.#heard = null;
    // Promoted meanwhile: then this copy is the better one, which the next handshake finds by itself.
    if (core.role === 'Primary') return core.session.restart('verify found differing blocks');
    if (core.givingUp.isBusy) return this.#notNow('one of the two copies is just being given up');
    // What both copies have acknowledged is stable on the peer's before this one counts no more.
    core.givingUp.ask((outcome) => {
      if (outcome !== 'granted') return this.#notNow(`the peer's answer was: ${outcome}`);
      if (core.role !== 'Primary' && core.diskState === 'UpToDate' && core.isPeerUpToDate)
        return this.#becomeTarget(found);
      core.givingUp.end();
      this.#notNow('role or disk of one of the nodes is another one by now');
    });
  }

  /** The peer keeps them, and marks them when the session ends. */
  #notNow(why: string): void {
    this.#core.out.log('warn', `verify: the found blocks are not repaired before the next handshake: ${why}`);
  }

  #becomeTarget(found: BlockBitmap): void {
    const core = this.#core;
    const { outOfSync } = core;
    core.out.log('warn', `verify: ${found.countSet} blocks of this disk are copied again from the peer`);
    outOfSync.markFrom(found);
    core.diskState = 'Inconsistent';
    core.changed();
    core.meta.update({ disk: 'Inconsistent' }, { chunks: outOfSync.takeUnsaved(Infinity) }, () =>
      core.session.restart('verify found differing blocks'),
    );
  }
}

function describe(sweep: VerifySweep, state: VerifyReport['state']): VerifyReport {
  return {
    state,
    checkedBytes: sweep.checkedBlocks * blockBytes,
    differingBytes: sweep.differing.countSet * blockBytes,
    unreadableBytes: sweep.unreadableBlocks * blockBytes,
  };
}

/** The first ranges of blocks, as `5 9-12`, and whether there are more. */
function firstRanges(blocks: VerifySweep['differing']): string {
  const names: string[] = [];
  for (const { first, count } of blocks.runs()) {
    if (names.length === maxRangesNamed) return `${names.join(' ')} ...`;
    names.push(count === 1 ? `${first}` : `${first}-${first + count - 1}`);
  }
  return names.join(' ') || 'none';
}
