/** A thousand connections that say a byte and then wait, on every port, while a client works: it never notices. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import test from 'ava';
import { connectNbd } from '../../nbd/client.ts';
import { startPair } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { memoryOf } from '../support/memory-use.ts';
import { patienceMs } from '../support/node-process.ts';
import { goSimple, goSimpleAnswerBytes, request } from '../support/raw-client.ts';
import { StampedLoad } from '../support/stamped-load.ts';

const sizeBytes = 16 * 1024 * 1024;
const attachedCount = 700;
const begunCount = 300;
/** For all of them together: some 128 KiB each, whatever they have announced. */
const moreMemoryBytes = 128 * 1024 * 1024;

test.serial(
  'a thousand clients that send a byte at a time cost a working one nothing, and bounded memory',
  async (t) => {
    const pair = await startPair(t, { sizeBytes });
    const { alpha, beta } = pair;
    await alpha.order('promote');
    const address = { host: '127.0.0.1', port: alpha.nbdPort };
    const client = await connectNbd({ address, exportName: pair.resource, timeoutMs: patienceMs });
    t.teardown(() => client.destroy());
    const load = new StampedLoad({ sizeBytes, seed: 5, flushEvery: 50 });
    const phase = load.start(client);
    await phase.acknowledged(200);
    const before = memoryOf(alpha.node.pid).nowBytes;

    const sockets = new Set<Socket>();
    t.teardown(() => sockets.forEach((socket) => socket.destroy()));
    const open = async (port: number): Promise<Socket> => {
      const socket = connect({ host: '127.0.0.1', port, noDelay: true });
      sockets.add(socket);
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      return socket;
    };
    const attach = async (): Promise<Socket> => {
      const socket = await open(alpha.nbdPort);
      let received = 0;
      const attached = new Promise<void>((resolve, reject) => {
        socket.on('data', (chunk: Buffer) => {
          received += chunk.length;
          if (received >= goSimpleAnswerBytes) resolve();
        });
        socket.once('close', () => reject(new Error('closed while attaching')));
      });
      // Byte by byte as well; the system may join some of them.
      for (const byte of goSimple) socket.write(Buffer.of(byte));
      await attached;
      return socket;
    };
    const slow: Socket[] = [];
    while (slow.length < attachedCount) {
      // Not all at once: more than 256 that have only begun push each other out.
      slow.push(...(await Promise.all(Array.from({ length: 100 }, attach))));
    }
    await phase.more(200);
    // A write of the whole device, of which the header comes byte by byte, and then hardly anything.
    const bytes = request(1, 7, 0, sizeBytes, Buffer.alloc(3, 0xee));
    for (const byte of bytes) {
      for (const socket of slow) socket.write(Buffer.of(byte));
      await phase.more(5);
    }
    const hasClosed = slow.filter((socket) => socket.readyState !== 'open').length;
    t.is(hasClosed, 0, 'slow is not wrong');

    for (const port of [alpha.nbdPort, alpha.replicationPort, beta.replicationPort]) {
      for (let begun = 0; begun < begunCount; begun += 100) {
        const some = await Promise.all(Array.from({ length: 100 }, () => open(port)));
        for (const socket of some) socket.write(Buffer.of(0x4c));
        await phase.more(20);
      }
    }
    const late = await connectNbd({ address, exportName: pair.resource, timeoutMs: patienceMs });
    t.is((await late.read(0, 4096)).byteLength, 4096);
    await late.disconnect();
    const more = memoryOf(alpha.node.pid).mostBytes - before;
    t.log(`at most ${Math.round(more / 2 ** 20)} MiB more`);
    t.true(more < moreMemoryBytes, `${more} bytes more at the most`);

    for (const socket of sockets) socket.destroy();
    t.is((await phase.stop()).reason, 'stopped', 'the client saw no error');
    t.deepEqual(await load.verify((offset, length) => client.read(offset, length)), []);
    await client.disconnect();
    await pair.mirroring();
    const [one, other] = await Promise.all([alpha.status(), beta.status()]);
    t.deepEqual(compareFiles(one.backing.path, other.backing.path), { equal: true });
  },
);
