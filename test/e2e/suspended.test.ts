/** onPeerLoss=suspend on a real pair: clients wait without an error until the peer is back or an operator says a word. */
import test from 'ava';
import type { ResourceStatus } from '../support/cluster.ts';
import {
  decisions,
  givenUp,
  handshakes,
  ownBlock,
  refusalOf,
  shortTimeouts,
  startMirror,
  stringField,
} from '../support/mirror.ts';

const policies = { ...shortTimeouts, onPeerLoss: 'suspend' };

function isSuspended(status: ResourceStatus): boolean {
  return status.suspended;
}

test.serial(
  'suspended by the loss of the peer: refused without force, and goes on alone with it',
  async (t) => {
    const mirror = await startMirror(t, { proxied: true, policies, sizeBytes: 16 * 1024 * 1024 });
    const { alpha, beta, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    await client.write(0, ownBlock(0));
    await pair.cut();
    await alpha.waitFor(isSuspended, 'suspended');
    let answered = false;
    const write = client.write(4096, ownBlock(1)).then(() => (answered = true));
    t.is(await refusalOf(alpha, 'promote'), 'suspended');
    t.is(await refusalOf(alpha, 'demote'), 'suspended');
    t.false(answered);
    const answer = await alpha.order('promote', { force: true });
    t.is(givenUp(answer).length, 2);
    t.regex(stringField(answer, 'message'), /alone/);
    await write;
    await pair.heal();
    await pair.mirroring();
    t.true((await decisions(alpha)).some(({ rule }) => rule === 'single-copy'));
    t.true((await handshakes(beta)).includes('bitmap-peer'));
    await client.flush();
    t.deepEqual(await client.read(4096, 4096), ownBlock(1));
  },
);

test.serial(
  'suspended by the loss of the peer: a policy changed at run time lets clients go on',
  async (t) => {
    const mirror = await startMirror(t, { proxied: true, policies, sizeBytes: 16 * 1024 * 1024 });
    const { alpha, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    await client.write(0, ownBlock(0));
    await pair.cut();
    await alpha.waitFor(isSuspended, 'suspended');
    const write = client.write(4096, ownBlock(1));
    await alpha.node.call('PATCH', `/v1/resources/${pair.resource}`, {
      policies: { onPeerLoss: 'continue' },
    });
    await write;
    await alpha.waitFor((status) => !status.suspended, 'no longer suspended');
    t.deepEqual(await client.read(4096, 4096), ownBlock(1));
    await pair.heal();
    await pair.mirroring();
  },
);
