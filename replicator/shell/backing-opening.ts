/**
 * Opens what holds a resource's bytes: finds or creates it, locks it, makes sure that it is this resource's and large
 * enough, and tells what was in it. Nothing of its content is ever changed here; what cannot be used is refused
 * with the reason and the next step.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  statSync,
  statfsSync,
} from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { dirname } from 'node:path';
import type { Origin } from '../core/metadata.ts';
import type { Refusal, RefusalCode } from '../core/refusal.ts';
import { checkClaim, claim } from './backing-identity.ts';
import type { Binding, Claim } from './backing-identity.ts';
import { BackingStore } from './backing-store.ts';
import { processFileIo } from './fault-io.ts';
import { syncDirectory } from './directory.ts';
import type { FileIo } from './file-io.ts';
import { blockDeviceBytes, tryLock } from './libc.ts';
import { describeLockHolder } from './lock-holder.ts';

export interface BackingOptions {
  readonly path: string;
  /** Size of the device; the backing may be larger. */
  readonly sizeBytes: number;
  /** Create a sparse file when nothing is there. Heeded only for new metadata: lost data is not replaced by zeroes. */
  readonly create: boolean;
  /** 32 hex digits, from the metadata. */
  readonly identity: string;
  /** What the metadata recorded when the backing was claimed; null for new metadata. */
  readonly binding: Binding | null;
  readonly io?: FileIo;
}

export type BackingOpened =
  | {
      readonly ok: true;
      readonly store: BackingStore;
      /** To be recorded in the metadata when it is new. */
      readonly binding: Binding;
      /** What was found when the backing was claimed; `settled` for one claimed before. */
      readonly origin: Origin;
    }
  | { readonly ok: false; readonly refusal: Refusal };

export async function openBackingStore(options: BackingOptions): Promise<BackingOpened> {
  let fd: number | null = null;
  try {
    const opened = openFile(options);
    if (!opened.ok) return opened;
    fd = opened.fd;
    const checked = await checkFile(options, opened.fd, opened.created);
    // The descriptor now belongs to the store.
    if (checked.ok) fd = null;
    return checked;
  } catch (error) {
    return refuse(
      'backing-failed',
      `${options.path} cannot be used as backing: ${messageOf(error)}.`,
      'Check the path, its permissions and the disk under it.',
    );
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

type Refused = { readonly ok: false; readonly refusal: Refusal };

function openFile(options: BackingOptions): Refused | { ok: true; fd: number; created: boolean } {
  const stats = statSync(options.path, { throwIfNoEntry: false });
  if (stats === undefined) {
    if (!options.create || options.binding !== null) return missing(options);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
    const fd = openSync(options.path, flags, 0o600);
    return { ok: true, fd, created: true };
  }
  if (!stats.isFile() && !stats.isBlockDevice()) {
    return refuse(
      'backing-failed',
      `${options.path} is neither a regular file nor a block device.`,
      'Give the path of a file or a block device.',
    );
  }
  // On a block device O_EXCL means: not mounted, and not taken by another user of that kind (open(2)).
  const flags = constants.O_RDWR | (stats.isBlockDevice() ? constants.O_EXCL : 0);
  try {
    return { ok: true, fd: openSync(options.path, flags), created: false };
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error;
    return inUse(options.path, 'the kernel (mounted, or part of another device)');
  }
}

async function checkFile(options: BackingOptions, fd: number, created: boolean): Promise<BackingOpened> {
  const { path, sizeBytes } = options;
  let stats = fstatSync(fd, { bigint: true });
  if (!tryLock(fd)) return inUse(path, describeLockHolder(stats));

  // An empty file that new metadata may create is one whose creation a crash cut short: there is nothing in it to lose.
  const isFresh = options.binding === null && options.create && stats.isFile() && stats.size === 0n;
  if (created || isFresh) {
    ftruncateSync(fd, sizeBytes);
    stats = fstatSync(fd, { bigint: true });
  }
  const roomBytes = stats.isBlockDevice() ? blockDeviceBytes(fd) : Number(stats.size);
  if (roomBytes < sizeBytes) {
    return refuse(
      'backing-too-small',
      `${path} has ${roomBytes} bytes, the device needs ${sizeBytes}.`,
      options.binding === null
        ? 'Extend the backing (for a file: truncate --size), or define the resource with a smaller size.'
        : // Extended, its end would read as zeroes that nobody wrote.
          'Put the whole of it back; or, if the peer has the data, remove it and its metadata and let this node be resynced.',
    );
  }

  const claimed = claimFile(options, fd, stats);
  if (!claimed.ok) {
    return refuse(
      'backing-not-ours',
      `${path} is not the backing of this resource: ${claimed.why}.`,
      options.binding === null
        ? 'Give another path; or, if its content is to be used here, remove the extended attribute user.lockstep.resource.'
        : 'Put the right file back; or, to start over from what is there, remove the metadata of this resource.',
    );
  }
  if (options.binding === null) {
    // Both the file and its name have to outlive a power cut before the metadata refers to them.
    fsyncSync(fd);
    syncDirectory(dirname(path));
  }

  const io = options.io ?? processFileIo;
  const fileSystem = stats.isBlockDevice() ? null : statfsSync(path).type;
  const tellsHoles = fileSystem !== null && holeTellingFileSystems.has(fileSystem);
  const origin = options.binding !== null ? 'settled' : await originOf(fd, io, sizeBytes, tellsHoles);
  const store = new BackingStore({
    fd,
    path,
    sizeBytes,
    kind: stats.isBlockDevice() ? 'device' : 'file',
    tellsHoles,
    inMemory: fileSystem === tmpfsMagic,
    io,
    nowMs: () => performance.now(),
  });
  return { ok: true, store, binding: claimed.binding, origin };
}

function claimFile(options: BackingOptions, fd: number, stats: BigIntStats): Claim {
  return options.binding === null
    ? claim(fd, stats, options.identity)
    : checkClaim(fd, stats, options.identity, options.binding);
}

const tmpfsMagic = 0x01021994;

/**
 * File systems whose SEEK_HOLE never calls a hole what has been written and not yet flushed (magic numbers of
 * statfs(2)): ext2/3/4, XFS, Btrfs, tmpfs, and overlayfs over them. Elsewhere everything counts as data: a hole
 * claimed wrongly would be resynced as zeroes over good data.
 */
const holeTellingFileSystems: ReadonlySet<number> = new Set([
  0xef53,
  0x58465342,
  0x9123683e,
  tmpfsMagic,
  0x794c7630,
]);

/** Allocated zeroes are read this far before the file counts as one with data. Bytes. */
const zeroScanBytesMax = 64 * 1024 * 1024;
const zeroScanPieceBytes = 1024 * 1024;

/** Whether the first `sizeBytes` are known to be all zeroes. */
async function originOf(fd: number, io: FileIo, sizeBytes: number, tellsHoles: boolean): Promise<Origin> {
  const zeroes = Buffer.alloc(zeroScanPieceBytes);
  let position = 0;
  let scanned = 0;
  while (position < sizeBytes) {
    const data = tellsHoles ? await seekData(fd, io, position) : position;
    if (data === null || data >= sizeBytes) break;
    if (scanned >= zeroScanBytesMax) return 'created-with-data';
    const length = Math.min(zeroScanPieceBytes, sizeBytes - data);
    const piece = await readPiece(fd, io, data, length);
    if (!piece.equals(zeroes.subarray(0, length))) return 'created-with-data';
    scanned += length;
    position = data + length;
  }
  return 'created-empty';
}

function seekData(fd: number, io: FileIo, position: number): Promise<number | null> {
  return new Promise((resolve, reject) => {
    io.seek(fd, position, 'data', (error, found) => {
      if (error === null) resolve(found);
      else reject(error);
    });
  });
}

function readPiece(fd: number, io: FileIo, position: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const piece = Buffer.alloc(length);
    io.read(fd, piece, position, (error) => {
      if (error === null) resolve(piece);
      else reject(error);
    });
  });
}

function missing(options: BackingOptions): Refused {
  return refuse(
    'backing-missing',
    `${options.path} does not exist.`,
    options.binding === null
      ? 'Create it with the size of the device, or leave the path out to have one created.'
      : 'Put the file back (or mount the file system it is on); to start over from an empty one, remove the metadata as well.',
  );
}

function inUse(path: string, holder: string): Refused {
  return refuse('backing-in-use', `${path} is in use by ${holder}.`, 'Stop what uses it, then attach again.');
}

function refuse(code: RefusalCode, reason: string, nextStep: string): Refused {
  return { ok: false, refusal: { code, reason, nextStep } };
}

function codeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
