/** The status as a tree, in the shape that `drbdadm status` made familiar. What is as it should be stays short. */
import { formatSize } from '../size.ts';
import type { ResourceStatus } from '../schemas/status.ts';

type PeerStatus = ResourceStatus['peers'][number];

export function statusTree(status: ResourceStatus): string {
  const lines = [
    `${status.name} role:${status.role}${status.suspended ? ` suspended:${reasons(status)}` : ''}`,
  ];
  lines.push(`  disk:${status.diskState} size:${formatSize(status.size)} clients:${status.nbd.clients}`);
  if (status.error) {
    lines.push(`  error:${status.error.code} ${status.error.reason}`);
    lines.push(`    next: ${status.error.nextStep}`);
  } else {
    lines.push(`  nbd:${status.nbd.uri}`);
  }
  if (status.suspendReasons.includes('policy')) lines.push(...wayOut(status));
  if (status.splitBrain) {
    lines.push(
      '  SPLIT BRAIN: both nodes have written apart. Choose the node whose changes are thrown away, demote it',
    );
    lines.push('    and run "connect --discard-my-data" there, then "connect" on the other one.');
  }
  for (const peer of status.peers) lines.push(...peerLines(peer));
  return lines.join('\n');
}

function wayOut(status: ResourceStatus): readonly string[] {
  const peer = status.peers[0]?.name ?? 'the peer';
  return [
    `  SUSPENDED: I/O waits until ${peer} is back (policy onPeerLoss=suspend). If it is down for good, or cut off from`,
    `    clients, "promote ${status.name} --force" goes on without it.`,
  ];
}

/** One line for a change. */
export function statusLine(status: ResourceStatus): string {
  const words = [`${status.name} role:${status.role} disk:${status.diskState}`];
  if (status.suspended) words.push(`suspended:${reasons(status)}`);
  if (status.splitBrain) words.push('split-brain');
  if (status.error) words.push(`error:${status.error.code}`);
  words.push(`clients:${status.nbd.clients}`);
  for (const peer of status.peers) words.push(...[`peer:${peer.name}`, ...peerWords(peer)]);
  return words.join(' ');
}

function peerLines(peer: PeerStatus): readonly string[] {
  const head = `  ${peer.name} ${peer.connection === 'Connected' ? `role:${peer.role}` : `connection:${peer.connection}`}`;
  const lines = [head];
  if (peer.connection === 'Connected') {
    const words = peerWords(peer).filter(
      (word) => !word.startsWith('role:') && !word.startsWith('connection:'),
    );
    lines.push(`    ${words.join(' ')}`);
  } else if (peer.outOfSyncBytes > 0) {
    lines.push(`    out-of-sync:${formatSize(peer.outOfSyncBytes)}`);
  }
  if (peer.lastError !== null) lines.push(`    ${peer.lastError}`);
  const stalled = peer.sync?.stalled ?? null;
  if (stalled !== null) lines.push(`    resync stalled: ${stalled}`);
  return lines;
}

function peerWords(peer: PeerStatus): readonly string[] {
  const words = [`connection:${peer.connection}`, `role:${peer.role}`];
  if (peer.replication !== 'Established' && peer.replication !== 'Off')
    words.push(`replication:${peer.replication}`);
  words.push(`peer-disk:${peer.diskState}`);
  if (peer.sync) {
    const { doneBytes, totalBytes, etaSeconds, rate, pausedBy } = peer.sync;
    words.push(`done:${(totalBytes === 0 ? 100 : (100 * doneBytes) / totalBytes).toFixed(2)}`);
    if (etaSeconds !== null) words.push(`eta:${Math.ceil(etaSeconds)}s`);
    if (pausedBy.length > 0) words.push(`paused-by:${pausedBy.join(',')}`);
    else if (rate.reason !== 'idle') {
      words.push(
        rate.bytesPerSecond === null
          ? `rate:${rate.reason}`
          : `rate:${rate.reason}(${formatRate(rate.bytesPerSecond)})`,
      );
    }
  }
  if (peer.outOfSyncBytes > 0) words.push(`out-of-sync:${formatSize(peer.outOfSyncBytes)}`);
  if (peer.verify && peer.verify.differingBytes > 0)
    words.push(`verify-found:${formatSize(peer.verify.differingBytes)}`);
  if (peer.verify && peer.verify.unreadableBytes > 0)
    words.push(`verify-unreadable:${formatSize(peer.verify.unreadableBytes)}`);
  return words;
}

function formatRate(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1024 ** 2).toFixed(1)}MiB/s`;
}

function reasons(status: ResourceStatus): string {
  return status.suspendReasons.length > 0 ? status.suspendReasons.join(',') : 'yes';
}
