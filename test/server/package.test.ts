/** The npm package: plain JavaScript, which runs without a checkout, from the folder npm installed it into. */
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { startNode } from '../support/cluster.ts';

const run = promisify(execFile);
const project = resolve(import.meta.dirname, '../..');

test('package: its plain JavaScript starts a node that serves a device', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'lockstep-package-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const tsc = join(project, 'node_modules/typescript/bin/tsc');
  const dist = join(directory, 'dist');
  await run(process.execPath, [tsc, '-p', join(project, 'scripts/tsconfig.build.json'), '--outDir', dist]);
  await cp(join(project, 'package.json'), join(directory, 'package.json'));
  await symlink(join(project, 'node_modules'), join(directory, 'node_modules'));
  const files = await readdir(dist, { recursive: true });
  t.true(files.length > 100);
  t.deepEqual(
    files.filter((file) => file.endsWith('.ts')),
    [],
  );

  const node = await startNode(t, { name: 'packed', program: [join(dist, 'server/main.js'), 'serve'] });
  const answer = await node.api('PUT', '/v1/resources/r0', { size: '1MiB', nbd: {} });
  t.is(answer.status, 201);
  await node.waitFor(
    'r0',
    (status) => status.role === 'Primary' && status.diskState === 'UpToDate',
    'Primary',
  );
});
