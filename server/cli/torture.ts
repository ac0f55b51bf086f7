/** `torture`: real processes, real faults (scripts/torture.ts). */
import type { CheckoutScript } from './checkout-script.ts';

export const torture: CheckoutScript = {
  verb: 'torture',
  summary: 'Kill, freeze and cut off the nodes of a pair under load, and look for lost writes',
  flags: {
    cycles: { type: 'text', help: 'N  how many faults, each followed by a full check (default 20)' },
    seed: {
      type: 'text',
      help: 'N  repeats what is done and written, not the speed of the machine (default: drawn)',
    },
    dir: {
      type: 'text',
      help: 'DIR  where the nodes are; kept after a failure (default: the system’s for temporary files)',
    },
  },
};
