/** Who takes part: each contender is started if its programs are there, and named if they are not. */
import { findTool } from '../../test/support/find-tool.ts';
import type { Contender, Place } from './contender.ts';
import { startPair, startUnmirrored } from './lockstep.ts';
import { daemon, startQuorum, startSingle } from './qemu.ts';
import { contenderNames, labels, type ContenderName } from './rows.ts';

interface Entry {
  /** Commands without which it cannot take part. */
  readonly needs: readonly string[];
  readonly start: (place: Place) => Promise<Contender>;
}

const entries: Readonly<Record<ContenderName, Entry | null>> = {
  mirrored: { needs: [], start: startPair },
  unmirrored: { needs: [], start: startUnmirrored },
  quorum: { needs: [daemon], start: startQuorum },
  single: { needs: [daemon], start: startSingle },
  gluster: null,
};

/** `started` hears of each one at once, so that none is left running when a later one fails. */
export async function startField(
  place: Place,
  { contenders }: { readonly contenders: readonly ContenderName[] },
  started: (contender: Contender) => void,
): Promise<Contender[]> {
  const field: Contender[] = [];
  for (const name of contenderNames.filter((each) => contenders.includes(each))) {
    const entry = entries[name];
    if (!entry || entry.needs.some((command) => findTool(command) === null)) continue;
    const contender = await entry.start(place);
    started(contender);
    field.push(contender);
  }
  if (field.length === 0)
    throw new Error(`none of ${contenders.map((name) => labels[name]).join(', ')} can run`);
  return field;
}
