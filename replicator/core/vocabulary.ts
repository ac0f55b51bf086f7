/**
 * The words of the reference system (design.md, section 3), each with its list so that other code can
 * iterate, validate and be exhaustive over it.
 */
export const roles = ['Primary', 'Secondary', 'Unknown'] as const;
export type Role = (typeof roles)[number];

export const diskStates = [
  'Diskless',
  'Attaching',
  'Failed',
  'Negotiating',
  'Inconsistent',
  'Outdated',
  'DUnknown',
  'Consistent',
  'UpToDate',
] as const;
export type DiskState = (typeof diskStates)[number];

export const connectionStates = [
  'StandAlone',
  'Disconnecting',
  'Unconnected',
  'Timeout',
  'BrokenPipe',
  'NetworkFailure',
  'ProtocolError',
  'TearDown',
  'Connecting',
  'Connected',
] as const;
export type ConnectionState = (typeof connectionStates)[number];

export const replicationStates = [
  'Off',
  'Established',
  'StartingSyncS',
  'StartingSyncT',
  'WFBitMapS',
  'WFBitMapT',
  'WFSyncUUID',
  'SyncSource',
  'SyncTarget',
  'PausedSyncS',
  'PausedSyncT',
  'VerifyS',
  'VerifyT',
  'Ahead',
  'Behind',
] as const;
export type ReplicationState = (typeof replicationStates)[number];

export const protocols = ['A', 'B', 'C'] as const;
/** When a mirrored write is complete: A sent, B received by the peer, C written by the peer (the default). */
export type Protocol = (typeof protocols)[number];

/** Unit of the dirty bitmap, in bytes. */
export const blockBytes = 4096;
/** A strong hash of one block, or of `coarseBlocks` of them, in bytes (docs/peer-protocol.md, "Hashes"). */
export const digestBytes = 32;
/** Blocks of one coarse hash: 128 KiB. Less work than a hash for each, and a write in one leaves the others equal. */
export const coarseBlocks = 32;
/** Unit of the activity log, in bytes. */
export const extentBytes = 4 * 1024 * 1024;
/** Largest device, in bytes: 16 TiB, for which the metadata has room. */
export const maxDeviceBytes = 16 * 1024 ** 4;
/** Largest payload of one write or one resync packet, in bytes (also the NBD payload limit). */
export const maxPayloadBytes = 32 * 1024 * 1024;

/** A generation identifier: 64 random bits; zero means "none". Printed as 16 hex digits. */
export type Generation = bigint;

export function formatGeneration(generation: Generation): string {
  return generation.toString(16).padStart(16, '0');
}

/** A size that a device can have: whole blocks, and room for them in the metadata. */
export function isDeviceSize(sizeBytes: number): boolean {
  return sizeBytes > 0 && sizeBytes <= maxDeviceBytes && sizeBytes % blockBytes === 0;
}
