/** The Secondary dies, or both do, under load. */
import test from 'ava';
import {
  blocksPerExtent,
  handshakes,
  isConnection,
  markDecisions,
  mebibyte,
  ownBlock,
  resyncsFrom,
  startMirror,
} from '../support/mirror.ts';

test.serial(
  'Secondary killed: the load sees no error, and what it missed is copied beside client writes',
  async (t) => {
    const mirror = await startMirror(t);
    const { alpha, beta, load } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const first = load.start(client);
    await first.acknowledged(1000);
    await first.stop();
    await client.flush();

    const flushed = load.sequence;
    const mark = await markDecisions(alpha);
    const second = load.start(client);
    await second.acknowledged(100);
    await beta.node.kill9();
    await alpha.waitFor(isConnection('Connecting'), 'the loss of beta');
    const lost = load.sequence;
    await second.more(200);
    const missed = load.blocksWritten(lost, load.sequence - 16);
    await beta.node.start();
    await mirror.pair.mirroring();
    await second.more(100);
    t.is((await second.stop()).reason, 'stopped');

    t.deepEqual(await handshakes(alpha, mark), ['bitmap-self']);
    const [blocks = 0, ...others] = await resyncsFrom(alpha, mark);
    t.deepEqual(others, []);
    // What was flushed on both is not copied again.
    const most = load.blocksWritten(flushed);
    t.true(blocks >= missed && blocks <= most, `${blocks} blocks, of ${missed} to ${most} written`);
    await mirror.assertWhole(alpha);
  },
);

test.serial(
  'both killed: they find each other by themselves, and only active extents are copied',
  async (t) => {
    const activityLogExtents = 7;
    const mirror = await startMirror(t, { policies: { activityLogExtents } });
    const { alpha, beta, load } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    // One block in each extent: without a bound on the active extents, the whole device would be suspect.
    for (let offset = 16 * mebibyte; offset < mirror.sizeBytes; offset += 4 * mebibyte) {
      await client.write(offset, ownBlock(offset / 4096));
    }
    await client.flush();
    const phase = load.start(client);
    await phase.acknowledged(1000);
    await Promise.all([alpha.node.kill9(), beta.node.kill9()]);
    t.not((await phase.ended).reason, 'stopped');

    await Promise.all([alpha.node.start(), beta.node.start()]);
    await mirror.pair.mirroring();
    t.deepEqual([(await alpha.status()).role, (await beta.status()).role], ['Secondary', 'Secondary']);
    t.deepEqual(await handshakes(alpha), ['crashed-primary-self']);
    const [blocks = 0, ...others] = await resyncsFrom(alpha);
    t.deepEqual(others, []);
    t.true(blocks > 0 && blocks <= activityLogExtents * blocksPerExtent, `${blocks} blocks`);
    await alpha.order('promote');
    const again = load.start(await mirror.attach(alpha));
    await again.acknowledged(100);
    await again.stop();
    await mirror.assertWhole(alpha);
  },
);
