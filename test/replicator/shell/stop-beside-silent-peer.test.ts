/** What a stop leaves of clients' requests: nothing. Whoever stands in front of the device waits for every answer. */
import test from 'ava';
import type { DeviceError } from '../../../nbd/block-device.ts';
import type { CoreOptions } from '../../../replicator/core/options.ts';
import type { Replica } from '../../support/replica.ts';
import { freePort } from '../../support/ports.ts';
import { blockBytes, isMirrored, startReplica } from '../../support/replica.ts';
import { TcpProxy } from '../../support/tcp-proxy.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

type Outcome = DeviceError | null;

function writeOf(replica: Replica): Promise<Outcome> {
  return new Promise((resolve) => {
    replica.node.device.write(0, Buffer.alloc(blockBytes, 1), { fua: false }, (error) => resolve(error));
  });
}

test('requests that wait for a silent peer are answered by a stop, and so is what comes after it', async (t) => {
  // Nobody is to lose patience with the other.
  const hour = 3_600_000;
  const core: Partial<CoreOptions> = { peerTimeoutMs: hour, ackTimeoutMs: hour };
  const proxy = await TcpProxy.start();
  t.teardown(() => proxy.stop());
  const betaPort = await freePort();
  proxy.setTarget(betaPort);
  const [alphaDirectory, betaDirectory] = [temporaryDirectory(t), temporaryDirectory(t)];
  const beta = await startReplica({
    ...{ name: 'beta', peerName: 'alpha', directory: betaDirectory, port: betaPort },
    ...{ peerPort: await freePort(), core },
  });
  t.teardown(() => beta.node.stop());
  const alpha = await startReplica({
    ...{ name: 'alpha', peerName: 'beta', directory: alphaDirectory, port: 0 },
    ...{ peerPort: proxy.port, core },
  });
  t.teardown(() => alpha.node.stop());
  await alpha.until('mirrored', isMirrored);
  t.like(await alpha.node.command({ kind: 'promote', force: false, dryRun: false }), { ok: true });
  await alpha.write(0, 1);

  proxy.freeze();
  const outcomes: Outcome[] = [];
  void writeOf(alpha).then((outcome) => outcomes.push(outcome));
  await alpha.node.stop();
  t.deepEqual(outcomes, ['ESHUTDOWN']);
  void writeOf(alpha).then((outcome) => outcomes.push(outcome));
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(outcomes, ['ESHUTDOWN', 'ESHUTDOWN']);
});
