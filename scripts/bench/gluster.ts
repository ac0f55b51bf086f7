/** GlusterFS, a volume of two replicas on this machine, exported by qemu through libgfapi. Needs root, for namespaces. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Contender, Place } from './contender.ts';
import { startServer } from './processes.ts';
import { contender, daemon, folderOf } from './qemu.ts';

export const glusterNeeds = ['glusterd', 'gluster', 'ip', 'unshare', 'qemu-img', daemon] as const;

/** The first process of its namespace takes all others with it when it is killed: so nothing of this stays behind. */
const namespaces = ['--net', '--mount', '--pid', '--mount-proc', '--fork', '--kill-child'];

export async function startGluster({ directory, sizeBytes }: Place): Promise<Contender> {
  const folder = folderOf(directory, 'gluster');
  const script = join(import.meta.dirname, 'gluster-namespace.sh');
  const server = await startServer(
    'unshare',
    [...namespaces, 'sh', script, folder, String(sizeBytes)],
    /"QMP"/,
  );
  const started = contender('gluster', folder, [server], descendants(server.pid));
  return {
    ...started,
    commands: [
      `unshare ${namespaces.join(' ')} sh scripts/bench/gluster-namespace.sh ${folder} ${sizeBytes}`,
    ],
  };
}

/** Process ids as this namespace sees them. Daemons belong to the first process of theirs, so none is lost. */
function descendants(ancestor: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    const parent = /^[0-9]+$/.test(name) ? parentOf(name) : null;
    if (parent !== null) parents.set(Number(name), parent);
  }
  const found = [ancestor];
  // Grows while it is walked: children of children follow.
  for (const pid of found) {
    for (const [child, parent] of parents) if (parent === pid) found.push(child);
  }
  return found.slice(1);
}

/** proc(5), field 4 of stat, behind the name; null when the process is gone. */
function parentOf(pid: string): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return null;
  }
}
