/** The status tree, as recorded. */
import test from 'ava';
import { statusLine, statusTree } from '../../server/cli/status-tree.ts';
import { defineResource } from '../../server/definition.ts';
import type { ResourceStatus } from '../../server/schemas/status.ts';
import { statusOf } from '../support/fake-data-plane.ts';
import { mirroredBody } from '../support/test-app.ts';

type Peer = ResourceStatus['peers'][number];

function status(part: Partial<ResourceStatus>, peer: Partial<Peer> = {}): ResourceStatus {
  const checked = defineResource('r0', mirroredBody, 'alpha');
  if (!checked.ok) throw new Error('not valid');
  const whole = { ...statusOf(checked.value), ...part };
  return { ...whole, peers: whole.peers.map((one) => ({ ...one, ...peer })) };
}

const golden: readonly (readonly [string, ResourceStatus, string])[] = [
  [
    'a healthy pair',
    status({ role: 'Primary' }),
    `
r0 role:Primary
  disk:UpToDate size:1GiB clients:0
  nbd:nbd://127.0.0.1:10809/r0
  beta role:Secondary
    peer-disk:UpToDate`,
  ],
  [
    'a resync under way',
    status(
      { role: 'Primary' },
      {
        replication: 'SyncSource',
        diskState: 'Inconsistent',
        outOfSyncBytes: 40960,
        sync: {
          doneBytes: 61440,
          totalBytes: 102400,
          bytesPerSecond: 1000,
          etaSeconds: 41.2,
          rate: { bytesPerSecond: 2 * 1024 ** 2, reason: 'clients' },
          pausedBy: [],
          stalled: 'beta cannot read block 5 (of 4 KiB)',
        },
      },
    ),
    `
r0 role:Primary
  disk:UpToDate size:1GiB clients:0
  nbd:nbd://127.0.0.1:10809/r0
  beta role:Secondary
    replication:SyncSource peer-disk:Inconsistent done:60.00 eta:42s rate:clients(2.0MiB/s) out-of-sync:40KiB
    resync stalled: beta cannot read block 5 (of 4 KiB)`,
  ],
  [
    'a peer that is gone',
    status(
      { role: 'Primary', suspended: true, suspendReasons: ['peer-lost', 'policy'] },
      {
        connection: 'Connecting',
        role: 'Unknown',
        replication: 'Off',
        diskState: 'DUnknown',
        outOfSyncBytes: 8192,
        lastError: 'connection refused',
      },
    ),
    `
r0 role:Primary suspended:peer-lost,policy
  disk:UpToDate size:1GiB clients:0
  nbd:nbd://127.0.0.1:10809/r0
  SUSPENDED: I/O waits until beta is back (policy onPeerLoss=suspend). If it is down for good, or cut off from
    clients, "promote r0 --force" goes on without it.
  beta connection:Connecting
    out-of-sync:8KiB
    connection refused`,
  ],
  [
    'a resource that could not be started',
    status({
      diskState: 'Diskless',
      peers: [],
      error: { code: 'backing-missing', reason: 'there is no /x', nextStep: 'Create it.' },
    }),
    `
r0 role:Secondary
  disk:Diskless size:1GiB clients:0
  error:backing-missing there is no /x
    next: Create it.`,
  ],
];
for (const [title, given, expected] of golden) {
  test(`tree of ${title}`, (t) => {
    t.is(`\n${statusTree(given)}`, expected);
  });
}

test('a split brain is said loudly, in the tree and in the line', (t) => {
  const split = status({ splitBrain: true }, { connection: 'StandAlone' });
  t.regex(statusTree(split), /SPLIT BRAIN/);
  t.regex(statusLine(split), / split-brain /);
});
