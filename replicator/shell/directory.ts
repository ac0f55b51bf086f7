/** Directories are files too: a new or renamed entry is durable only when its directory has been synced. */
import { closeSync, constants, fsyncSync, openSync } from 'node:fs';

/** Makes a new or changed name in a directory survive a power cut (fsync(2), on the directory itself). */
export function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
