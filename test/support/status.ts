/** The status of a resource as a client of the control API sees it: what tests look at, checked; the rest ignored. */
import { Type } from 'typebox';
import type { Static } from 'typebox';
import { Compile } from 'typebox/compile';

const resourceStatus = Type.Object({
  name: Type.String(),
  size: Type.Number(),
  role: Type.String(),
  diskState: Type.String(),
  suspended: Type.Boolean(),
  splitBrain: Type.Boolean(),
  nbd: Type.Object({ uri: Type.String(), clients: Type.Number() }),
  peers: Type.Array(
    Type.Object({
      name: Type.String(),
      connection: Type.String(),
      replication: Type.String(),
      role: Type.String(),
      diskState: Type.String(),
      outOfSyncBytes: Type.Number(),
      lastError: Type.Union([Type.String(), Type.Null()]),
      verify: Type.Union([
        Type.Null(),
        Type.Object({
          state: Type.String(),
          checkedBytes: Type.Number(),
          differingBytes: Type.Number(),
          unreadableBytes: Type.Number(),
        }),
      ]),
      sync: Type.Union([Type.Null(), Type.Object({ doneBytes: Type.Number(), totalBytes: Type.Number() })]),
    }),
  ),
  generation: Type.Object({
    current: Type.String(),
    bitmap: Type.String(),
    history: Type.Array(Type.String()),
  }),
  io: Type.Object({
    ...{ reads: Type.Number(), writes: Type.Number(), flushes: Type.Number() },
    repairedReads: Type.Number(),
  }),
  backing: Type.Object({ path: Type.String() }),
});
export type ResourceStatus = Static<typeof resourceStatus>;
export type PeerStatus = ResourceStatus['peers'][number];

const checkedStatus = Compile(resourceStatus);

/** Throws when the value is not the status of a resource. */
export function parseStatus(value: unknown): ResourceStatus {
  if (checkedStatus.Check(value)) return value;
  const [first] = checkedStatus.Errors(value);
  throw new Error(`not a status (${first?.instancePath} ${first?.message}): ${JSON.stringify(value)}`);
}

/** The one peer of a mirrored resource. */
export function onlyPeer(status: ResourceStatus): PeerStatus {
  const [peer, ...others] = status.peers;
  if (peer === undefined || others.length > 0) throw new Error(`${status.name} has not one peer`);
  return peer;
}

/** Both copies are good, and every write goes to both. */
export function isMirroring(status: ResourceStatus): boolean {
  const [peer] = status.peers;
  return (
    peer?.connection === 'Connected' &&
    peer.replication === 'Established' &&
    status.diskState === 'UpToDate' &&
    peer.diskState === 'UpToDate'
  );
}

/** One line for messages. */
export function describeStatus(status: ResourceStatus): string {
  const peers = status.peers.map(
    (peer) =>
      `${peer.name}: ${peer.connection} ${peer.replication} ${peer.role} ${peer.diskState} oos ${peer.outOfSyncBytes}${peer.lastError === null ? '' : ` (${peer.lastError})`}`,
  );
  const own = `${status.name} ${status.role} ${status.diskState}${status.suspended ? ' suspended' : ''}`;
  return [own, ...peers].join('; ') + (status.splitBrain ? '; split brain' : '');
}
