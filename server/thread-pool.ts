/**
 * The pool that waits for disks: cold reads, flushes, whatever a page cache does not answer at once. The runtime's own
 * four threads would be one slow disk's at once, and every other resource's with them. A thread that waits costs some
 * kilobytes; how many of them one resource may have is bounded where it asks (replicator/shell/pool-share.ts).
 */

const threads = 128;

/** Before the first operation of the pool, which is when its size is read. What the user has set stays. */
export function widenThreadPool(): void {
  process.env['UV_THREADPOOL_SIZE'] ??= String(threads);
}
