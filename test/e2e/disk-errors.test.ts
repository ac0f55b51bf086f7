/** A backing device fails under load: I/O goes on through the other node, and the disk comes back without a full resync. */
import { closeSync, openSync, writeSync } from 'node:fs';
import test from 'ava';
import type { ResourceStatus } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { blocksPerExtent, decisions, markDecisions, resyncsFrom, startMirror } from '../support/mirror.ts';

/** The four extents of the load. */
const mostBlocks = 4 * blocksPerExtent;

function hasNoDisk(status: ResourceStatus): boolean {
  return status.diskState === 'Failed' || status.diskState === 'Diskless';
}

for (const kind of ['failWrites', 'failFlush', 'failReads'] as const) {
  test.serial(
    `disk error on the Primary (${kind}): the load sees nothing, and attach copies what was missed`,
    async (t) => {
      const mirror = await startMirror(t, { flushEvery: 20 });
      const { alpha, beta, load, pair } = mirror;
      await alpha.order('promote');
      const client = await mirror.attach(alpha);
      const phase = load.start(client);
      await phase.acknowledged(300);
      mirror.breakDisk(alpha, kind);
      const read = await client.read(0, 4096);
      t.is(read.length, 4096);
      await alpha.waitFor(hasNoDisk, 'its disk detached');
      await beta.waitFor((status) => status.diskState === 'UpToDate', 'the only copy');
      const mark = load.sequence;
      await phase.more(200);
      const missed = load.blocksWritten(mark, load.sequence - 16);
      mirror.mendDisk(alpha);
      const decisionsBefore = await markDecisions(beta);
      await alpha.order('attach');
      await pair.mirroring();
      await phase.more(100);
      t.is((await phase.stop()).reason, 'stopped');
      t.is((await alpha.status()).role, 'Primary');
      const [blocks = 0, ...others] = await resyncsFrom(beta, decisionsBefore);
      t.deepEqual(others, []);
      t.true(blocks >= missed && blocks <= mostBlocks, `${blocks} blocks, ${missed} missed`);
      await mirror.assertWhole(alpha);
    },
  );
}

for (const kind of ['failWrites', 'failFlush'] as const) {
  test.serial(
    `disk error on the Secondary (${kind}): the load sees nothing, and attach copies what was missed`,
    async (t) => {
      const mirror = await startMirror(t, { flushEvery: 20 });
      const { alpha, beta, load, pair } = mirror;
      await alpha.order('promote');
      const phase = load.start(await mirror.attach(alpha));
      await phase.acknowledged(300);
      mirror.breakDisk(beta, kind);
      await beta.waitFor(hasNoDisk, 'its disk detached');
      const mark = load.sequence;
      await phase.more(200);
      const missed = load.blocksWritten(mark, load.sequence - 16);
      mirror.mendDisk(beta);
      const decisionsBefore = await markDecisions(alpha);
      await beta.order('attach');
      await pair.mirroring();
      await phase.more(100);
      t.is((await phase.stop()).reason, 'stopped');
      const [blocks = 0, ...others] = await resyncsFrom(alpha, decisionsBefore);
      t.deepEqual(others, []);
      t.true(blocks >= missed && blocks <= mostBlocks, `${blocks} blocks, ${missed} missed`);
      await mirror.assertWhole(alpha);
    },
  );
}

test.serial(
  'a bad sector of the Primary: the client reads on, and the sector is rewritten from the peer',
  async (t) => {
    const mirror = await startMirror(t, { sizeBytes: 16 * 1024 * 1024 });
    const { alpha, beta } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    const data = Buffer.alloc(256 * 1024, 'lockstep');
    await client.write(0, data);
    await client.flush();
    // The sector is lost: what is left in its place, only the fault keeps from being read.
    const [offset, length] = [9 * 4096, 4096];
    mirror.breakSector(alpha, offset, length);
    const { backing } = await alpha.status();
    const file = openSync(backing.path, 'r+');
    writeSync(file, Buffer.alloc(length, 0xdb), 0, length, offset);
    closeSync(file);
    t.true(data.equals(await client.read(0, data.length)));
    const status = await alpha.waitFor(({ io }) => io.repairedReads === 1, 'the sector repaired');
    t.is(status.diskState, 'UpToDate');
    t.deepEqual(
      await client.read(offset - 100, length + 200),
      data.subarray(offset - 100, offset + length + 100),
    );
    t.is((await alpha.status()).io.repairedReads, 1, 'the second read was the disk of alpha');
    t.deepEqual(compareFiles(backing.path, (await beta.status()).backing.path), { equal: true });
    t.true((await decisions(alpha)).some(({ kind, rule }) => kind === 'disk' && rule === 'read-repaired'));
  },
);

test.serial(
  'a write that fails on the only copy is an error of its own: the disk goes on once it can',
  async (t) => {
    const mirror = await startMirror(t, {});
    const { alpha, beta } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    await client.write(0, Buffer.alloc(4096, 1));
    await beta.node.kill9();
    await alpha.waitFor(({ peers }) => peers[0]?.connection !== 'Connected', 'its peer gone');
    mirror.breakDisk(alpha, 'failWrites');
    await t.throwsAsync(client.write(4096, Buffer.alloc(4096, 2)), { message: /EIO/ });
    mirror.mendDisk(alpha);
    await client.write(8192, Buffer.alloc(4096, 3));
    await client.flush();
    t.deepEqual([(await client.read(0, 1))[0], (await client.read(8192, 1))[0]], [1, 3]);
    t.is((await alpha.status()).diskState, 'UpToDate');
  },
);
