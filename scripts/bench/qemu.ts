/**
 * qemu-storage-daemon, two ways: one raw file; and a quorum of two, one of them a raw file of its own and the other one an
 * NBD connection over TCP loopback to a second daemon. Both replicas have to have a write before it is answered.
 */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../test/support/ports.ts';
import { unixUri, type Contender, type Place } from './contender.ts';
import { startServer, type Server } from './processes.ts';

export const daemon = 'qemu-storage-daemon';

export async function startSingle({ directory, sizeBytes }: Place): Promise<Contender> {
  const folder = folderOf(directory, 'single');
  const server = await start([...file(folder, sizeBytes), ...onSocket(folder, 'file')]);
  return contender('single', folder, [server]);
}

export async function startQuorum({ directory, sizeBytes }: Place): Promise<Contender> {
  const near = folderOf(directory, 'quorum');
  const far = folderOf(directory, 'quorum-peer');
  const port = await freePort();
  const peer = await start([
    ...file(far, sizeBytes),
    ...['--nbd-server', `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`],
    ...['--export', 'type=nbd,id=export,node-name=file,name=replica,writable=on'],
  ]);
  try {
    const server = await start([
      ...file(near, sizeBytes),
      '--blockdev',
      `driver=nbd,node-name=peer,server.type=inet,server.host=127.0.0.1,server.port=${port},export=replica`,
      ...['--blockdev', 'driver=quorum,node-name=quorum,vote-threshold=2,children.0=file,children.1=peer'],
      ...onSocket(near, 'quorum'),
    ]);
    return contender('quorum', near, [server, peer]);
  } catch (error) {
    await peer.stop();
    throw error;
  }
}

/** The greeting of the monitor, last in the command line, says that all before it is set up. */
export function start(options: readonly string[]): Promise<Server> {
  return startServer(
    daemon,
    [...options, '--chardev', 'stdio,id=stdio', '--monitor', 'chardev=stdio'],
    /"QMP"/,
  );
}

export function onSocket(folder: string, node: string): string[] {
  return [
    ...['--nbd-server', `addr.type=unix,addr.path=${socketIn(folder)}`],
    ...['--export', `type=nbd,id=export,node-name=${node},name=bench,writable=on`],
  ];
}

export function contender(
  name: Contender['name'],
  folder: string,
  servers: readonly Server[],
  otherPids: readonly number[] = [],
): Contender {
  return {
    name,
    uri: unixUri('bench', socketIn(folder)),
    pids: [...servers.map(({ pid }) => pid), ...otherPids],
    commands: servers.map(({ command }) => command),
    stop: async () => {
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

export function folderOf(directory: string, name: string): string {
  const folder = join(directory, name);
  mkdirSync(folder);
  return folder;
}

function socketIn(folder: string): string {
  return join(folder, 'nbd.sock');
}

function file(folder: string, sizeBytes: number): string[] {
  const image = join(folder, 'data.img');
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  return ['--blockdev', `driver=file,node-name=file,filename=${image}`];
}
