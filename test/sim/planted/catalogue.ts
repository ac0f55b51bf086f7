/** All planted bugs. Each was seen to be caught; what only looked like a bug (no promise breaks) is not in here. */
import { flushBugs } from './bugs-of-flushes.ts';
import { generationBugs } from './bugs-of-generations.ts';
import { resyncBugs } from './bugs-of-resync.ts';
import { roleBugs } from './bugs-of-roles.ts';
import { writesBugs } from './bugs-of-writes.ts';
import type { PlantedBug } from './planted-bug.ts';

export const catalogue: readonly PlantedBug[] = [
  ...writesBugs,
  ...flushBugs,
  ...resyncBugs,
  ...generationBugs,
  ...roleBugs,
];
