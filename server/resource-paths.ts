/** Where a resource keeps, under the data directory, what no one configured otherwise. */
import { join } from 'node:path';

export interface ResourcePaths {
  readonly directory: string;
  readonly backing: string;
  readonly metadata: string;
  readonly nbdSocket: string;
}

/** `name` is a checked resource name, which cannot leave the directory. */
export function resourcePaths(dataDirectory: string, name: string): ResourcePaths {
  const directory = join(dataDirectory, 'resources', name);
  return {
    directory,
    backing: join(directory, 'data.img'),
    metadata: join(directory, 'metadata.db'),
    nbdSocket: join(directory, 'nbd.sock'),
  };
}
