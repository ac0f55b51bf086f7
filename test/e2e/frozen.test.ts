/** A node that stands still for longer than its peer waits, and then goes on as if nothing had happened. */
import test from 'ava';
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
  const mirror = await startMirror(t, { policies: shortTimeouts });
  const { alpha, beta, load } = mirror;
  await alpha.order('promote');
  const moving = await mirror.attach(alpha);
  const staying = await mirror.attach(alpha);
  const contested = 64 * mebibyte;
  await staying.write(contested, ownBlock(contested / 4096, 1));
  const first = load.start(moving);
  await first.acknowledged(500);

  alpha.node.sigstop();
  // In the socket of the frozen node: it will be read when the node is thawed, and must come to nothing.
  const late = staying.write(contested, ownBlock(contested / 4096, 2)).then(
    () => 'acknowledged',
    () => 'failed',
  );
  await beta.waitFor(isConnection('Connecting'), 'the loss of alpha');
  t.is(await refusalOf(beta, 'promote'), 'peer-may-be-primary');
  await beta.order('promote', { force: true });
  moving.destroy();
  t.true((await first.ended).unknown > 0, 'writes were in flight at the frozen node');
  const clientOfBeta = await mirror.attach(beta);
  await clientOfBeta.write(contested, ownBlock(contested / 4096, 3));
  const mark = load.sequence;
  const second = load.start(clientOfBeta);
  await second.acknowledged(300);

  alpha.node.sigcont();
  await staying.closed;
  t.is(await late, 'failed');
  await alpha.waitFor((status) => status.role === 'Secondary', 'stepped down');
  await second.more(100);
  t.is((await second.stop()).reason, 'stopped');
  await mirror.pair.mirroring();
  t.is((await beta.status()).role, 'Primary');
  const [blocks = 0, ...others] = await resyncsFrom(beta);
  t.deepEqual(others, []);
  const most = 5 * blocksPerExtent;
  t.true(blocks > 0 && blocks <= most, `${blocks} blocks; ${load.blocksWritten(mark)} written since`);
  t.deepEqual(await clientOfBeta.read(contested, 4096), ownBlock(contested / 4096, 3));
  await mirror.assertWhole(beta);
});
