/** A real pair grows under load; a growth that a kill cuts short is finished; whoever starts again has the new size. */
import { appendFileSync, statSync } from 'node:fs';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { NodePeer, Pair } from '../support/cluster.ts';
import { startNode } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { markDecisions, mebibyte, ownBlock, refusalOf, resyncsFrom, startMirror } from '../support/mirror.ts';

const oldBytes = 64 * mebibyte;
const newBytes = 1024 * mebibyte + 4096;
const lastBlock = newBytes - 4096;

async function assertSize(t: ExecutionContext, { alpha, beta }: Pair, sizeBytes: number): Promise<void> {
  for (const peer of [alpha, beta]) {
    const status = await peer.waitFor(({ size }) => size === sizeBytes, `${sizeBytes} bytes`);
    t.is(statSync(status.backing.path).size, sizeBytes, peer.node.name);
  }
}

async function assertEqualFiles(t: ExecutionContext, { alpha, beta }: Pair): Promise<void> {
  const [one, other] = await Promise.all([alpha.status(), beta.status()]);
  t.deepEqual(compareFiles(one.backing.path, other.backing.path), { equal: true });
}

test.serial('resize under load: both grow, nothing is copied; failover and restarts keep it', async (t) => {
  const mirror = await startMirror(t, { sizeBytes: oldBytes });
  const { alpha, beta, load, pair } = mirror;
  await alpha.order('promote');
  const before = await mirror.attach(alpha);
  const phase = load.start(before);
  await phase.acknowledged(100);
  t.is(await refusalOf(beta, 'resize', { size: newBytes }), 'not-primary');
  t.is(await refusalOf(alpha, 'resize', { size: oldBytes - 4096 }), 'cannot-shrink');
  await alpha.order('resize', { size: newBytes });
  await phase.more(100);
  await assertSize(t, pair, newBytes);
  await t.throwsAsync(mirror.attach(beta), undefined, 'a Secondary serves nobody');

  // What was attached before goes on as it was; who attaches now has the new area.
  t.is(before.info.sizeBytes, oldBytes);
  const client = await mirror.attach(alpha);
  t.is(client.info.sizeBytes, newBytes);
  await client.write(lastBlock, ownBlock(lastBlock / 4096), { fua: true });
  await client.write(
    oldBytes - 4096,
    Buffer.concat([ownBlock(oldBytes / 4096 - 1), ownBlock(oldBytes / 4096)]),
  );
  t.true(Buffer.alloc(mebibyte).equals(await client.read(oldBytes + 4096, mebibyte)));
  t.is((await phase.stop()).reason, 'stopped');
  for (const peer of [alpha, beta]) t.deepEqual(await resyncsFrom(peer), []);
  await client.disconnect();
  await before.disconnect();
  await alpha.waitFor((status) => status.nbd.clients === 0, 'no client');

  await beta.order('failover');
  const readBack = async (peer: NodePeer): Promise<void> => {
    const reader = await mirror.attach(peer);
    t.is(reader.info.sizeBytes, newBytes);
    t.deepEqual(Buffer.from(await reader.read(lastBlock, 4096)), ownBlock(lastBlock / 4096));
    t.deepEqual(Buffer.from(await reader.read(oldBytes, 4096)), ownBlock(oldBytes / 4096));
    await mirror.detach(reader, peer);
  };
  await readBack(beta);

  // The definitions have followed: the same request again fits, the old one gets a clear answer.
  const path = `/v1/resources/${pair.resource}`;
  for (const peer of [alpha, beta]) {
    t.is((await peer.node.api('PUT', path, { ...peer.definition, size: newBytes })).status, 200);
    const refused = await peer.node.api('PUT', path, peer.definition);
    t.is(refused.status, 409);
    t.regex(JSON.stringify(refused.body), /already-exists.*64MiB.*never shrinks/);
  }

  for (const peer of [alpha, beta]) t.is(await peer.node.stop(), 0);
  for (const peer of [alpha, beta]) await peer.node.start();
  await pair.mirroring();
  await assertSize(t, pair, newBytes);
  await alpha.order('promote');
  await readBack(alpha);
  await mirror.assertWhole(alpha);
});

for (const victim of ['alpha', 'beta'] as const) {
  test.serial(
    `${victim} killed in the middle of a growth: both end with one size, and grow on`,
    async (t) => {
      const mirror = await startMirror(t, { sizeBytes: oldBytes });
      const { alpha, load, pair } = mirror;
      await alpha.order('promote');
      const phase = load.start(await mirror.attach(alpha));
      await phase.acknowledged(100);
      const resizing = alpha.node
        .api('POST', `/v1/resources/${pair.resource}/resize`, { size: newBytes })
        .catch(() => undefined);
      await pair[victim].node.kill9();
      await resizing;
      await pair[victim].node.start();
      await pair.mirroring();
      await phase.stop();
      const [one, other] = await Promise.all([pair.alpha.status(), pair.beta.status()]);
      t.is(one.size, other.size);
      await alpha.order('promote');
      await alpha.order('resize', { size: newBytes });
      await assertSize(t, pair, newBytes);
      const client = await mirror.attach(alpha);
      await client.write(lastBlock, ownBlock(lastBlock / 4096), { fua: true });
      await client.disconnect();
      await mirror.assertWhole(alpha);
    },
  );
}

test.serial(
  'a Secondary that is away: no growth; back again it grows, also over what lies behind it',
  async (t) => {
    const mirror = await startMirror(t, { sizeBytes: oldBytes });
    const { alpha, beta, pair } = mirror;
    await alpha.order('promote');
    await beta.node.kill9();
    t.is(await refusalOf(alpha, 'resize', { size: newBytes }), 'not-connected');
    // Somebody extends one of the files, and not with zeroes.
    const { path } = (await alpha.status()).backing;
    appendFileSync(path, Buffer.alloc(8 * mebibyte, 0x55));
    await beta.node.start();
    await pair.mirroring();
    const mark = await markDecisions(alpha);
    await alpha.order('resize', { size: newBytes });
    await assertSize(t, pair, newBytes);
    t.deepEqual(await resyncsFrom(alpha, mark), []);
    await assertEqualFiles(t, pair);
  },
);

test.serial('an unmirrored device grows, and kept data is not taken up as a smaller one', async (t) => {
  const node = await startNode(t, { name: 'alpha' });
  const path = '/v1/resources/plain';
  await node.call('PUT', path, { size: oldBytes });
  await node.waitFor('plain', ({ role }) => role === 'Primary', 'served');
  await node.call('POST', `${path}/resize`, { size: newBytes });
  t.is((await node.status('plain')).size, newBytes);
  await node.kill9();
  await node.start();
  await node.waitFor(
    'plain',
    ({ role, size }) => role === 'Primary' && size === newBytes,
    'as large as before',
  );
  await node.call('DELETE', path);
  for (const size of [oldBytes, 2 * newBytes]) {
    const refused = await node.api('PUT', path, { size });
    t.is(refused.status, 409);
    t.regex(JSON.stringify(refused.body), /metadata-foreign/);
  }
  await node.call('PUT', path, { size: newBytes });
  t.is((await node.status('plain')).size, newBytes);
});
