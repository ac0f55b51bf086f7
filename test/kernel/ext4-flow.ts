/**
 * What a user does with a device, from a real kernel: attach, make an ext4 file system, write, trim, check, detach.
 * The halves are apart so that a test can fail over between them.
 */
import { hostAddress } from './guest.ts';
import type { Guest } from './guest.ts';

/** `sha256sum` lines, paths relative to the file system's root. */
export type Checksums = string;

const device = '/dev/nbd0';

/** Attaches with the options a user is told to use: none (nbd-client 3.24 with -timeout turns a stall into errors). */
export async function attach(guest: Guest, port: number, exportName: string): Promise<void> {
  await guest.mustRun(`nbd-client ${hostAddress} ${port} -N '${exportName}' ${device}`);
}

export async function detach(guest: Guest): Promise<void> {
  await guest.mustRun(`nbd-client -d ${device}`);
  // The device is free once the kernel says that no client owns it; until then a new attach would be refused.
  await guest.mustRun(`while [ -e /sys/block/nbd0/pid ]; do sleep 0.1; done`);
}

/** Makes a file system, fills it, trims what was removed, checks it and detaches. */
export async function writeFlow(guest: Guest, port: number, exportName: string): Promise<Checksums> {
  await attach(guest, port, exportName);
  await guest.mustRun(`mkfs.ext4 -q -F ${device}`);
  await guest.mustRun(`mount -t ext4 ${device} /mnt`);
  await guest.mustRun(writeFiles);
  const checksums = await guest.mustRun('cd /mnt && find . -type f | sort | xargs sha256sum');
  await guest.mustRun('rm /mnt/removed && sync && fstrim -v /mnt');
  await guest.mustRun('umount /mnt');
  await check(guest);
  await detach(guest);
  return checksums
    .split('\n')
    .filter((line) => !line.endsWith('./removed'))
    .join('\n');
}

/** Attaches what `writeFlow` left, checks the file system and every file, writes once more, and detaches. */
export async function verifyFlow(
  guest: Guest,
  port: number,
  exportName: string,
  checksums: Checksums,
): Promise<void> {
  await attach(guest, port, exportName);
  await check(guest);
  await guest.mustRun(`mount -t ext4 ${device} /mnt`);
  await guest.mustRun(`cd /mnt && sha256sum -c - <<'END'\n${checksums.trim()}\nEND`);
  await guest.mustRun('echo verified >>/mnt/journal && sync && umount /mnt');
  await check(guest);
  await detach(guest);
}

async function check(guest: Guest): Promise<void> {
  // Caches dropped first, so that the check reads what the server has.
  await guest.mustRun(`blockdev --flushbufs ${device} && e2fsck -f -n ${device}`);
}

const writeFiles = `
set -e
cd /mnt
mkdir -p small/deep
for i in 1 2 3 4 5 6 7 8 9; do echo "file $i" >small/deep/$i; done
dd if=/dev/urandom of=large bs=64k count=64 2>/dev/null
dd if=/dev/urandom of=removed bs=64k count=32 2>/dev/null
# Direct, unaligned to anything but the sector; and one with a flush after each record.
dd if=/dev/urandom of=direct bs=512 count=40 oflag=direct 2>/dev/null
for i in 1 2 3 4 5; do echo "record $i" >>synced; sync; done
sync
`;
