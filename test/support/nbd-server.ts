/** An NBD server over a MemoryDevice, on TCP and a Unix socket, gone when the test ends. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { ExportSource, OpenedExport } from '../../nbd/export.ts';
import { createNbdServer } from '../../nbd/server.ts';
import type { NbdServer, NbdServerOptions } from '../../nbd/server.ts';
import { MemoryDevice } from './memory-device.ts';

export interface ServedDevice {
  readonly server: NbdServer;
  readonly device: MemoryDevice;
  readonly tcp: { readonly host: string; readonly port: number };
  readonly socketPath: string;
  /** A directory of the test's own. */
  readonly directory: string;
  /** nbd:// and nbd+unix:// URIs of the export. */
  readonly uri: string;
  readonly unixUri: string;
}

/** Export 'r0' (also the default) is the device; 'ro' is the same, read-only; 'standby' is refused. */
export function sourceOf(device: MemoryDevice): ExportSource {
  const opened = (name: string, readOnly: boolean): OpenedExport => ({
    kind: 'export',
    export: { name, description: `test export ${name}`, device, readOnly },
  });
  return {
    list: () => ['r0', 'ro', 'standby'].map((name) => ({ name, description: `test export ${name}` })),
    open: (name) => {
      switch (name) {
        case '':
        case 'r0':
          return opened('r0', false);
        case 'ro':
          return opened('ro', true);
        case 'standby':
          return { kind: 'refused', message: 'standby is Secondary here; the Primary is beta' };
        default:
          return { kind: 'unknown' };
      }
    },
  };
}

export async function serveDevice(
  t: ExecutionContext,
  options: Partial<NbdServerOptions> & { readonly device?: MemoryDevice } = {},
): Promise<ServedDevice> {
  const device = options.device ?? new MemoryDevice(16 * 1024 * 1024);
  const directory = await temporaryDirectory(t);
  // Nothing may rely on the linger timer but what is about it.
  const limits = { lingerMs: 60_000, ...options.limits };
  const server = createNbdServer({ source: sourceOf(device), ...options, limits });
  t.teardown(() => {
    device.releaseAll();
    return server.close();
  });
  const tcp = await server.listenTcp('127.0.0.1', 0);
  const socketPath = join(directory, 'nbd.sock');
  await server.listenUnix(socketPath);
  const uri = `nbd://127.0.0.1:${tcp.port}/r0`;
  return { server, device, tcp, socketPath, directory, uri, unixUri: `nbd+unix:///r0?socket=${socketPath}` };
}

export async function temporaryDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'lockstep-nbd-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
