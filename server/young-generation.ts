/**
 * The part of a heap that is for short-lived objects. The runtime lets it grow to 32 MiB in each thread and keeps what it
 * has grown to: left alone, that is more memory than all else a node holds.
 */
import { setFlagsFromString } from 'node:v8';

/**
 * A data plane's at most, MiB: three times one of its halves. It cleans up more often, and what lies in buffers that nobody
 * uses any more is given back sooner.
 */
export const dataPlaneYoungMebibytes = 12;

/** While the program itself is loaded, which is what makes it grow in the main thread: it stays as it begins, at 2 MiB. */
export function holdYoungGeneration(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}

/** Before threads are begun: the flag is the whole process's, and they are to grow as far as their own limits say. */
export function releaseYoungGeneration(): void {
  setFlagsFromString('--semi-space-growth-factor=2');
}
