/**
 * The "newc" archive format that the kernel unpacks as its initial root file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel sources). Writing only.
 */

export interface CpioEntry {
  /** Relative to the root, without a leading slash. */
  readonly path: string;
  /** Type and permission bits, as in `st_mode`; a directory must come before what lies in it. */
  readonly mode: number;
  /** Contents of a file, target of a symbolic link, empty for a directory. */
  readonly data: Uint8Array;
}

export function packCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const [index, entry] of entries.entries()) parts.push(...packEntry(entry, index + 1));
  // The trailer has no inode and ends the archive.
  parts.push(...packEntry({ path: 'TRAILER!!!', mode: 0, data: new Uint8Array(0) }, 0));
  return Buffer.concat(parts);
}

function packEntry(entry: CpioEntry, inode: number): Uint8Array[] {
  const name = Buffer.from(`${entry.path}\0`);
  const linkCount = 1;
  const ownerAndTimes = [0, 0, linkCount, 0];
  const devices = [0, 0, 0, 0];
  const checksum = 0;
  const fields = [inode, entry.mode, ...ownerAndTimes, entry.data.length, ...devices, name.length, checksum];
  const header = Buffer.from('070701' + fields.map((field) => field.toString(16).padStart(8, '0')).join(''));
  return [header, name, padding(header.length + name.length), entry.data, padding(entry.data.length)];
}

/** Header with name, and data, are each filled up to a multiple of four bytes. */
function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
