/**
 * Builds the root file system of a test guest: busybox, the NBD client and the ext4 tools of this machine with their
 * shared libraries, the kernel modules they need, and an agent that runs scripts sent over a virtio port. The result
 * is cached under a name derived from everything that goes in.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { cacheDirectory, toolPath } from '../support/needs.ts';
import type { KernelFiles } from '../support/needs.ts';
import { packCpio } from './cpio.ts';
import type { CpioEntry } from './cpio.ts';

/** Path of an initramfs for this kernel, built on first use. Safe to call from several processes at once. */
export function buildInitramfs(kernel: KernelFiles): string {
  const entries = collectEntries(kernel);
  const hash = createHash('sha256').update(kernel.name);
  for (const entry of entries) hash.update(`${entry.path}\0${entry.mode.toString(8)}\0`).update(entry.data);
  const folder = join(cacheDirectory, 'initramfs');
  const path = join(folder, `${kernel.name}-${hash.digest('hex').slice(0, 16)}.cpio.gz`);
  if (exists(path)) return path;

  mkdirSync(folder, { recursive: true });
  const scratch = `${path}.${process.pid}`;
  // Unpacking is emulated, so the guest boots faster from a fast, weak compression.
  writeFileSync(scratch, gzipSync(packCpio(entries), { level: 1 }));
  renameSync(scratch, path);
  return path;
}

const tools = ['nbd-client', 'mkfs.ext4', 'e2fsck', 'fstrim', 'blkdiscard', 'blockdev'];
// crc32c_generic is asked for by name at run time (ext4 checksums), which no dependency list shows.
const modules = ['crc32c_generic', 'virtio_pci', 'virtio_net', 'virtio_console', 'ext4', 'nbd'];

function collectEntries(kernel: KernelFiles): CpioEntry[] {
  const files = new Map<string, CpioEntry>();
  const add = (path: string, mode: number, data: Uint8Array): void => {
    // Parents first: the kernel unpacks in order and does not create directories by itself.
    for (const folder of parents(path)) {
      if (!files.has(folder)) files.set(folder, { path: folder, mode: 0o040755, data: noData });
    }
    files.set(path, { path, mode, data });
  };
  for (const folder of ['dev', 'proc', 'sys', 'tmp', 'mnt', 'run', 'etc']) add(folder, 0o040755, noData);
  add('etc/mtab', 0o120777, Buffer.from('/proc/mounts'));
  add('bin/busybox', 0o100755, readFileSync(toolPath('busybox')));
  for (const tool of tools) {
    const path = toolPath(tool);
    add(`usr/sbin/${tool}`, 0o100755, readFileSync(path));
    for (const library of sharedLibraries(path)) add(library.slice(1), 0o100755, readFileSync(library));
  }
  const order = modulesInLoadOrder(kernel.modules);
  for (const path of order) add(`modules/${basename(path)}`, 0o100644, readFileSync(path));
  const init = initScript(order.map((path) => basename(path)));
  add('init', 0o100755, Buffer.from(init));
  return [...files.values()];
}

const noData = new Uint8Array(0);

function parents(path: string): string[] {
  const folder = dirname(path);
  return folder === '.' ? [] : [...parents(folder), folder];
}

/** Absolute paths, as the loader will ask for them. */
function sharedLibraries(program: string): string[] {
  const listing = execFileSync('ldd', [program], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  const paths: string[] = [];
  for (const line of listing.split('\n')) {
    const path = /^\s*(?:\S+ => )?(\/\S+) \(0x/.exec(line)?.[1];
    if (path !== undefined) paths.push(path);
    else if (line.includes('not found')) throw new Error(`${program}: ${line.trim()}`);
  }
  return paths;
}

/**
 * The package carries no modules.dep (its installation would make one), so dependencies are read from the
 * modules themselves: a `depends=` string of the section .modinfo, names separated by commas.
 */
function modulesInLoadOrder(folder: string): string[] {
  const paths = new Map<string, string>();
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (file.endsWith('.ko')) paths.set(moduleName(file), join(folder, file));
  }
  const order = new Set<string>();
  const visit = (name: string, wantedBy: string): void => {
    const path = paths.get(name);
    if (path === undefined)
      throw new Error(`the kernel package has no module ${name}, wanted by ${wantedBy}`);
    if (order.has(path)) return;
    for (const dependency of dependencies(path)) visit(dependency, name);
    order.add(path);
  };
  for (const name of modules) visit(name, 'the guest');
  return [...order];
}

function moduleName(file: string): string {
  return basename(file, '.ko').replaceAll('-', '_');
}

function dependencies(path: string): string[] {
  const list = /\0depends=([^\0]*)\0/.exec(readFileSync(path, 'latin1'))?.[1];
  if (list === undefined) throw new Error(`${path} says nothing of its dependencies`);
  return list === '' ? [] : list.split(',').map((name) => moduleName(name));
}

/**
 * Protocol of the port, guest's side (the host's is guest.ts): `ready\n` once; then for each line `ID BASE64\n`, whose
 * base64 is a shell script, a line `ID STATUS LENGTH\n` and LENGTH bytes of output. Scripts run one at a time
 * in one directory, each in a shell of its own.
 *
 * No default route: a guest reaches the host's loopback as 10.0.2.2 and nothing else.
 */
function initScript(moduleFiles: readonly string[]): string {
  return `#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin
/bin/busybox --install -s /usr/bin
export PATH=/usr/sbin:/usr/bin:/bin HOME=/tmp
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
for module in ${moduleFiles.join(' ')}; do
  insmod /modules/$module || echo "guest: insmod $module failed"
done
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
cd /tmp
exec 3<>/dev/vport0p1 || { echo 'guest: no command port'; poweroff -f; }
echo ready >&3
while read -r id script <&3; do
  echo "$script" | base64 -d >/run/script
  sh /run/script </dev/null >/run/output 2>&1 3>&-
  status=$?
  cp /run/output /run/reply
  echo "$id $status $(wc -c </run/reply)" >&3
  cat /run/reply >&3
done
poweroff -f
`;
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
