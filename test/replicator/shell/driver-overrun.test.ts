/** A peer that sends faster than this node's disk takes it has to wait, and nothing of what it sent is lost. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { setImmediate as nextTurn } from 'node:timers/promises';
import test from 'ava';
import { FakePeer } from '../../support/fake-peer.ts';
import { freePort } from '../../support/ports.ts';
import { startReplica } from '../../support/replica.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const writeBytes = 2 * 1024 * 1024;
const count = 64;

test.serial('protocol A: what a slow disk of the Secondary has not taken stays with the peer', async (t) => {
  const { node, backingPath } = await startReplica({
    name: 'beta',
    peerName: 'alpha',
    directory: temporaryDirectory(t),
    port: 0,
    peerPort: await freePort(),
    core: { protocol: 'A', peerTimeoutMs: 3_600_000 },
  });
  t.teardown(() => node.stop());
  const peer = await FakePeer.dial({
    port: node.replicationPort,
    resourceName: 'r0',
    name: 'alpha',
    peerName: 'beta',
    secret: 'only for this test',
  });
  t.teardown(() => peer.destroy());
  await peer.establish({ role: 'Primary', exposed: 1n });

  const { write } = fs;
  const waiting: (() => void)[] = [];
  Reflect.set(fs, 'write', (...parts: readonly unknown[]) => {
    waiting.push(() => void Reflect.apply(write, fs, parts));
  });
  syncBuiltinESMExports();
  const letGo = (): void => {
    fs.write = write;
    syncBuiltinESMExports();
    for (const go of waiting.splice(0)) go();
  };
  t.teardown(letGo);

  for (let seq = 1; seq <= count; seq++) {
    const kind = { kind: 'write', op: 'write', fua: false, noHole: false } as const;
    const offset = (seq % 8) * writeBytes;
    peer.say({ ...kind, seq, offset, length: writeBytes }, Buffer.alloc(writeBytes, seq));
  }
  let isHeard = false;
  const heard = peer.isHeard().then((answer) => (isHeard = answer));
  // Until nothing of it moves any more.
  for (let idle = 0, left = Infinity; idle < 1000 && !isHeard; idle++) {
    if (peer.socket.writableLength < left) idle = 0;
    left = peer.socket.writableLength;
    await nextTurn();
  }
  t.false(isHeard, 'all of it was taken in, and none of it written');
  letGo();
  t.true(await heard);
  await node.stop();
  for (let at = 0; at < 8; at++) {
    const last = at === 0 ? count : count - 8 + at;
    t.true(Buffer.alloc(writeBytes, last).equals(readAt(backingPath, at * writeBytes)), `piece ${at}`);
  }
});

function readAt(path: string, offset: number): Buffer {
  const fd = fs.openSync(path, 'r');
  const bytes = Buffer.alloc(writeBytes);
  fs.readSync(fd, bytes, 0, writeBytes, offset);
  fs.closeSync(fd);
  return bytes;
}
