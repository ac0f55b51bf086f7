/** GlusterFS. */
import type { Contender, Place } from './contender.ts';

export function startGluster(_place: Place): Promise<Contender> {
  return Promise.reject(new Error('not yet'));
}
