/** Who takes part: each contender is started if its programs are there, and named if they are not. */
import { findTool } from '../../test/support/find-tool.ts';
import type { Contender, Place } from './contender.ts';
import { glusterNeeds, startGluster } from './gluster.ts';
import { startPair, startUnmirrored } from './lockstep.ts';
import { daemon, startQuorum, startSingle } from './qemu.ts';
import { labels, type ContenderName } from './rows.ts';

interface Entry {
  /** Commands without which it cannot take part. */
  readonly needs: readonly string[];
  readonly images: number;
  readonly start: (place: Place) => Promise<Contender>;
}

const entries: Readonly<Record<ContenderName, Entry>> = {
  mirrored: { needs: [], images: 2, start: startPair },
  unmirrored: { needs: [], images: 1, start: startUnmirrored },
  quorum: { needs: [daemon], images: 2, start: startQuorum },
  single: { needs: [daemon], images: 1, start: startSingle },
  gluster: { needs: glusterNeeds, images: 2, start: startGluster },
};

export interface Lineup {
  readonly present: readonly ContenderName[];
  /** A sentence for each one that was asked for and cannot take part. */
  readonly missing: readonly string[];
  /** Images of the full size that they keep together. */
  readonly images: number;
}

/** Looks for the programs that each one needs; `find` answers where a command is, or null. */
export function lineup(
  asked: readonly ContenderName[],
  find: (command: string) => string | null = findTool,
): Lineup {
  const lacks = (name: ContenderName): readonly string[] =>
    entries[name].needs.filter((command) => find(command) === null);
  const present = asked.filter((name) => lacks(name).length === 0);
  return {
    present,
    missing: asked
      .filter((name) => !present.includes(name))
      .map((name) => `${labels[name]} is left out: ${lacks(name).join(', ')} not found`),
    images: present.reduce((sum, name) => sum + entries[name].images, 0),
  };
}

export interface Field {
  readonly contenders: readonly Contender[];
  /** A sentence for each one that did not start. */
  readonly missing: readonly string[];
}

/**
 * `started` hears of each one at once, so that none is left running when a later one fails. A stranger that does not start
 * is named and left out; one of ours that does not start fails the run.
 */
export async function startField(
  place: Place,
  present: readonly ContenderName[],
  started: (contender: Contender) => void,
): Promise<Field> {
  const contenders: Contender[] = [];
  const missing: string[] = [];
  for (const name of present) {
    try {
      const contender = await entries[name].start(place);
      started(contender);
      contenders.push(contender);
    } catch (error) {
      if (name === 'mirrored' || name === 'unmirrored') throw error;
      const why = error instanceof Error ? error.message : String(error);
      missing.push(`${labels[name]} is left out: ${why.trim().split('\n').at(-1) ?? ''}`);
    }
  }
  return { contenders, missing };
}
