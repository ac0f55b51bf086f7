/** The link between the nodes is cut or goes silent, and heals. */
import test from 'ava';
import type { ExecutionContext } from 'ava';
import {
  isConnection,
  markDecisions,
  ownBlock,
  resyncsFrom,
  shortTimeouts,
  startMirror,
} from '../support/mirror.ts';
import type { Mirror } from '../support/mirror.ts';

test.serial(
  'link cut under load: the load sees no error, and what was written meanwhile is copied',
  async (t) => {
    const mirror = await startMirror(t, { proxied: true });
    await loseLinkUnderLoad(t, mirror, () => mirror.pair.cut());
  },
);

test.serial(
  'link silent under load: the load sees no error, and what was written meanwhile is copied',
  async (t) => {
    const mirror = await startMirror(t, { proxied: true, policies: shortTimeouts });
    await loseLinkUnderLoad(t, mirror, () => mirror.pair.freeze());
  },
);

async function loseLinkUnderLoad(
  t: ExecutionContext,
  mirror: Mirror,
  lose: () => Promise<void>,
): Promise<void> {
  const { alpha, beta, load, pair } = mirror;
  await alpha.order('promote');
  const client = await mirror.attach(alpha);
  const first = load.start(client);
  await first.acknowledged(500);
  await first.stop();
  await client.flush();
  const before = (await alpha.status()).generation.current;

  const flushed = load.sequence;
  const mark = await markDecisions(alpha);
  const second = load.start(client);
  await second.acknowledged(100);
  await lose();
  await Promise.all([alpha, beta].map((peer) => peer.waitFor(isConnection('Connecting'), 'the link lost')));
  const lost = load.sequence;
  await second.more(200);
  const missed = load.blocksWritten(lost, load.sequence - 16);
  t.not((await alpha.status()).generation.current, before, 'a generation of one copy');
  await pair.heal();
  await pair.mirroring();
  await second.more(100);
  t.is((await second.stop()).reason, 'stopped');
  const [blocks = 0, ...others] = await resyncsFrom(alpha, mark);
  t.deepEqual(others, []);
  const most = load.blocksWritten(flushed);
  t.true(blocks >= missed && blocks <= most, `${blocks} blocks, of ${missed} to ${most} written`);
  await mirror.assertWhole(alpha);
}

test.serial(
  'link cut without writes: no new generation, and nothing is copied but what was not flushed',
  async (t) => {
    const mirror = await startMirror(t, { proxied: true });
    const { alpha, beta, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const cutAndHeal = async (): Promise<number[]> => {
      const mark = await markDecisions(alpha);
      await pair.cut();
      await Promise.all(
        [alpha, beta].map((peer) => peer.waitFor(isConnection('Connecting'), 'the link lost')),
      );
      await pair.heal();
      await pair.mirroring();
      return resyncsFrom(alpha, mark);
    };
    for (let block = 0; block < 20; block++) await client.write(block * 4096, ownBlock(block));
    await client.flush();
    const { current } = (await alpha.status()).generation;
    t.deepEqual(await cutAndHeal(), []);
    for (let block = 0; block < 10; block++) await client.write(block * 4096, ownBlock(block, 2));
    t.deepEqual(await cutAndHeal(), [10]);
    t.deepEqual(await cutAndHeal(), []);
    t.is((await alpha.status()).generation.current, current);
    t.is((await beta.status()).generation.current, current);
    t.deepEqual(await client.read(9 * 4096, 4096), ownBlock(9, 2));
    await client.writeZeroes(0, 20 * 4096);
    await mirror.assertWhole(alpha);
  },
);
