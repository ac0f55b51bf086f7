/** Two nodes that do not fit together say so, where it can be known, and harm nothing; the right peer still connects. */
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { PeerLink } from '../../replicator/shell/link.ts';
import { onlyPeer, startPair } from '../support/cluster.ts';
import type { NodePeer, Pair, PairOptions, ResourceStatus } from '../support/cluster.ts';
import { handshakes, isConnection, mebibyte, ownBlock, startMirror } from '../support/mirror.ts';

const sizeBytes = 64 * mebibyte;
const secret = 'only for this test';
const options: PairOptions = { sizeBytes, policies: { connectIntervalMs: 200 }, raw: true };

function says(pattern: RegExp): (status: ResourceStatus) => boolean {
  return (status) => pattern.test(onlyPeer(status).lastError ?? '');
}

/** Takes beta's resource away, data and all, and defines it to fit. */
async function redefineBeta(
  { alpha, beta, resource }: Pair,
  changes: Record<string, unknown>,
): Promise<void> {
  await beta.node.call('DELETE', `/v1/resources/${resource}?wipe=true&force=true`);
  await beta.node.call('PUT', `/v1/resources/${resource}`, { ...beta.definition, ...changes });
  if (onlyPeer(await alpha.status()).connection === 'StandAlone') await alpha.order('connect');
}

/** An unmirrored resource beside it on the same node. */
async function assertOthersServe(t: ExecutionContext, { node }: NodePeer): Promise<void> {
  await node.call('PUT', '/v1/resources/beside', { size: sizeBytes });
  const status = await node.waitFor('beside', ({ role }) => role === 'Primary', 'served');
  t.is(status.diskState, 'UpToDate');
}

test.serial('another size: both are StandAlone and say why; with the right size they connect', async (t) => {
  const pair = await startPair(t, { ...options, betaOtherwise: { size: 2 * sizeBytes } });
  const { alpha, beta } = pair;
  for (const peer of [alpha, beta]) {
    const status = await peer.waitFor(isConnection('StandAlone'), 'refused');
    t.regex(onlyPeer(status).lastError ?? '', /size-mismatch/);
    t.false(status.splitBrain);
  }
  await assertOthersServe(t, alpha);
  await redefineBeta(pair, { size: sizeBytes });
  await pair.mirroring();
  await alpha.order('promote');
});

test.serial(
  'another peer name: both keep trying and say who they found; with the right name they connect',
  async (t) => {
    const pair = await startPair(t, {
      ...options,
      betaOtherwise: { peers: [{ name: 'gamma', address: '127.0.0.1:1' }] },
    });
    const { alpha, beta } = pair;
    const status = await alpha.waitFor(says(/wrong-peer/), 'who answers');
    t.is(onlyPeer(status).connection, 'Connecting');
    await beta.waitFor(says(/wrong-peer|127\.0\.0\.1:1/), 'who calls');
    await assertOthersServe(t, alpha);
    await redefineBeta(pair, { peers: [{ name: 'alpha', address: `127.0.0.1:${alpha.replicationPort}` }] });
    await pair.mirroring();
  },
);

test.serial(
  'a peer of another protocol version: it is told apart, and the right one connects in its place',
  async (t) => {
    const pair = await startPair(t, options);
    const { alpha, beta, resource } = pair;
    await pair.mirroring();
    await beta.node.call('DELETE', `/v1/resources/${resource}`);
    const stranger = new PeerLink({
      resourceName: resource,
      nodeName: 'beta',
      peerName: 'alpha',
      secret,
      listen: { host: '127.0.0.1', port: beta.replicationPort },
      peerAddress: { host: '127.0.0.1', port: alpha.replicationPort },
      connectIntervalMs: 200,
      probeTimeoutMs: 500,
      handshakeTimeoutMs: 10_000,
      versions: { min: 9, max: 9 },
      hooks: {
        onLinkUp: () => t.fail('a session with version 9'),
        onLinkDown: () => undefined,
        onLinkRefused: () => undefined,
        onPacket: () => undefined,
        arePayloadsSettled: () => false,
        isOverrun: () => false,
        onDrain: () => undefined,
      },
    });
    t.teardown(() => stranger.stop());
    t.true((await stranger.start()).ok);
    stranger.setWanted(true);
    const status = await alpha.waitFor(says(/version-mismatch.*9 to 9/), 'which versions it speaks');
    t.is(onlyPeer(status).connection, 'Connecting');
    t.is((await stranger.probe()).kind, 'unreachable');
    await stranger.stop();
    await beta.node.call('PUT', `/v1/resources/${resource}`, beta.definition);
    await pair.mirroring();
    t.is((await handshakes(beta)).length, 1);
  },
);

test.serial(
  'another secret: no session under load, both say so; with the right one only what changed is copied',
  async (t) => {
    const mirror = await startMirror(t);
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    await client.write(32 * mebibyte, ownBlock((32 * mebibyte) / 4096));
    await client.flush();
    const phase = load.start(client);
    await phase.acknowledged(100);
    await beta.node.call('DELETE', `/v1/resources/${pair.resource}`);
    const replication = { listen: `127.0.0.1:${beta.replicationPort}`, secret: 'another' };
    await beta.node.call('PUT', `/v1/resources/${pair.resource}`, { ...beta.definition, replication });
    await alpha.waitFor(says(/authentication-failed/), 'refused by beta');
    await beta.waitFor(says(/authentication-failed/), 'a caller without the secret');
    await phase.more(100);
    t.is((await beta.status()).diskState, 'Consistent');
    t.false(
      [alpha, beta].some(({ node }) => node.output.includes('another"') || node.output.includes(secret)),
    );

    await beta.node.call('DELETE', `/v1/resources/${pair.resource}`);
    await beta.node.call('PUT', `/v1/resources/${pair.resource}`, beta.definition);
    await pair.mirroring();
    t.is((await phase.stop()).reason, 'stopped');
    t.deepEqual(await handshakes(beta), ['bitmap-peer']);
    await mirror.assertWhole(alpha);
  },
);
