/** Nodes that are stopped with SIGTERM and started again have nothing to copy. */
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { NodePeer } from '../support/cluster.ts';
import { handshakes, isConnection, markDecisions, resyncsFrom, startMirror } from '../support/mirror.ts';

/** Both have met by rule `equal`, and no block was marked. */
async function assertNothingCopied(t: ExecutionContext, started: readonly NodePeer[]): Promise<void> {
  for (const peer of started) {
    t.deepEqual(await handshakes(peer), ['equal'], peer.node.name);
    t.deepEqual(await resyncsFrom(peer), [], peer.node.name);
  }
}

test.serial('Secondary stopped and started: nothing is copied, and there is no new generation', async (t) => {
  const mirror = await startMirror(t);
  const { alpha, beta, load, pair } = mirror;
  await alpha.order('promote');
  const client = await mirror.attach(alpha);
  const phase = load.start(client);
  await phase.acknowledged(500);
  await phase.stop();
  await client.flush();
  const { current } = (await alpha.status()).generation;
  t.is(await beta.node.stop(), 0);
  await alpha.waitFor(isConnection('Connecting'), 'beta gone');
  await beta.node.start();
  await pair.mirroring();
  await assertNothingCopied(t, [beta]);
  t.is((await alpha.status()).generation.current, current);
  await mirror.assertWhole(alpha);
});

test.serial(
  'Primary stopped with a client and unflushed writes: nothing is copied after the start',
  async (t) => {
    const mirror = await startMirror(t);
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const phase = load.start(client);
    await phase.acknowledged(500);
    await phase.stop();
    t.is(await alpha.node.stop(), 0);
    await client.closed;
    await beta.waitFor(isConnection('Connecting'), 'alpha gone');
    await alpha.node.start();
    await pair.mirroring();
    await assertNothingCopied(t, [alpha]);
    t.is((await alpha.status()).role, 'Secondary');
    await alpha.order('promote');
    await mirror.assertWhole(alpha);
  },
);

test.serial('both stopped at once: nothing is copied after the start', async (t) => {
  const mirror = await startMirror(t);
  const { alpha, beta, load, pair } = mirror;
  await alpha.order('promote');
  const client = await mirror.attach(alpha);
  const phase = load.start(client);
  await phase.acknowledged(500);
  await phase.stop();
  // Without this the Secondary may leave before the Primary has flushed, and what was not flushed is copied.
  await client.flush();
  t.deepEqual(await Promise.all([alpha.node.stop(), beta.node.stop()]), [0, 0]);
  await Promise.all([alpha.node.start(), beta.node.start()]);
  await pair.mirroring();
  await assertNothingCopied(t, [alpha, beta]);
  await alpha.order('promote');
  await mirror.assertWhole(alpha);
});

test.serial(
  'Primary stopped under load: what it acknowledged is on the other node, which needs no force',
  async (t) => {
    const mirror = await startMirror(t);
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const phase = load.start(await mirror.attach(alpha));
    await phase.acknowledged(500);
    t.is(await alpha.node.stop(), 0);
    t.not((await phase.ended).reason, 'stopped');
    await alpha.node.start();
    await pair.mirroring();
    const mark = await markDecisions(beta);
    await beta.order('promote');
    t.deepEqual(await resyncsFrom(beta, mark), []);
    await assertNothingCopied(t, [alpha]);
    await mirror.assertWhole(beta);
  },
);

test.serial('a node whose disk answers no more leaves all the same', async (t) => {
  const mirror = await startMirror(t);
  const { alpha, beta } = mirror;
  await alpha.order('promote');
  const client = await mirror.attach(alpha);
  await client.write(0, Buffer.alloc(4096, 1));
  const { begun } = await mirror.stallReads(alpha);
  const read = t.throwsAsync(client.read(0, 4096));
  await begun;
  t.not(await alpha.node.stop(), null);
  await read;
  await beta.waitFor(isConnection('Connecting'), 'alpha gone');
});
