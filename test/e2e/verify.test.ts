/** Online verify and the comparing resync between two real nodes. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import test from 'ava';
import type { DecisionRecord } from '../../server/schemas/status.ts';
import { onlyPeer } from '../support/cluster.ts';
import type { NodePeer } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import {
  blocksPerExtent,
  decisions,
  isConnection,
  markDecisions,
  mebibyte,
  refusalOf,
  resyncsFrom,
  startMirror,
} from '../support/mirror.ts';
import type { DecisionMark } from '../support/mirror.ts';

/** More than any verify of these sizes lasts. */
const looksMax = 20_000;

/** The verify that ended after the mark, once it has. */
async function verified(peer: NodePeer, mark: DecisionMark): Promise<DecisionRecord> {
  for (let look = 0; look < looksMax; look++) {
    const record = (await decisions(peer, mark)).find(({ kind }) => kind === 'verify');
    if (record !== undefined) return record;
    // News of the verify before this one may still be on their way.
    await peer.waitFor((status) => {
      const { verify } = onlyPeer(status);
      return verify !== null && verify.state !== 'running';
    }, 'the end of the verify');
  }
  throw new Error(`no verify after the mark in ${looksMax} looks`);
}

/** One byte in each of these blocks is another one from here on. */
function corrupt(path: string, blocks: readonly number[]): void {
  const fd = openSync(path, 'r+');
  try {
    for (const block of blocks) {
      const byte = Buffer.alloc(1);
      const at = block * 4096 + (block % 4096);
      readSync(fd, byte, 0, 1, at);
      byte.writeUInt8(byte.readUInt8(0) ^ 0x10);
      writeSync(fd, byte, 0, 1, at);
    }
  } finally {
    closeSync(fd);
  }
}

test.serial(
  'blocks that changed behind the back of the Secondary: verify finds exactly these, and they are repaired',
  async (t) => {
    const mirror = await startMirror(t, { sizeBytes: 64 * mebibyte });
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const phase = load.start(client);
    await phase.acknowledged(500);
    await phase.stop();
    await client.flush();
    const [one, other] = [(await alpha.status()).backing.path, (await beta.status()).backing.path];
    // In data, in a hole, and at the very end.
    corrupt(other, [7, 9000, 64 * 256 - 1]);
    t.like(compareFiles(one, other), { equal: false, differingBlocks: 3 });

    const before = await markDecisions(alpha);
    await alpha.order('verify', { action: 'start', repair: false });
    t.like(await verified(alpha, before), {
      rule: 'finished',
      result: '3 blocks differ: 7 9000 16383',
    });
    t.is(onlyPeer(await alpha.status()).verify?.differingBytes, 3 * 4096);
    t.is(onlyPeer(await alpha.status()).outOfSyncBytes, 0);

    for (const verifier of [beta, alpha]) {
      const mark = await markDecisions(verifier);
      const source = await markDecisions(alpha);
      corrupt(other, verifier === beta ? [] : [11, 12]);
      await verifier.order('verify', { action: 'start' });
      t.is((await verified(verifier, mark)).inputs['differingBlocks'], verifier === beta ? 3 : 2);
      await pair.mirroring();
      t.deepEqual(await resyncsFrom(alpha, source), [verifier === beta ? 3 : 2]);
      t.deepEqual(compareFiles(one, other), { equal: true });
    }
    const again = await markDecisions(beta);
    await beta.order('verify', { action: 'start' });
    t.is((await verified(beta, again)).result, 'no block differs');
    t.is(await refusalOf(beta, 'verify', { action: 'stop' }), 'no-verify');
    await mirror.assertWhole(alpha);
  },
);

test.serial('verify under client load reports nothing, on either node', async (t) => {
  const mirror = await startMirror(t, { sizeBytes: 32 * mebibyte, loadBytes: 32 * mebibyte });
  const { alpha, beta, load } = mirror;
  await alpha.order('promote');
  const client = await mirror.attach(alpha);
  const phase = load.start(client);
  await phase.acknowledged(200);
  for (const verifier of [alpha, beta]) {
    const mark = await markDecisions(verifier);
    await verifier.order('verify', { action: 'start' });
    const { rule, result, inputs } = await verified(verifier, mark);
    t.deepEqual([rule, result, inputs['checkedBlocks']], ['finished', 'no block differs', 32 * 256]);
  }
  t.is((await phase.stop()).reason, 'stopped');
  await mirror.assertWhole(alpha);
});

test.serial(
  'after the crash of a Primary its active extents are compared, and few of their bytes are sent',
  async (t) => {
    const mirror = await startMirror(t);
    const { alpha, beta, load, pair } = mirror;
    await alpha.order('promote');
    const phase = load.start(await mirror.attach(alpha));
    await phase.acknowledged(1000);
    await alpha.node.kill9();
    await phase.ended;
    await beta.waitFor(isConnection('Connecting'), 'the loss of alpha');
    await alpha.node.start();
    await pair.mirroring();
    const finished = (await decisions(alpha)).find(({ rule }) => rule === 'finished');
    const copied = Number(finished?.inputs['copiedBlocks']);
    const equal = Number(finished?.inputs['equalBlocks']);
    t.is(copied + equal, 4 * blocksPerExtent);
    // At most what was in flight.
    t.true(copied <= 16, `${copied} of ${copied + equal} blocks copied`);
    t.is(Number(finished?.inputs['payloadBytes']) <= copied * 4096, true);
    await alpha.order('promote');
    await mirror.assertWhole(alpha);
  },
);
