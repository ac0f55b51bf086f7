/** How much memory a process uses, as the kernel counts it. */
import { readFileSync } from 'node:fs';

/** Resident now, and the most that ever was, in bytes. */
export function memoryOf(pid: number): { readonly nowBytes: number; readonly mostBytes: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kibibytes = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+([0-9]+) kB$`, 'm').exec(text);
    if (match === null) throw new Error(`no ${name} of process ${pid}`);
    return Number(match[1]);
  };
  return { nowBytes: kibibytes('VmRSS') * 1024, mostBytes: kibibytes('VmHWM') * 1024 };
}
