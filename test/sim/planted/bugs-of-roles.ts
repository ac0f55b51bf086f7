/** Planted bugs in roles, reads, disk errors and time. */
import type { PlantedBug } from './planted-bug.ts';

export const roleBugs: readonly PlantedBug[] = [];
