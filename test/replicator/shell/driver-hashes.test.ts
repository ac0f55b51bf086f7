/** What a real node says to a peer that asks for coarse hashes: those of the session in which it was asked, of its own disk. */
import test from 'ava';
import type { Packet } from '../../../replicator/core/packet.ts';
import { coarseBytes } from '../../../replicator/shell/coarse-hash.ts';
import type { CoarseHash } from '../../../replicator/shell/coarse-hash.ts';
import { FakePeer } from '../../support/fake-peer.ts';
import { freePort } from '../../support/ports.ts';
import { startReplica } from '../../support/replica.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** Eight hashes, of which the first is of data and the others are of a hole. */
const length = 8 * coarseBytes;
const data = Buffer.alloc(coarseBytes, 'something to compare ');

test('a verify gets the hashes of its own session, and each session other ones of the same data', async (t) => {
  const { node } = await startReplica({
    name: 'beta',
    peerName: 'alpha',
    directory: temporaryDirectory(t),
    port: 0,
    peerPort: await freePort(),
    core: { peerTimeoutMs: 3_600_000 },
  });
  t.teardown(() => node.stop());
  const seen = new Set<string>();
  for (let session = 1; session <= 2; session++) {
    const peer = await FakePeer.dial({
      port: node.replicationPort,
      resourceName: 'r0',
      name: 'alpha',
      peerName: 'beta',
      secret: 'only for this test',
    });
    t.teardown(() => peer.destroy());
    await peer.establish({ role: 'Primary', exposed: 1n });
    if (session === 1) {
      const range = { offset: 0, length: data.length };
      peer.say({ kind: 'write', seq: 1, op: 'write', ...range, fua: false, noHole: false }, data);
      t.like(await peer.heard('written'), { seq: 1 });
    }
    const range = { offset: 0, length, mark: false };
    peer.say({ kind: 'verifyStart' });
    peer.say({ kind: 'verifyRequest', id: 5, ...range, coarse: true });
    const coarse = payloadOf(peer, await peer.heard('verifyDigests'));
    t.is(coarse.toString('hex'), expected(peer.coarseHash));
    seen.add(coarse.toString('hex'));
    peer.say({ kind: 'verifyRequest', id: 6, ...range, coarse: false });
    t.is(payloadOf(peer, await peer.heard('verifyDigests')).length, (length / 4096) * 32);
    peer.destroy();
  }
  t.is(seen.size, 2);
});

function payloadOf(peer: FakePeer, packet: Packet | null): Buffer {
  return packet === null ? Buffer.alloc(0) : peer.payloadOf(packet);
}

function expected(hash: CoarseHash): string {
  const hashes = Buffer.alloc((length / coarseBytes) * 32);
  for (let at = 0; at < hashes.length; at += 32) {
    hash.write(at === 0 ? data : Buffer.alloc(coarseBytes), hashes, at);
  }
  return hashes.toString('hex');
}
