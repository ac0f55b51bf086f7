/** What takes part: something that serves one NBD export, and the processes that do. */
import type { ContenderName } from './rows.ts';

export interface Contender {
  readonly name: ContenderName;
  /** As fio takes it. */
  readonly uri: string;
  /** Of all that serve it, replicas included. */
  readonly pids: readonly number[];
  /** How they were started. */
  readonly commands: readonly string[];
  stop(): Promise<void>;
}

export interface Place {
  /** Where images and sockets go; short, since a socket's path may have 107 bytes. */
  readonly directory: string;
  readonly sizeBytes: number;
}

export function unixUri(exportName: string, socket: string): string {
  return `nbd+unix:///${exportName}?socket=${socket}`;
}
