/** The machine and the versions that a run was made with: figures without them say little. */
import { execFileSync } from 'node:child_process';
import { readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { Type } from 'typebox';
import { checker } from '../../server/validation.ts';

export interface Machine {
  readonly processor: string;
  readonly processors: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  /** Of the last minute, when the run began; other work makes figures worthless and ratios doubtful. */
  readonly loadAverage: number;
}

export function describeMachine(): Machine {
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    processors: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    loadAverage: loadavg()[0] ?? 0,
  };
}

/** Name -> version, of what was found. */
export function versions(): Record<string, string> {
  const found: [string, string | null][] = [
    ['lockstep', ownVersion()],
    ['node', process.versions.node],
    ['fio', firstLine('fio', '--version')],
    ['qemu-storage-daemon', firstLine('qemu-storage-daemon', '--version')],
    ['glusterfs', firstLine('glusterd', '--version')],
  ];
  return Object.fromEntries(found.filter((entry): entry is [string, string] => entry[1] !== null));
}

/** Free bytes, and whether what is written there survives the machine. Throws when there is no such directory. */
export function mediumOf(directory: string): { readonly freeBytes: number; readonly inMemory: boolean } {
  const { type, bavail, bsize } = statfsSync(directory);
  return { freeBytes: bavail * bsize, inMemory: type === tmpfs || type === ramfs };
}

/** statfs(2), f_type. */
const tmpfs = 0x01021994;
const ramfs = 0x858458f6;

const root = join(import.meta.dirname, '../..');
const checkPackage = checker(Type.Object({ version: Type.String() }));

function ownVersion(): string {
  const checked = checkPackage(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')));
  const commit = firstLine('git', '-C', root, 'describe', '--always', '--dirty');
  return [checked.ok ? checked.value.version : '?', ...(commit === null ? [] : [commit])].join(', ');
}

function firstLine(command: string, ...options: string[]): string | null {
  try {
    const output = execFileSync(command, options, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return output.split('\n')[0]?.trim() ?? null;
  } catch {
    return null;
  }
}
