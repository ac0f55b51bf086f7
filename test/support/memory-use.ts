/** How much memory a process uses, as the kernel counts it. */
import { readFileSync } from 'node:fs';

export interface MemoryUse {
  /** Resident now; includes the pages of the runtime's own program file that are in the page cache, some 60 MB. */
  readonly nowBytes: number;
  /** The most that ever was resident. */
  readonly mostBytes: number;
  /** Of what is resident, that which belongs to this process alone and to no file. */
  readonly anonymousBytes: number;
  /** Resident now, pages that other processes have as well counted by this one's share of them. */
  readonly proportionalBytes: number;
}

export function memoryOf(pid: number): MemoryUse {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mapped = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const kibibytes = (name: string, of = text): number => {
    const match = new RegExp(`^${name}:\\s+([0-9]+) kB$`, 'm').exec(of);
    if (match === null) throw new Error(`no ${name} of process ${pid}`);
    return Number(match[1]);
  };
  return {
    nowBytes: kibibytes('VmRSS') * 1024,
    mostBytes: kibibytes('VmHWM') * 1024,
    anonymousBytes: kibibytes('RssAnon') * 1024,
    proportionalBytes: kibibytes('Pss', mapped) * 1024,
  };
}
