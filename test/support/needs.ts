/**
 * Tests that need a program which may not be installed. Without it they are reported as skipped, with the program's
 * name in the title; with CI=true they fail instead, because there a skipped test proves nothing.
 */
import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import test from 'ava';
import type { ImplementationFn } from 'ava';
import { findTool } from './find-tool.ts';

/** A command to be found in the path, or `kernel`: the unpacked Debian kernel (scripts/install-test-tools.sh). */
export type Need = 'kernel' | (string & {});

/** Declares a test that runs only when everything it needs is there. */
export function testWith(needs: readonly Need[], title: string, implementation: ImplementationFn<[]>): void {
  const missing = needs.filter((need) => (need === 'kernel' ? findKernel() : findTool(need)) === null);
  if (missing.length === 0) {
    test(title, implementation);
    return;
  }
  const complaint = `missing: ${missing.join(', ')} (see scripts/install-test-tools.sh)`;
  if (process.env['CI'] === 'true') {
    test(title, (t) => t.fail(complaint));
  } else {
    test.skip(`${title} [${complaint}]`, implementation);
  }
}

export function toolPath(name: string): string {
  const path = findTool(name);
  if (path === null) throw new Error(`${name} is not installed; see scripts/install-test-tools.sh`);
  return path;
}

/** Cache of what tests download or build; ignored by git. */
export const cacheDirectory = resolve(import.meta.dirname, '../../.cache');

export interface KernelFiles {
  /** Package name, which carries the version. */
  readonly name: string;
  readonly image: string;
  /** Directory of the modules, laid out as below lib/modules/VERSION/kernel. */
  readonly modules: string;
}

export function findKernel(): KernelFiles | null {
  const folder = join(cacheDirectory, 'kernel');
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return null;
  }
  const name = names
    .filter((each) => each.startsWith('linux-image-'))
    .sort()
    .at(-1);
  if (name === undefined) return null;
  return { name, image: join(folder, name, 'vmlinuz'), modules: join(folder, name, 'modules') };
}
