/** Ranges beyond the device, from a peer that is who it says it is: the session ends before anything is done about them. */
import test from 'ava';
import type { Packet } from '../../../replicator/core/packet.ts';
import { flushed } from '../../support/pair.ts';
import { blocksPerExtent } from '../../support/two-cores.ts';

/** The device of the pair has eight extents. */
const beyond = 8 * blocksPerExtent;
const sizeBytes = beyond * 4096;

const cases: readonly Packet[] = [
  { kind: 'read', id: 1, offset: sizeBytes, length: 4096 },
  { kind: 'read', id: 1, offset: sizeBytes - 512, length: 1024 },
  { kind: 'resyncRequest', id: 1, offset: sizeBytes, length: 4096 },
  { kind: 'resyncStable', runs: [{ first: beyond, count: 1 }] },
  {
    kind: 'resyncStable',
    runs: [
      { first: 0, count: 1 },
      { first: beyond - 1, count: 2 },
    ],
  },
];

for (const packet of cases) {
  test(`beyond the device: ${JSON.stringify(packet)}`, (t) => {
    const pair = flushed();
    t.is(pair.sizeBytes, sizeBytes);
    pair.cutLink();
    pair.settle();
    pair.write('a', 0, 2);
    pair.settle();
    pair.hold('packet:resyncRequest', 'a');
    pair.healLink();
    pair.settle();
    const core = pair.core('a');
    t.is(pair.status('a').peer?.replication, 'SyncSource');
    if (core.connection.conn !== 'Connected') return t.fail('not connected');
    const { session } = core.connection;
    const effects = core.step({ kind: 'packet', session, packet, payload: null });
    t.true(effects.some((effect) => effect.kind === 'closeLink' && effect.why === 'ProtocolError'));
    t.false(effects.some(({ kind }) => kind === 'readLocal' || kind === 'panic'));
    t.deepEqual(pair.marked('a'), [0]);
  });
}
