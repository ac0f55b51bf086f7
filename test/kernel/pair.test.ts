/** A real kernel on a real pair: what a user does with a replicated device, and what both nodes hold afterwards. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { startPair } from '../support/cluster.ts';
import type { NodePeer, Pair } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { testWith } from '../support/needs.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { runTool } from '../support/tools.ts';
import { verifyFlow, writeFlow } from './ext4-flow.ts';
import { bootGuest, guestNeeds } from './guest.ts';

const sizeBytes = 64 * 1024 * 1024;

testWith(
  [...guestNeeds, 'e2fsck'],
  'kernel: ext4 on a mirrored device survives the move to the other node and back',
  async (t) => {
    const [pair, guest] = await Promise.all([startPair(t, { sizeBytes }), bootGuest(t)]);
    const { alpha, beta, resource } = pair;

    await alpha.order('promote');
    const checksums = await writeFlow(guest, alpha.nbdPort, resource);
    t.is(checksums.trim().split('\n').length, 12);
    await detached(alpha);
    await beta.order('failover');
    await verifyFlow(guest, beta.nbdPort, resource, checksums);
    await detached(beta);
    await alpha.order('failover');
    await verifyFlow(guest, alpha.nbdPort, resource, checksums);
    await detached(alpha);

    await checkCopies(t, pair);
  },
);

testWith(
  [...guestNeeds, 'e2fsck', 'nbdcopy'],
  'kernel: a file system made elsewhere and copied in is the same on the node that takes over',
  async (t) => {
    const folder = temporaryDirectory(t);
    const { image, checksums } = await makeImage(t, folder);
    const [pair, guest] = await Promise.all([startPair(t, { sizeBytes }), bootGuest(t)]);
    const { alpha, beta, resource } = pair;

    await alpha.order('promote');
    const uri = `nbd://127.0.0.1:${alpha.nbdPort}/${resource}`;
    await succeed(t, 'nbdcopy', ['--flush', image, uri]);
    const back = join(folder, 'back');
    await succeed(t, 'nbdcopy', [uri, back]);
    t.deepEqual(compareFiles(image, back), { equal: true });
    await detached(alpha);

    await alpha.node.kill9();
    await beta.waitFor((status) => status.peers[0]?.connection !== 'Connected', 'alpha lost');
    await beta.order('failover', { force: true });
    await verifyFlow(guest, beta.nbdPort, resource, checksums);
    await alpha.node.start();
    await pair.mirroring();
    await checkCopies(t, pair);
  },
);

/** The kernel says goodbye before the server has taken note of it; a hand-over is refused until then. */
async function detached(peer: NodePeer): Promise<void> {
  await peer.waitFor((status) => status.nbd.clients === 0, 'no client attached');
}

/** The files of both nodes are equal, and each is a file system without a fault by itself. */
async function checkCopies(t: ExecutionContext, { alpha, beta }: Pair): Promise<void> {
  const paths = await Promise.all([alpha, beta].map(async (peer) => (await peer.status()).backing.path));
  const [pathA = '', pathB = ''] = paths;
  t.deepEqual(compareFiles(pathA, pathB), { equal: true });
  const folder = temporaryDirectory(t);
  for (const path of paths) {
    const copy = join(folder, 'copy');
    copyFileSync(path, copy);
    await succeed(t, 'e2fsck', ['-f', '-n', copy]);
  }
}

async function makeImage(
  t: ExecutionContext,
  folder: string,
): Promise<{ readonly image: string; readonly checksums: string }> {
  const tree = join(folder, 'tree');
  mkdirSync(join(tree, 'deep'), { recursive: true });
  const files = ['one', 'two', 'deep/three'].map((name, index) => {
    const content = randomBytes(100_000 * (index + 1));
    writeFileSync(join(tree, name), content);
    return `${createHash('sha256').update(content).digest('hex')}  ./${name}`;
  });
  const image = join(folder, 'image');
  await succeed(t, 'mkfs.ext4', ['-q', '-F', '-d', tree, image, `${sizeBytes / 1024}k`]);
  return { image, checksums: files.join('\n') };
}

async function succeed(t: ExecutionContext, name: string, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runTool(name, args);
  t.is(status, 0, `${name} ${args.join(' ')}\n${stdout}\n${stderr}`);
  return stdout;
}
