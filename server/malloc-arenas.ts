/**
 * How the C library shares memory out among threads. On its own it gives them up to eight arenas per processor, and what
 * one of them holds free no thread of another one uses: with a pool of a hundred threads that is most of what is held.
 */
import koffi from 'koffi';

/** malloc.h of glibc. */
const M_ARENA_MAX = -8;
const arenasMax = 2;

/** Before the threads are begun: one that has an arena keeps it. What the user has set stays. */
export function shareMallocArenas(): void {
  if (process.env['MALLOC_ARENA_MAX'] !== undefined) return;
  try {
    koffi.load(null).func('mallopt', 'int', ['int', 'int'])(M_ARENA_MAX, arenasMax);
  } catch {
    // A C library without the setting has no such arenas either.
  }
}
