/** What the pair decides and prints; the processes themselves are tested end to end. */
import test from 'ava';
import { defineResource } from '../../server/definition.ts';
import { banner } from '../../server/pair/banner.ts';
import { bodyFor, pairLayout, parsePortBase } from '../../server/pair/layout.ts';
import { judge } from '../../server/pair/settling.ts';
import type { ResourceStatus } from '../../server/schemas/status.ts';
import { statusOf } from '../support/fake-data-plane.ts';

const layout = pairLayout('/data', null);

function status(
  part: Partial<ResourceStatus> = {},
  connection: 'Connected' | 'Connecting' | 'StandAlone' = 'Connected',
) {
  const checked = defineResource('r0', bodyFor(layout.alpha, layout.beta, 'secret', '1GiB'), 'alpha');
  if (!checked.ok) throw new Error(checked.mistakes.map((mistake) => mistake.message).join());
  const whole = { ...statusOf(checked.value), ...part };
  return { ...whole, peers: whole.peers.map((peer) => ({ ...peer, connection })) };
}

test('default ports are the known ones, all six differ', (t) => {
  const ports = [layout.alpha, layout.beta].flatMap((node) => [
    node.apiPort,
    node.nbdPort,
    node.replicationPort,
  ]);
  t.deepEqual(ports, [7780, 10809, 7789, 7790, 10819, 7799]);
  const based = pairLayout('/data', 20000);
  const other = [based.alpha, based.beta].flatMap((node) => [
    node.apiPort,
    node.nbdPort,
    node.replicationPort,
  ]);
  t.is(new Set(other).size, 6);
  t.true(Math.max(...other) <= 20019);
  t.throws(() => parsePortBase('65530'));
  t.throws(() => parsePortBase('80'));
});

test('both definitions are valid and point at each other', (t) => {
  for (const [self, peer] of [
    [layout.alpha, layout.beta],
    [layout.beta, layout.alpha],
  ] as const) {
    const checked = defineResource('r0', bodyFor(self, peer, 'secret', '1GiB'), self.name);
    t.true(checked.ok);
    t.like(checked.ok ? checked.value.mirror : null, {
      peerName: peer.name,
      peerAddress: `127.0.0.1:${peer.replicationPort}`,
    });
  }
});

test('settled: healthy when both are connected and UpToDate, waiting while that may come', (t) => {
  t.is(judge([status(), status()])?.kind, 'healthy');
  t.is(judge([status({ diskState: 'Inconsistent' }), status()]), null);
  t.is(judge([status({}, 'Connecting'), status({}, 'Connecting')]), null);
});

test('settled: stuck on a fault, a split brain and StandAlone, with the reason', (t) => {
  const error = { code: 'address-in-use', reason: 'port taken.', nextStep: 'Free it.' };
  t.like(judge([status({ error }), status()]), { kind: 'stuck', why: 'port taken. Free it.' });
  t.like(judge([status({ splitBrain: true }, 'StandAlone'), status()]), { kind: 'stuck' });
  t.like(judge([status({}, 'StandAlone'), status()]), { kind: 'stuck' });
});

test('banner: attach lines for the Primary, failover line for the other node', (t) => {
  const text = banner(layout, [status({ role: 'Primary' }), status()], 'lockstep');
  t.true(text.includes('nbd-client 127.0.0.1 10809 -N r0 /dev/nbd0'));
  t.true(text.includes('qemu-nbd --connect=/dev/nbd0 --format=raw nbd://127.0.0.1:10809/r0'));
  t.true(text.includes('nbdcopy image.raw nbd://127.0.0.1:10809/r0'));
  t.true(text.includes('lockstep failover r0 --api http://127.0.0.1:7790'));
  t.true(banner(layout, [status(), status()], 'lockstep').includes('No node is Primary'));
  const other = banner(layout, [status(), status({ role: 'Primary' })], 'lockstep');
  t.true(other.includes('nbd-client 127.0.0.1 10819') && other.includes('--api http://127.0.0.1:7780'));
});
