/** Who holds the flock(2) lock of a file, as far as /proc/locks tells: for a refusal that names the process. */
import { readFileSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';

/** "process 1234 (qemu-img)", or "another process" when the kernel does not say (another container, say). */
export function describeLockHolder(stats: BigIntStats): string {
  const pid = findLockHolder(readText('/proc/locks'), stats.dev, stats.ino);
  if (pid === null) return 'another process';
  const name = readText(`/proc/${pid}/comm`).trim();
  return name === '' ? `process ${pid}` : `process ${pid} (${name})`;
}

/**
 * The pid in the line of the lock, for instance `1: FLOCK  ADVISORY  WRITE 1234 08:02:56789 0 EOF`
 * (proc_locks(5)); null when there is none. `device` is st_dev, encoded as glibc's makedev does.
 */
export function findLockHolder(locks: string, device: bigint, inode: bigint): number | null {
  const major = ((device >> 32n) & 0xfffff000n) | ((device >> 8n) & 0xfffn);
  const minor = ((device >> 12n) & 0xffffff00n) | (device & 0xffn);
  for (const line of locks.split('\n')) {
    const found = /^\d+: FLOCK +\w+ +\w+ +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /.exec(line);
    if (found === null) continue;
    const [, pid, lineMajor, lineMinor, lineInode] = found;
    const isSame =
      BigInt(`0x${lineMajor}`) === major &&
      BigInt(`0x${lineMinor}`) === minor &&
      BigInt(lineInode ?? '0') === inode;
    if (isSame) return Number(pid);
  }
  return null;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
