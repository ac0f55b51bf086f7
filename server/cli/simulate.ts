/** `sim`: the replication core in a simulated world (scripts/sim.ts). */
import type { CheckoutScript } from './checkout-script.ts';

export const simulate: CheckoutScript = {
  verb: 'sim',
  summary: 'Run the replication core through simulated faults, thousands of histories a minute',
  flags: {
    seed: { type: 'text', help: 'N  this history alone, with a readable trace' },
    shrunk: { type: 'text', help: 'PLAN  a shortened one, as a run has printed it' },
    seeds: { type: 'text', help: 'N  so many histories (default 100)' },
    from: { type: 'text', help: 'N  the first seed (default 1; drawn with --minutes)' },
    minutes: { type: 'text', help: 'N  as many as there is time for' },
    jobs: { type: 'text', help: 'N  so many at once (default: one per processor)' },
    quiet: { type: 'switch', help: 'without the trace' },
    'no-shrink': { type: 'switch', help: 'do not look for a shorter history that fails alike' },
  },
};
