/**
 * What the C library keeps of freed memory. On its own it gives threads up to eight arenas per processor, and what one
 * holds free no thread of another one uses; and it returns little of it to the kernel: what a resync has taken, once, the
 * process would keep. A C library that lacks these calls has no such arenas either; nothing is done then.
 */
import koffi from 'koffi';
import type { KoffiFunc } from 'koffi';

/** malloc.h of glibc. */
const M_ARENA_MAX = -8;
const arenasMax = 2;

const { mallopt, mallocTrim } = bind();

/** Under full load what was given back is soon taken again, page by page: seldom enough for that to cost nothing. */
const giveBackIntervalMs = 30_000;

/** Before the threads are begun: one that has an arena keeps it. What the user has set stays. */
export function shareMallocArenas(): void {
  if (process.env['MALLOC_ARENA_MAX'] !== undefined) return;
  mallopt?.(M_ARENA_MAX, arenasMax);
}

/** From now on, until the returned function is called; it keeps no process alive. */
export function giveBackRegularly(): () => void {
  const timer = setInterval(() => void giveBackFreed(), giveBackIntervalMs);
  timer.unref();
  return () => clearInterval(timer);
}

/** Freed memory, as whole pages, to the kernel. In a thread of the pool: an arena takes milliseconds. */
export function giveBackFreed(): Promise<void> {
  if (mallocTrim === null) return Promise.resolve();
  return new Promise((resolve) => mallocTrim.async(0, () => resolve()));
}

interface Calls {
  readonly mallopt: KoffiFunc<(parameter: number, value: number) => number> | null;
  readonly mallocTrim: KoffiFunc<(padBytes: number) => number> | null;
}

function bind(): Calls {
  try {
    const libc = koffi.load(null);
    return {
      mallopt: libc.func('mallopt', 'int', ['int', 'int']),
      mallocTrim: libc.func('malloc_trim', 'int', ['size_t']),
    };
  } catch {
    return { mallopt: null, mallocTrim: null };
  }
}
