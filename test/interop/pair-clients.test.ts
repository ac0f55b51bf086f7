/** Clients we did not write, against a mirrored Primary; whatever they do, both nodes hold the same afterwards. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { startPair } from '../support/cluster.ts';
import type { Pair } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { requirePresent, requireTool, runTool } from '../support/tools.ts';

const MiB = 1024 * 1024;
const sizeBytes = 64 * MiB;

interface Mirrored extends Pair {
  /** Of the Primary, alpha. */
  readonly uri: string;
  readonly files: readonly [string, string];
  readonly directory: string;
}

async function startMirrored(t: ExecutionContext): Promise<Mirrored> {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-interop-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const pair = await startPair(t, { sizeBytes });
  await pair.alpha.order('promote');
  const [alpha, beta] = await Promise.all([pair.alpha.status(), pair.beta.status()]);
  return {
    ...pair,
    uri: `nbd://127.0.0.1:${pair.alpha.nbdPort}/${pair.resource}`,
    files: [alpha.backing.path, beta.backing.path],
    directory,
  };
}

/** All is acknowledged and no client is left: then both files are the same, and nothing is marked. */
async function checkCopies(t: ExecutionContext, pair: Mirrored): Promise<void> {
  t.deepEqual(compareFiles(...pair.files), { equal: true });
  const { diskState, peers } = await pair.alpha.status();
  t.like(
    { diskState, peer: peers[0] },
    {
      diskState: 'UpToDate',
      peer: { connection: 'Connected', replication: 'Established', diskState: 'UpToDate', outOfSyncBytes: 0 },
    },
  );
}

/** Bytes allocated on the disks of both nodes. */
function allocatedBytes(pair: Mirrored): readonly [number, number] {
  // st_blocks counts units of 512 bytes, whatever the file system's block is (stat(2)).
  const [a, b] = pair.files;
  return [statSync(a).blocks * 512, statSync(b).blocks * 512];
}

async function succeed(t: ExecutionContext, name: string, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runTool(name, args);
  t.is(status, 0, `${name} ${args.join(' ')}\n${stdout}\n${stderr}`);
  return stdout;
}

const raw = ['-f', 'raw'];

// Serial: each test starts two nodes.

test.serial('nbdcopy carries an image in and out, holes and all', async (t) => {
  if (!requireTool(t, ['nbdinfo', 'nbdcopy'])) return;
  const pair = await startMirrored(t);
  const image = Buffer.alloc(sizeBytes);
  randomBytes(3 * MiB + 777).copy(image, MiB);
  randomBytes(5000).copy(image, 40 * MiB + 1);
  const source = join(pair.directory, 'source');
  const target = join(pair.directory, 'target');
  writeFileSync(source, image);

  t.like(JSON.parse(await succeed(t, 'nbdinfo', ['--json', pair.uri])), {
    exports: [
      {
        'export-name': pair.resource,
        'export-size': sizeBytes,
        is_read_only: false,
        can_multi_conn: true,
        can_flush: true,
        can_fua: true,
        can_trim: true,
        can_zero: true,
      },
    ],
  });
  await succeed(t, 'nbdcopy', ['--connections=4', '--flush', source, pair.uri]);
  await succeed(t, 'nbdcopy', ['--connections=4', pair.uri, target]);
  t.deepEqual(compareFiles(source, target), { equal: true });
  for (const file of pair.files) t.deepEqual(compareFiles(source, file), { equal: true });
  for (const bytes of allocatedBytes(pair)) t.true(bytes < 6 * MiB, `${bytes} bytes allocated`);
  await checkCopies(t, pair);
});

test.serial('qemu-img converts, maps and compares; qemu-io trims and zeroes on both nodes', async (t) => {
  if (!requireTool(t, ['qemu-img', 'qemu-io'])) return;
  const pair = await startMirrored(t);
  const image = Buffer.alloc(sizeBytes);
  randomBytes(16 * MiB).copy(image, 8 * MiB);
  const source = join(pair.directory, 'source');
  const target = join(pair.directory, 'target');
  writeFileSync(source, image);

  await succeed(t, 'qemu-img', ['convert', '-n', ...raw, '-O', 'raw', source, pair.uri]);
  await succeed(t, 'qemu-img', ['compare', ...raw, '-F', 'raw', source, pair.uri]);
  await succeed(t, 'qemu-img', ['convert', ...raw, '-O', 'raw', pair.uri, target]);
  t.deepEqual(compareFiles(source, target), { equal: true });
  t.deepEqual(await dataRanges(t, pair.uri), [[8 * MiB, 16 * MiB]]);
  const before = allocatedBytes(pair);
  for (const bytes of before) t.true(bytes >= 16 * MiB, `${bytes} bytes allocated`);
  await checkCopies(t, pair);

  // Half of it trimmed; a quarter zeroed, which may be holes; and zeroes written as data where they must be kept.
  await succeed(t, 'qemu-io', [
    ...raw,
    ...['discard 8M 8M', 'write -z -u 16M 4M', 'write -P 0xa5 20479k 2k', 'flush'].flatMap((each) => [
      '-c',
      each,
    ]),
    ...['read -P 0 8M 8M', 'read -P 0 16M 3M', 'read -P 0xa5 20479k 2k'].flatMap((each) => ['-c', each]),
    pair.uri,
  ]);
  t.deepEqual(await dataRanges(t, pair.uri), [[20 * MiB - 4096, 4 * MiB + 4096]]);
  const after = allocatedBytes(pair);
  for (const bytes of after)
    t.true(bytes < 5 * MiB, `${bytes} bytes allocated, ${before.join(' and ')} before`);
  await checkCopies(t, pair);
});

/** Offset and length of what base:allocation does not call a hole. */
async function dataRanges(t: ExecutionContext, uri: string): Promise<[number, number][]> {
  const map: unknown = JSON.parse(await succeed(t, 'qemu-img', ['map', ...raw, '--output=json', uri]));
  if (!Array.isArray(map)) throw new Error('qemu-img map answered no list');
  const ranges: [number, number][] = [];
  for (const extent of map as unknown[]) {
    if (typeof extent !== 'object' || extent === null) throw new Error('an extent that is no object');
    const { start, length, data } = { start: 0, length: 0, data: false, ...extent };
    if (data) ranges.push([start, length]);
  }
  return ranges;
}

/** Debian's, which has the bindings of libnbd. */
const python = '/usr/bin/python3';

test.serial(
  'libnbd: what one connection was told is done, another one sees; sizes and offsets of any kind',
  async (t) => {
    const probe = await runTool(python, ['-c', 'import nbd; nbd.NBD()']).catch(() => null);
    if (!requirePresent(t, probe?.status === 0, 'libnbd for Python')) return;
    const pair = await startMirrored(t);
    await succeed(t, python, [join(import.meta.dirname, 'shared-view.py'), pair.uri, String(sizeBytes)]);
    await checkCopies(t, pair);

    // The whole device in one request each, as mkfs does it: no limit of payloads applies.
    const whole = [
      'import nbd, sys',
      'h = nbd.NBD()',
      'h.connect_uri(sys.argv[1])',
      'h.trim(h.get_size(), 0)',
      'h.zero(h.get_size(), 0)',
      'h.shutdown()',
    ];
    await succeed(t, python, ['-c', whole.join('\n'), pair.uri]);
    t.deepEqual(await dataRanges(t, pair.uri), []);
    for (const bytes of allocatedBytes(pair)) t.true(bytes < MiB, `${bytes} bytes allocated`);
    await checkCopies(t, pair);
  },
);

test.serial('fio verifies what it wrote at random, at depth, over several jobs', async (t) => {
  if (!requireTool(t, ['fio'])) return;
  const pair = await startMirrored(t);
  const job = (name: string, offset: string, ...more: string[]) => [
    `--name=${name}`,
    '--ioengine=nbd',
    `--uri=${pair.uri}`,
    `--offset=${offset}`,
    '--size=8M',
    '--verify=crc32c',
    '--verify_fatal=1',
    '--verify_state_save=0',
    `--directory=${pair.directory}`,
    ...more,
  ];
  await succeed(t, 'fio', [
    ...job('random', '0', '--rw=randwrite', '--bs=4k', '--iodepth=32'),
    ...job('sizes', '16M', '--rw=randwrite', '--bsrange=512-256k', '--iodepth=16', '--fsync=8'),
    ...job('mixed', '32M', '--rw=randrw', '--bs=16k', '--iodepth=8'),
  ]);
  await checkCopies(t, pair);
});

test.serial('a Secondary lists its export and says where the Primary is', async (t) => {
  if (!requireTool(t, ['nbdinfo', 'qemu-img', 'nbd-client'])) return;
  const pair = await startMirrored(t);
  const { nbdPort } = pair.beta;
  const uri = `nbd://127.0.0.1:${nbdPort}/${pair.resource}`;
  const message = 'r0 is Secondary on beta; the Primary is alpha: attach there';

  const listed = await runTool('nbd-client', ['-l', '127.0.0.1', String(nbdPort)]);
  t.regex(listed.stdout + listed.stderr, /^r0$/m);
  // It opens what is listed to tell more of it, and fails there, naming the export that it found.
  const list = await runTool('nbdinfo', ['--list', `nbd://127.0.0.1:${nbdPort}/`]);
  t.regex(list.stderr, /not supported for export: r0/);

  const opened = await runTool('env', ['LIBNBD_DEBUG=1', 'nbdinfo', uri]);
  t.is(opened.status, 1);
  // libnbd maps the refusal to ENOTSUP and keeps the text for those who debug.
  t.true(opened.stderr.includes(`server error message: ${message}`), opened.stderr);
  const qemu = await runTool('qemu-img', ['info', uri]);
  t.is(qemu.status, 1);
  t.true(qemu.stderr.includes(message), qemu.stderr);

  await pair.beta.order('failover');
  t.is((await runTool('nbdinfo', [uri])).status, 0);
  const former = await runTool('qemu-img', ['info', pair.uri]);
  t.true(former.stderr.includes('r0 is Secondary on alpha; the Primary is beta'), former.stderr);
});
