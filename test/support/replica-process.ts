/**
 * One replica of a pair as a process, with nothing around it: core, driver, metadata thread, backing file and link. It does
 * what it is told on standard input, one order a line, and answers on standard output when it is done.
 */
import { createInterface } from 'node:readline';
import type { CommandResult } from '../../replicator/core/refusal.ts';
import { isMirrored, parseReplicaPlace, startReplica } from './replica.ts';
import { sayLine } from './say-line.ts';

/** What an operator asks, by name; `write BLOCK VERSION`, `flush`; `mirrored` waits; `stop` also ends the process. */
export type ReplicaOrder =
  | 'promote'
  | 'demote'
  | 'detach'
  | 'attach'
  | `write ${number} ${number}`
  | `zero ${number}`
  | 'flush'
  | 'mirrored'
  | 'stop';

const replica = await startReplica(parseReplicaPlace(process.argv.slice(2)));
sayLine('started');
for await (const line of createInterface({ input: process.stdin })) {
  sayLine(await obey(line));
  if (line === 'stop') process.exit(0);
}

async function obey(line: string): Promise<string> {
  const [word = '', block = '', version = ''] = line.split(' ');
  switch (word) {
    case 'promote':
    case 'demote':
      return outcome(await replica.node.command({ kind: word, force: false, dryRun: false }));
    case 'detach':
      return outcome(await replica.node.command({ kind: word, force: false }));
    case 'attach':
      return outcome(await replica.node.command({ kind: word }));
    case 'write':
      await replica.write(Number(block), Number(version));
      return 'done';
    case 'flush':
      await replica.flush();
      return 'done';
    case 'mirrored':
      await replica.until('mirroring', isMirrored);
      return 'done';
    case 'stop':
      await replica.node.stop();
      return 'done';
    default:
      return `unknown: ${line}`;
  }
}

function outcome(result: CommandResult): string {
  return result.ok ? 'done' : `refused: ${result.refusal.reason}`;
}
