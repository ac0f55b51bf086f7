/**
 * A whole node, killed under load right before or after a commit of its metadata. metadata-crash-replica.test.ts goes through
 * all of them without the server around; here are a few, in the process that users run.
 */
import test from 'ava';
import { connectNbd } from '../../nbd/client.ts';
import { isMirroring, startNode } from '../support/cluster.ts';
import type { NodeProcess } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { patienceMs, within } from '../support/node-process.ts';
import { freePort } from '../support/ports.ts';
import { StampedLoad } from '../support/stamped-load.ts';

const sizeBytes = 64 * 1024 * 1024;
/** Later ones than a node makes before its first write; with few active extents the load causes any number. */
const crashPoints = ['8:before', '30:after'];

test.serial(
  'a node killed at a commit of its metadata, under load, comes back with every acknowledged write',
  async (t) => {
    const crash: Record<string, string> = { LOCKSTEP_TEST: '1' };
    const alpha = await startNode(t, { name: 'alpha', env: crash });
    const beta = await startNode(t, { name: 'beta' });
    const ports = {
      nbd: [await freePort(), await freePort()],
      replication: [await freePort(), await freePort()],
    };
    const nodes = [alpha, beta] as const;
    const define = (node: NodeProcess, own: 0 | 1, peer: 0 | 1): Promise<unknown> =>
      node.call('PUT', '/v1/resources/r0', {
        size: sizeBytes,
        nbd: { listen: `127.0.0.1:${ports.nbd[own]}` },
        replication: { listen: `127.0.0.1:${ports.replication[own]}`, secret: 'only for this test' },
        peers: [{ name: nodes[peer].name, address: `127.0.0.1:${ports.replication[peer]}` }],
        policies: { connectIntervalMs: 200, activityLogExtents: 7 },
      });
    await Promise.all([define(alpha, 0, 1), define(beta, 1, 0)]);
    const mirroring = (): Promise<unknown> =>
      Promise.all(nodes.map((node) => node.waitFor('r0', isMirroring, 'both copies UpToDate and connected')));
    const attach = () =>
      connectNbd({
        address: { host: '127.0.0.1', port: ports.nbd[0] ?? 0 },
        exportName: 'r0',
        timeoutMs: patienceMs,
      });
    await mirroring();

    const load = new StampedLoad({ sizeBytes, seed: 3, queueDepth: 16, flushEvery: 50 });
    for (const crashPoint of crashPoints) {
      t.is(await alpha.stop(), 0);
      crash['LOCKSTEP_TEST_CRASH_COMMIT'] = crashPoint;
      await alpha.start();
      await mirroring();
      await alpha.call('POST', '/v1/resources/r0/promote');
      const phase = load.start(await attach());
      const { signal } = await within(patienceMs, `the crash at commit ${crashPoint}`, alpha.exited());
      t.is(signal, 'SIGKILL');
      await phase.ended;

      delete crash['LOCKSTEP_TEST_CRASH_COMMIT'];
      await alpha.start();
      await mirroring();
      await alpha.call('POST', '/v1/resources/r0/promote');
      const client = await attach();
      t.deepEqual(await load.verify((offset, length) => client.read(offset, length)), [], crashPoint);
      await client.flush();
      await client.disconnect();
      const [one, other] = await Promise.all(nodes.map((node) => node.status('r0')));
      t.deepEqual(
        compareFiles(one?.backing.path ?? '', other?.backing.path ?? ''),
        { equal: true },
        crashPoint,
      );
    }
  },
);
