/** Temporary directories on the disk's file system and in memory: they differ in what they can punch and cache. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

const memory = '/dev/shm';

/** Each root once; only the first where /dev/shm does not exist. */
export const temporaryRoots: readonly string[] = existsSync(memory) ? [tmpdir(), memory] : [tmpdir()];

/** A directory that is removed when the test ends. */
export function temporaryDirectory(t: ExecutionContext, root: string = tmpdir()): string {
  const path = mkdtempSync(join(root, 'lockstep-test-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
