/**
 * Compiled program text, kept between starts: half of what a node takes to start is reading its own program. Only in a
 * directory of this user: whoever can write there decides what the program does.
 */
import { mkdirSync } from 'node:fs';
import { enableCompileCache, flushCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Before anything large is imported. Where there is no place for it, starts take longer. */
export function keepCompiled(): void {
  if (process.env['NODE_COMPILE_CACHE'] !== undefined) return;
  try {
    const directory = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'lockstep');
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    enableCompileCache(directory);
    // Threads that are begun later take it from here.
    process.env['NODE_COMPILE_CACHE'] = directory;
  } catch {
    // A home that cannot be written, or none.
  }
}

/** What this thread has loaded, once that is everything: a process that is killed later leaves it to the next one. */
export function saveCompiled(): void {
  flushCompileCache();
}
