/** Both sides are written apart from each other: nothing is thrown away before an operator has said what. */
import test from 'ava';
import {
  isConnection,
  markDecisions,
  mebibyte,
  ownBlock,
  refusalOf,
  resyncsFrom,
  startMirror,
} from '../support/mirror.ts';
import type { NodePeer } from '../support/cluster.ts';

test.serial(
  'both written apart: split brain on both, serving; settled by discardMyData, the union is copied',
  async (t) => {
    const mirror = await startMirror(t, { proxied: true });
    const { alpha, beta, load, pair } = mirror;
    const both = [alpha, beta];
    await alpha.order('promote');
    const winner = await mirror.attach(alpha);
    const phase = load.start(winner);
    await phase.acknowledged(200);
    await phase.stop();
    await winner.flush();
    await pair.cut();
    await Promise.all(both.map((peer) => peer.waitFor(isConnection('Connecting'), 'the link lost')));

    const mark = load.sequence;
    const apart = load.start(winner);
    await apart.acknowledged(100);
    await apart.stop();
    await beta.order('promote', { force: true });
    const loser = await mirror.attach(beta);
    const lost = 32 * mebibyte;
    for (let at = 0; at < 20; at++) await loser.write(lost + at * 4096, ownBlock(lost / 4096 + at));

    const inSplitBrain = (peer: NodePeer): Promise<unknown> =>
      peer.waitFor((status) => status.splitBrain && isConnection('StandAlone')(status), 'split brain');
    await pair.heal();
    await Promise.all(both.map(inSplitBrain));
    t.deepEqual([(await alpha.status()).role, (await beta.status()).role], ['Primary', 'Primary']);
    await winner.write(lost - 4096, ownBlock(lost / 4096 - 1));
    await loser.write(lost + 20 * 4096, ownBlock(lost / 4096 + 20));
    t.deepEqual(await winner.read(lost, 4096), Buffer.alloc(4096));
    t.deepEqual(await loser.read(lost, 4096), ownBlock(lost / 4096));

    // Plain connect decides nothing.
    for (const peer of [beta, alpha]) {
      const connecting = peer.waitFor(isConnection('Connecting'), 'looking for the peer');
      await peer.order('connect');
      await connecting;
    }
    await Promise.all(both.map(inSplitBrain));

    t.is(await refusalOf(beta, 'connect', { discardMyData: true }), 'discard-needs-secondary');
    await mirror.detach(loser, beta);
    await beta.order('demote');
    const decisionsBefore = await markDecisions(alpha);
    await beta.order('connect', { discardMyData: true });
    await alpha.order('connect');
    await pair.mirroring();
    t.deepEqual(await resyncsFrom(alpha, decisionsBefore), [load.blocksWritten(mark) + 1 + 21]);
    t.deepEqual([(await alpha.status()).splitBrain, (await beta.status()).splitBrain], [false, false]);
    t.deepEqual(await winner.read(lost, 21 * 4096), Buffer.alloc(21 * 4096));
    t.deepEqual(await winner.read(lost - 4096, 4096), ownBlock(lost / 4096 - 1));
    await mirror.assertWhole(alpha);
  },
);
