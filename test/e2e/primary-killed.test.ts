/** The Primary dies under load: the survivor takes over, knowingly, and the old Primary follows it when it is back. */
import { join } from 'node:path';
import test from 'ava';
import { onlyPeer } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
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
    const second = load.start(clientOfBeta);
    await second.more(300);
    await alpha.node.start();
    await mirror.pair.mirroring();
    await second.more(100);
    t.is((await second.stop()).reason, 'stopped');
    t.is((await alpha.status()).role, 'Secondary');
    t.deepEqual(await handshakes(alpha), ['bitmap-peer']);
    // The extents that were active on the dead Primary; what was written since lies within them.
    t.deepEqual(await resyncsFrom(beta), [4 * blocksPerExtent]);

    await mirror.detach(clientOfBeta, beta);
    await alpha.order('failover');
    t.is(onlyPeer(await alpha.waitFor((status) => status.role === 'Primary', 'Primary')).role, 'Secondary');
    const third = load.start(await mirror.attach(alpha));
    await third.acknowledged(300);
    t.is((await third.stop()).reason, 'stopped');
    await mirror.assertWhole(alpha);
  },
);

test.serial(
  'Primary killed with writes that never reached the Secondary: none was acknowledged, none reappears',
  async (t) => {
    // Nobody may notice the silence by himself: alone, the Primary would acknowledge what the promotion then gives up.
    const patient = { peerTimeoutMs: 120_000, ackTimeoutMs: 120_000 };
    const mirror = await startMirror(t, { proxied: true, policies: patient });
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const first = load.start(client);
    await first.acknowledged(300);
    await pair.freeze();
    // Answered after the writes before it have been handed in, and with them written on alpha, and on alpha only.
    for (let round = 0; round < 20; round++) await client.read(0, 4096);
    await alpha.node.kill9();
    t.true((await first.ended).unknown > 0);
    await pair.cut();
    await beta.waitFor(isConnection('Connecting'), 'the loss of alpha');
    t.not(
      compareFiles((await beta.status()).backing.path, join(alpha.node.dir, 'resources/r0/data.img')).equal,
      true,
    );
    await beta.order('promote', { force: true });
    const second = load.start(await mirror.attach(beta));
    await second.acknowledged(100);
    await second.stop();
    await pair.heal();
    await alpha.node.start();
    await pair.mirroring();
    t.deepEqual(await resyncsFrom(beta), [4 * blocksPerExtent]);
    await mirror.assertWhole(beta);
  },
);
