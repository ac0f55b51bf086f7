/** What a core says of itself. */
import test from 'ava';
import { mirroring, promote, run } from '../../support/pair.ts';
import { TwoCores } from '../../support/two-cores.ts';

test('the status of a Primary that mirrors', (t) => {
  const pair = mirroring();
  pair.read('a', 0, 2);
  pair.trim('a', 3);
  pair.flush('a');
  pair.settle();
  const { current, history } = pair.metadata('a').superblock;
  t.deepEqual(pair.status('a'), {
    sizeBytes: 8 * 4 * 1024 * 1024,
    role: 'Primary',
    diskState: 'UpToDate',
    suspended: [],
    peer: {
      connection: 'Connected',
      replication: 'Established',
      role: 'Secondary',
      diskState: 'UpToDate',
      outOfSyncBytes: 0,
      sync: null,
      verify: null,
      lastError: null,
    },
    generation: { current, bitmap: 0n, history },
    splitBrain: false,
    io: { reads: 1, writes: 2, readBytes: 8192, writtenBytes: 4096, flushes: 1, repairedReads: 0 },
  });
});

test('the status of a Primary alone: what the peer lacks, why, and since which generation', (t) => {
  const pair = mirroring();
  const before = pair.status('a').generation.current;
  pair.cutLink();
  pair.settle();
  pair.write('a', 5, 2);
  pair.settle();
  const { peer, generation } = pair.status('a');
  t.is(peer?.connection, 'Connecting');
  t.is(peer?.replication, 'Off');
  t.is(peer?.role, 'Unknown');
  t.is(peer?.diskState, 'DUnknown');
  t.is(peer?.outOfSyncBytes, 2 * 4096);
  t.regex(peer?.lastError ?? '', /NetworkFailure/);
  t.is(generation.bitmap, before);
});

test('only a Primary says that its I/O is suspended', (t) => {
  const pair = mirroring();
  pair.hold('packet:state', 'a');
  pair.hold('packet:state', 'b');
  pair.breakSession();
  pair.settle();
  t.deepEqual(pair.status('a').suspended, ['negotiating']);
  t.deepEqual(pair.status('b').suspended, []);
});

test('a device without a peer has none in its status', (t) => {
  const pair = new TwoCores({ core: { peerName: null } });
  pair.start('a');
  pair.settle();
  run(pair, 'a', promote);
  t.is(pair.status('a').peer, null);
  t.is(pair.status('a').diskState, 'UpToDate');
});
