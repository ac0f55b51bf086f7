/** A node that stands still for longer than its peer waits, and then goes on as if nothing had happened. */
import test from 'ava';
import { patienceMs, within } from '../support/node-process.ts';
import {
  blocksPerExtent,
  handshakes,
  isConnection,
  markDecisions,
  mebibyte,
  ownBlock,
  refusalOf,
  resyncsFrom,
  shortTimeouts,
  startMirror,
} from '../support/mirror.ts';

test.serial(
  'Secondary frozen and thawed: the load waits, goes on alone, and is mirrored again',
  async (t) => {
    const mirror = await startMirror(t, { policies: shortTimeouts });
    const { alpha, beta, load } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const first = load.start(client);
    await first.acknowledged(500);
    await first.stop();
    await client.flush();

    const flushed = load.sequence;
    const mark = await markDecisions(alpha);
    const second = load.start(client);
    await second.acknowledged(100);
    beta.node.sigstop();
    const lost = await alpha.waitFor(isConnection('Connecting'), 'the loss of beta');
    t.is(lost.role, 'Primary');
    await second.more(200);
    beta.node.sigcont();
    await second.more(100);
    t.is((await second.stop()).reason, 'stopped');
    await mirror.pair.mirroring();
    t.true((await handshakes(alpha, mark)).every((rule) => rule === 'bitmap-self' || rule === 'equal'));
    const resyncs = await resyncsFrom(alpha, mark);
    const most = load.blocksWritten(flushed);
    t.true(
      resyncs.length > 0 && resyncs.every((blocks) => blocks <= most),
      `${resyncs.join(', ')} of ${most} blocks`,
    );
    await mirror.assertWhole(alpha);
  },
);

test.serial('Primary frozen and superseded: thawed, it fences itself and no late write lands', async (t) => {
  // On a busy machine too, the thawed node has to get its answer from the new Primary.
  const policies = { ...shortTimeouts, probeTimeoutMs: 30_000 };
  const mirror = await startMirror(t, { proxied: true, policies });
  const { alpha, beta, load, pair } = mirror;
  await alpha.order('promote');
  const loaded = await mirror.attach(alpha);
  const staying = await mirror.attach(alpha);
  const contested = 64 * mebibyte;
  await staying.write(contested, ownBlock(contested / 4096, 1));
  const first = load.start(loaded);
  await first.acknowledged(500);

  // What is on its way to the Secondary is lost as well, so that late answers would be lies.
  const silent = pair.freeze();
  alpha.node.sigstop();
  await silent;
  // In the socket of the frozen node: it will be read when the node is thawed, and must come to nothing.
  const late = staying.write(contested, ownBlock(contested / 4096, 2)).then(
    () => 'acknowledged',
    () => 'failed',
  );
  await beta.waitFor(isConnection('Connecting'), 'the loss of alpha');
  t.is(await refusalOf(beta, 'promote'), 'peer-may-be-primary');
  await beta.order('promote', { force: true });
  const clientOfBeta = await mirror.attach(beta);
  await clientOfBeta.write(contested, ownBlock(contested / 4096, 3));
  const second = load.start(clientOfBeta);
  await second.acknowledged(300);

  await pair.heal();
  alpha.node.sigcont();
  await within(patienceMs, 'the fenced node to disconnect its clients', staying.closed);
  t.is(await late, 'failed');
  const { reason, unknown } = await first.ended;
  t.not(reason, 'stopped');
  t.true(unknown > 0, 'writes were in flight at the frozen node');
  await alpha.waitFor((status) => status.role === 'Secondary', 'stepped down');
  await second.more(100);
  t.is((await second.stop()).reason, 'stopped');
  await pair.mirroring();
  t.is((await beta.status()).role, 'Primary');
  const resyncs = await resyncsFrom(beta);
  // The active extents of the one, the writes of the other.
  t.true(resyncs.length > 0 && resyncs.every((blocks) => blocks <= 5 * blocksPerExtent), resyncs.join(', '));
  t.deepEqual(await clientOfBeta.read(contested, 4096), ownBlock(contested / 4096, 3));
  await mirror.assertWhole(beta);
});
