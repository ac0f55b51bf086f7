/** Hand-over while the Primary answers, and the refusals that protect attached clients. */
import test from 'ava';
import { onlyPeer } from '../support/cluster.ts';
import { decisions, refusalOf, resyncsFrom, startMirror, stringField } from '../support/mirror.ts';

test.serial('failover: hands over without losing a write or copying a block, and back', async (t) => {
  const mirror = await startMirror(t);
  const { alpha, beta, load } = mirror;
  await alpha.order('promote');
  let [primary, secondary] = [alpha, beta];
  for (let round = 0; round < 4; round++) {
    const client = await mirror.attach(primary);
    const phase = load.start(client);
    await phase.acknowledged(200);
    await phase.stop();
    await mirror.detach(client, primary);
    await secondary.order('failover');
    await secondary.waitFor(
      (status) => status.role === 'Primary' && onlyPeer(status).role === 'Secondary',
      'taken over',
    );
    [primary, secondary] = [secondary, primary];
  }
  for (const peer of [alpha, beta]) t.deepEqual(await resyncsFrom(peer), []);
  await mirror.assertWhole(primary);
});

test.serial('a client attached: demote and failover are refused, and go through by force', async (t) => {
  const mirror = await startMirror(t);
  const { alpha, beta, load } = mirror;
  await alpha.order('promote');
  const first = load.start(await mirror.attach(alpha));
  await first.acknowledged(200);
  t.is(await refusalOf(alpha, 'demote'), 'device-in-use');
  t.is(await refusalOf(beta, 'failover'), 'device-in-use');
  await first.more(100);
  t.is((await alpha.status()).role, 'Primary');

  // In the middle of the load: what was acknowledged is there, what was not may be.
  await beta.order('failover', { force: true });
  t.not((await first.ended).reason, 'stopped');
  const clientOfBeta = await mirror.attach(beta);
  const second = load.start(clientOfBeta);
  await second.acknowledged(200);
  await beta.order('demote', { force: true });
  t.not((await second.ended).reason, 'stopped');
  await clientOfBeta.closed;
  t.deepEqual([(await alpha.status()).role, (await beta.status()).role], ['Secondary', 'Secondary']);
  for (const peer of [alpha, beta]) t.deepEqual(await resyncsFrom(peer), []);
  await alpha.order('promote');
  await mirror.assertWhole(alpha);
});

test.serial('dryRun: says what would happen and changes nothing', async (t) => {
  const mirror = await startMirror(t);
  const { alpha, beta, pair } = mirror;
  const path = (verb: string): string => `${verb}?dryRun=true`;
  const roles = async (): Promise<string[]> => [(await alpha.status()).role, (await beta.status()).role];

  t.regex(stringField(await alpha.order(path('promote')), 'message'), /would become Primary/);
  t.deepEqual(await roles(), ['Secondary', 'Secondary']);
  await alpha.order('promote');
  const client = await mirror.attach(alpha);
  const answer = await alpha.order(path('demote'), { force: true });
  t.regex(stringField(answer, 'message'), /would become Secondary/);
  t.is(await refusalOf(beta, path('failover')), 'device-in-use');
  await beta.order(path('failover'), { force: true });
  t.is(await refusalOf(beta, path('promote')), 'peer-is-primary');
  t.true(client.isOpen);
  await client.write(0, Buffer.alloc(4096));
  t.deepEqual(await roles(), ['Primary', 'Secondary']);
  const { current } = (await alpha.status()).generation;

  await mirror.detach(client, alpha);
  await beta.order(path('failover'));
  await alpha.order(path('connect'));
  await pair.mirroring();
  t.deepEqual(await roles(), ['Primary', 'Secondary']);
  t.is((await alpha.status()).generation.current, current);
  t.is((await decisions(beta)).filter(({ kind }) => kind === 'handshake').length, 1, 'no new session');
});
