/** Listening on a Unix socket whose file is ours alone: mode 0600 from the first moment, stale ones replaced. */
import { chmod, link, lstat, mkdtemp, rm, unlink } from 'node:fs/promises';
import { createConnection } from 'node:net';
import type { Server } from 'node:net';
import { dirname, join } from 'node:path';

export interface UnixListener {
  readonly path: string;
  /** Removes the socket file, unless somebody else's has taken its place. */
  remove(): Promise<void>;
}

/**
 * Throws "in use" when a server answers at `path`, and when something other than a socket is there. A socket
 * nobody listens on (its server was killed) is replaced.
 */
export async function listenOnUnixSocket(server: Server, path: string): Promise<UnixListener> {
  // Bound in a private directory first, so that it is not reachable before its mode is set; a link does not
  // replace what is there, so of two servers racing for the path one sees the other.
  const privateDirectory = await mkdtemp(join(dirname(path), '.n'));
  const privatePath = join(privateDirectory, 's');
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(privatePath, () => {
        server.off('error', reject);
        resolve();
      });
    });
    await chmod(privatePath, 0o600);
    await linkInPlaceOfStale(privatePath, path);
    const { dev, ino } = await lstat(path);
    return {
      path,
      remove: async () => {
        const there = await lstat(path).catch(() => null);
        if (there?.dev === dev && there.ino === ino) await unlink(path);
      },
    };
  } finally {
    await rm(privateDirectory, { recursive: true, force: true });
  }
}

async function linkInPlaceOfStale(from: string, path: string): Promise<void> {
  for (;;) {
    try {
      await link(from, path);
      return;
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
    }
    const there = await lstat(path).catch(() => null);
    if (there !== null && !there.isSocket()) throw new Error(`${path} exists and is not a socket`);
    if (await isAnswered(path)) throw new Error(`${path} is in use by another server`);
    await rm(path, { force: true });
  }
}

/** Whether a server listens at `path`. Any doubt (no permission, a full backlog) counts as yes. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection({ path });
    probe.on('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.on('error', (error) => {
      resolve(!hasCode(error, 'ECONNREFUSED') && !hasCode(error, 'ENOENT'));
    });
  });
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
