/**
 * Starts main.ts in a checkout. Plain JavaScript, because a Node that cannot read TypeScript at all has to get as far
 * as saying so; one that can, and is too old nevertheless, hears it from main.ts. For the same reason it is here that what
 * was compiled before is taken into use: once TypeScript has been read, the reader of it stays in memory.
 */
import { mkdirSync } from 'node:fs';
import module from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

// As compile-cache.ts does in a package.
if (process.env.NODE_COMPILE_CACHE === undefined) {
  try {
    const directory = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'lockstep');
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    module.enableCompileCache?.(directory);
    process.env.NODE_COMPILE_CACHE = directory;
  } catch {
    // A home that cannot be written, or none: starts take longer.
  }
}

try {
  await import('./main.ts');
} catch (error) {
  if (error?.code !== 'ERR_UNKNOWN_FILE_EXTENSION') throw error;
  process.stderr.write(
    `lockstep: this is Node ${process.versions.node}; Lockstep needs Node 24 or newer. ` +
      'From a checkout, "npm run -s lockstep -- ..." uses the right one.\n',
  );
  process.exitCode = 2;
}
