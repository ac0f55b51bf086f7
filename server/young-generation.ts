/**
 * The part of a heap that is for short-lived objects. The runtime lets it grow to 32 MiB in each thread and keeps what it
 * has grown to: left alone, that is more memory than all else a node holds.
 */
import { setFlagsFromString } from 'node:v8';

/**
 * The most of a data plane, MiB: three times one of its halves. It cleans up more often, and what lies in buffers that nobody
 * uses any more is given back sooner.
 */
export const dataPlaneYoungMebibytes = 12;

/** Those of the main thread stay as they begin, at 1 MiB a half: loading the program, and each request after it, would make them grow. */
export function holdYoungGeneration(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}

/**
 * Before threads are begun: nothing grows, in the whole process, so they begin with halves of that size; or smaller ones,
 * where their own limit says so.
 */
export function beginThreadsGrown(): void {
  setFlagsFromString(`--min-semi-space-size=${dataPlaneYoungMebibytes / 3}`);
}
