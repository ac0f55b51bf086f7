/** Answers that wait for the network, and what they are for: a peer that takes nothing slows the writer down. */
import { openSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import test from 'ava';
import type { CoreOptions } from '../../../replicator/core/options.ts';
import { SendBacklog } from '../../../replicator/shell/send-backlog.ts';
import { freePort } from '../../support/ports.ts';
import { isMirrored, startReplica } from '../../support/replica.ts';
import { TcpProxy } from '../../support/tcp-proxy.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const mebibyte = 1024 * 1024;

test('answers wait in their order while more than 8 MiB have not been taken, and no longer', (t) => {
  let waitingBytes = 8 * mebibyte;
  const given: number[] = [];
  const backlog = new SendBacklog(() => waitingBytes);
  backlog.answer(() => given.push(1));
  waitingBytes++;
  backlog.answer(() => given.push(2));
  backlog.release();
  t.deepEqual(given, [1]);
  waitingBytes = 0;
  backlog.answer(() => given.push(3));
  t.deepEqual(given, [1]);
  backlog.release();
  t.deepEqual(given, [1, 2, 3]);
  backlog.answer(() => given.push(4));
  backlog.release();
  t.deepEqual(given, [1, 2, 3, 4]);
});

for (const end of ['takes it all after all', 'is cut off', 'is left by a stop'] as const) {
  test(`protocol A: a peer that takes nothing holds up the answers of the writer until it ${end}`, async (t) => {
    // Nobody is to lose patience with the other.
    const hour = 3_600_000;
    // And no room is to be made in the activity log, which needs a flush by both.
    const timeouts = { peerTimeoutMs: hour, ackTimeoutMs: hour };
    const core: Partial<CoreOptions> = { protocol: 'A', activityLogExtents: 16, ...timeouts };
    const directories = { alpha: temporaryDirectory(t), beta: temporaryDirectory(t) };
    const proxy = await TcpProxy.start();
    t.teardown(() => proxy.stop());
    const betaPort = await freePort();
    proxy.setTarget(betaPort);
    // Beta dials nobody: the session goes through the proxy.
    const nobody = await freePort();
    const beta = await startReplica({
      ...{
        name: 'beta',
        peerName: 'alpha',
        directory: directories.beta,
        port: betaPort,
        peerPort: nobody,
        core,
      },
    });
    t.teardown(() => beta.node.stop());
    const alpha = await startReplica({
      ...{
        name: 'alpha',
        peerName: 'beta',
        directory: directories.alpha,
        port: 0,
        peerPort: proxy.port,
        core,
      },
    });
    t.teardown(() => alpha.node.stop());
    await alpha.until('mirrored', isMirrored);
    t.like(await alpha.node.command({ kind: 'promote', force: false, dryRun: false }), { ok: true });

    proxy.hold('toTarget');
    const count = 40;
    let answered = 0;
    const data = Buffer.alloc(mebibyte, 7);
    const writes = Array.from(
      { length: count },
      (_, at) =>
        new Promise<void>((resolve) => {
          alpha.node.device.write(at * mebibyte, data, { fua: false }, (error) => {
            t.is(error, null);
            answered++;
            resolve();
          });
        }),
    );
    const file = openSync(alpha.backingPath, 'r');
    const last = Buffer.alloc(1);
    for (let at = 0; at < count; at++) {
      do {
        await nextTurn();
        readSync(file, last, 0, 1, (at + 1) * mebibyte - 1);
      } while (last[0] !== 7);
    }
    await nextTurn();
    t.true(answered < count, 'all of them are on the disk here, and what was answered is bounded');
    if (end === 'is cut off') proxy.cut();
    else if (end === 'takes it all after all') proxy.letGo('toTarget');
    else await alpha.node.stop();
    await Promise.all(writes);
    t.is(answered, count);
  });
}
