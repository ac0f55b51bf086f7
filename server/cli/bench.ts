/** `bench`: the speed of a pair beside qemu's, on this machine (scripts/bench.ts). */
import type { CheckoutScript } from './checkout-script.ts';

export const bench: CheckoutScript = {
  verb: 'bench',
  summary: 'Measure a mirrored device beside qemu’s quorum and single copy, in alternating rounds',
  flags: {
    quick: { type: 'switch', help: 'one round of one second a row; publishes nothing' },
    rows: { type: 'text', help: 'REGEX  these rows only, by name: write-4k-q32' },
    only: { type: 'text', help: 'NAMES  of mirrored,unmirrored,quorum,single,gluster' },
    rounds: { type: 'text', help: 'N  how often everybody has a turn (default 3)' },
    seconds: { type: 'text', help: 'N  length of a measurement (default 3)' },
    gluster: { type: 'switch', help: 'GlusterFS takes part, in a network namespace of its own (root)' },
    memory: {
      type: 'text',
      help: 'DIR  where the images are (default /dev/shm); on a real disk for its figures',
    },
    disk: { type: 'text', help: 'DIR  on a real disk, for the row with flushes (default /var/tmp)' },
    out: {
      type: 'text',
      help: 'DIR  where bench.json, bench.svg and the table in performance.md go (default docs, complete runs only)',
    },
    profile: {
      type: 'switch',
      help: 'instead: where the time of a mirrored 4k write goes, step by step on both nodes',
    },
    micro: { type: 'switch', help: 'instead: codec, checksum, bitmap and request parsing by themselves' },
    hold: { type: 'switch', help: 'start everything, print the commands of the rows, and wait for Ctrl-C' },
  },
};
