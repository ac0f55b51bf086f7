/** The Primary dies under load: the survivor takes over, knowingly, and the old Primary follows it when it is back. */
import test from 'ava';
import { onlyPeer } from '../support/cluster.ts';
import {
  blocksPerExtent,
  givenUp,
  handshakes,
  isConnection,
  refusalOf,
  resyncsFrom,
  startMirror,
} from '../support/mirror.ts';

test.serial(
  'Primary killed: the survivor is promoted by force, the old Primary comes back as target, and fails back',
  async (t) => {
    const mirror = await startMirror(t);
    const { alpha, beta, load } = mirror;
    await alpha.order('promote');
    const first = load.start(await mirror.attach(alpha));
    await first.acknowledged(1000);
    await alpha.node.kill9();
    t.not((await first.ended).reason, 'stopped');

    await beta.waitFor(isConnection('Connecting'), 'the loss of alpha');
    t.is(await refusalOf(beta, 'promote'), 'peer-may-be-primary');
    t.is((await beta.status()).role, 'Secondary');
    t.true(givenUp(await beta.order('promote', { force: true })).length > 0);

    const clientOfBeta = await mirror.attach(beta);
    const mark = load.sequence;
    const second = load.start(clientOfBeta);
    await second.more(300);
    const unavailable = load.blocksWritten(mark, load.sequence - 16);
    await alpha.node.start();
    await mirror.pair.mirroring();
    await second.more(100);
    t.is((await second.stop()).reason, 'stopped');
    t.is((await alpha.status()).role, 'Secondary');
    t.deepEqual(await handshakes(alpha), ['bitmap-peer']);
    const [blocks = 0, ...others] = await resyncsFrom(beta);
    t.deepEqual(others, []);
    // The extents that were active on the dead Primary, and what was written since: all within the load's four.
    t.true(
      blocks >= unavailable && blocks <= 4 * blocksPerExtent,
      `${blocks} blocks, ${unavailable} changed`,
    );

    await mirror.detach(clientOfBeta, beta);
    await alpha.order('failover');
    t.is(onlyPeer(await alpha.waitFor((status) => status.role === 'Primary', 'Primary')).role, 'Secondary');
    const third = load.start(await mirror.attach(alpha));
    await third.acknowledged(300);
    t.is((await third.stop()).reason, 'stopped');
    await mirror.assertWhole(alpha);
  },
);
