/** Both sides are written apart, and a policy that both nodes were given says whose writes are to go. */
import test from 'ava';
import { isConnection, mebibyte, ownBlock, startMirror } from '../support/mirror.ts';

test.serial(
  'after-sb-2pri call-pri-lost-after-sb, after-sb-0pri discard-least-changes: the Primary that wrote less steps down and is resynced',
  async (t) => {
    const mirror = await startMirror(t, {
      proxied: true,
      policies: {
        'after-sb-0pri': 'discard-least-changes',
        'after-sb-2pri': 'call-pri-lost-after-sb',
      },
    });
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const winner = await mirror.attach(alpha);
    const phase = load.start(winner);
    await phase.acknowledged(100);
    await phase.stop();
    await winner.flush();
    await pair.cut();
    await Promise.all([alpha, beta].map((peer) => peer.waitFor(isConnection('Connecting'), 'the link lost')));

    const many = 64;
    const at = 32 * mebibyte;
    for (let i = 0; i < many; i++) await winner.write(at + i * 4096, ownBlock(at / 4096 + i));
    await beta.order('promote', { force: true });
    const loser = await mirror.attach(beta);
    const lost = 48 * mebibyte;
    await loser.write(lost, ownBlock(lost / 4096));
    t.is((await beta.status()).role, 'Primary');

    const alone = beta.waitFor((status) => status.role === 'Secondary', 'beta steps down');
    await pair.heal();
    await alone;
    await pair.mirroring();
    t.deepEqual([(await alpha.status()).role, (await beta.status()).role], ['Primary', 'Secondary']);
    t.deepEqual(await winner.read(lost, 4096), Buffer.alloc(4096));
    t.deepEqual(await winner.read(at, 4096), ownBlock(at / 4096));
    await t.throwsAsync(loser.read(lost, 4096));
    await mirror.assertWhole(alpha);
  },
);
