/** Pairs of cores in states that many tests begin with, and commands in short. */
import type { Command } from '../../replicator/core/command.ts';
import type { CommandResult } from '../../replicator/core/refusal.ts';
import { blockBytes } from '../../replicator/core/vocabulary.ts';
import type { Name, PairOptions, Request } from './two-cores.ts';
import { blocksPerExtent, TwoCores } from './two-cores.ts';

export const promote: Command = { kind: 'promote', force: false, dryRun: false };
export const promoteByForce: Command = { ...promote, force: true };
export const demote: Command = { kind: 'demote', force: false, dryRun: false };
export const demoteByForce: Command = { ...demote, force: true };
export const failover: Command = { kind: 'failover', force: false, dryRun: false };
export const connect: Command = { kind: 'connect', discardMyData: false, dryRun: false };
export const connectDiscarding: Command = { ...connect, discardMyData: true };
export const disconnect: Command = { kind: 'disconnect' };
export const attach: Command = { kind: 'attach' };
export const detach: Command = { kind: 'detach', force: false };
export const detachByForce: Command = { kind: 'detach', force: true };
/** By two extents and a block, so that an extent is cut short by the new end. */
export const grownBlocks = 10 * blocksPerExtent + 1;
export const grow: Command = { kind: 'resize', sizeBytes: grownBlocks * blockBytes };
export const stop: Command = { kind: 'stop' };
export const invalidate: Command = { kind: 'resync', action: 'invalidate' };
export const invalidatePeer: Command = { kind: 'resync', action: 'invalidate-peer' };
export const pause: Command = { kind: 'resync', action: 'pause' };
export const resume: Command = { kind: 'resync', action: 'resume' };

/** Gives a command, lets everything settle, and answers what came of it. */
export function run(pair: TwoCores, name: Name, command: Command): CommandResult | null {
  const asked = pair.command(name, command);
  pair.settle();
  return asked.result;
}

/** `ok`, the code of the refusal, or `pending`. */
export function outcome(pair: TwoCores, name: Name, command: Command): string {
  return inShort(run(pair, name, command));
}

export function inShort(result: CommandResult | null): string {
  if (result === null) return 'pending';
  return result.ok ? 'ok' : result.refusal.code;
}

/** Both connected, with equal disks, both Secondary. */
export function connected(options: PairOptions = {}): TwoCores {
  const pair = new TwoCores(options);
  pair.start();
  pair.settle();
  return pair;
}

/** Connected, with equal disks; a is Primary and has written block 0 (stamp 1), which is not flushed. */
export function mirroring(options: PairOptions = {}): TwoCores {
  const pair = connected(options);
  run(pair, 'a', promote);
  pair.write('a', 0, 1);
  pair.settle();
  return pair;
}

/** As `mirroring`, with everything stable on both disks. */
export function flushed(options: PairOptions = {}): TwoCores {
  const pair = mirroring(options);
  pair.flush('a');
  pair.settle();
  return pair;
}

/** Role, disk state, and what the node says of link and peer, in one line. */
export function summary(pair: TwoCores, name: Name): string {
  if (!pair.isUp(name)) return 'down';
  const { role, diskState, peer, splitBrain } = pair.status(name);
  const link = peer === null ? '-' : `${peer.connection} ${peer.replication} ${peer.role}/${peer.diskState}`;
  return `${role}/${diskState} ${link}${splitBrain ? ' split-brain' : ''}`;
}

/** Bytes of the device as its clients on this node would be told. */
export function sizeOf(pair: TwoCores, name: Name): number {
  return pair.core(name).options.sizeBytes;
}

/** Writes the last block of the device, as large as it is by now. */
export function writeLast(pair: TwoCores, name: Name, stamp: number): Request {
  return pair.write(name, sizeOf(pair, name) / blockBytes - 1, stamp, { fua: true });
}

export const mirroringPrimary = 'Primary/UpToDate Connected Established Secondary/UpToDate';
export const mirroringSecondary = 'Secondary/UpToDate Connected Established Primary/UpToDate';
export const bothSecondary = 'Secondary/UpToDate Connected Established Secondary/UpToDate';

/** A source of choices, the same for the same seed: an index below `count`. */
export function chooser(seed: number): (count: number) => number {
  let state = (Math.imul(seed, 2_654_435_761) + 1) >>> 0;
  return (count) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
}
