/** Clients we did not write, against the server over a memory device. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { MemoryDevice } from '../support/memory-device.ts';
import { serveDevice } from '../support/nbd-server.ts';
import type { ServedDevice } from '../support/nbd-server.ts';
import { requirePresent, requireTool, runTool } from '../support/tools.ts';

const MiB = 1024 * 1024;

async function succeed(t: ExecutionContext, name: string, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runTool(name, args);
  t.is(status, 0, `${name} ${args.join(' ')}\n${stdout}\n${stderr}`);
  return stdout;
}

test('nbdinfo --json tells size, flags and contexts', async (t) => {
  if (!requireTool(t, ['nbdinfo'])) return;
  const { uri } = await serveDevice(t);
  const info = JSON.parse(await succeed(t, 'nbdinfo', ['--json', uri])) as unknown;
  t.like(info, {
    protocol: 'newstyle-fixed',
    TLS: false,
    structured: true,
    exports: [
      {
        'export-name': 'r0',
        description: 'test export r0',
        contexts: ['base:allocation'],
        'export-size': 16 * MiB,
        is_read_only: false,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        can_fast_zero: true,
        can_df: true,
        can_cache: true,
        block_size_minimum: 1,
        block_size_preferred: 4096,
        block_size_maximum: 32 * MiB,
      },
    ],
  });
});

test('nbdinfo --list names every export that can be opened', async (t) => {
  if (!requireTool(t, ['nbdinfo'])) return;
  const { tcp } = await serveDevice(t);
  const { stdout } = await runTool('nbdinfo', ['--list', `nbd://127.0.0.1:${tcp.port}/`]);
  t.true(stdout.includes('"r0"'), stdout);
  t.true(stdout.includes('"ro"'), stdout);
});

test('qemu-img shows why a Secondary refuses', async (t) => {
  if (!requireTool(t, ['qemu-img'])) return;
  const { tcp } = await serveDevice(t);
  const { status, stderr } = await runTool('qemu-img', ['info', `nbd://127.0.0.1:${tcp.port}/standby`]);
  t.not(status, 0);
  t.true(stderr.includes('the Primary is beta'), stderr);
});

test('nbdinfo --map shows data and holes where they are', async (t) => {
  if (!requireTool(t, ['nbdinfo'])) return;
  const { device, uri } = await serveDevice(t);
  device.fill(1 * MiB, randomBytes(64 * 1024));
  device.fill(8 * MiB, randomBytes(4096));
  const map = JSON.parse(await succeed(t, 'nbdinfo', ['--map', '--json', uri])) as unknown;
  t.like(map, [
    { offset: 0, length: MiB, type: 3 },
    { offset: MiB, length: 64 * 1024, type: 0 },
    { offset: MiB + 64 * 1024, length: 7 * MiB - 64 * 1024, type: 3 },
    { offset: 8 * MiB, length: 4096, type: 0 },
    { offset: 8 * MiB + 4096, length: 8 * MiB - 4096, type: 3 },
  ]);
});

test('nbdcopy writes an image and reads it back over several connections', async (t) => {
  if (!requireTool(t, ['nbdcopy'])) return;
  const { device, uri, unixUri, directory } = await serveDevice(t);
  const image = Buffer.alloc(16 * MiB);
  randomBytes(3 * MiB + 777).copy(image, MiB);
  randomBytes(5000).copy(image, 12 * MiB + 1);
  const source = join(directory, 'source');
  const target = join(directory, 'target');
  await writeFile(source, image);
  await succeed(t, 'nbdcopy', ['--connections=4', '--flush', source, uri]);
  t.true(device.contents().equals(image));
  await succeed(t, 'nbdcopy', ['--connections=4', unixUri, target]);
  t.true((await readFile(target)).equals(image));
});

test('qemu-img knows the size, writes, compares, maps and reads', async (t) => {
  if (!requireTool(t, ['qemu-img'])) return;
  const { device, uri, directory } = await serveDevice(t);
  const image = Buffer.alloc(16 * MiB);
  randomBytes(2 * MiB).copy(image, 4 * MiB);
  const source = join(directory, 'source');
  const target = join(directory, 'target');
  await writeFile(source, image);
  const info = JSON.parse(await succeed(t, 'qemu-img', ['info', '--output=json', uri])) as unknown;
  t.like(info, { 'virtual-size': 16 * MiB, format: 'raw' });
  const raw = ['-f', 'raw', '-O', 'raw'];
  await succeed(t, 'qemu-img', ['convert', '-n', ...raw, source, uri]);
  t.true(device.contents().equals(image));
  await succeed(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, uri]);
  const map = JSON.parse(await succeed(t, 'qemu-img', ['map', '-f', 'raw', '--output=json', uri])) as unknown;
  t.like(map, [
    { start: 0, length: 4 * MiB, data: false, zero: true },
    { start: 4 * MiB, length: 2 * MiB, data: true, zero: false },
    { start: 6 * MiB, length: 10 * MiB, data: false, zero: true },
  ]);
  await succeed(t, 'qemu-img', ['convert', ...raw, uri, target]);
  t.true((await readFile(target)).equals(image));
});

test('qemu-io writes with FUA, discards, zeroes and verifies', async (t) => {
  if (!requireTool(t, ['qemu-io'])) return;
  const { device, unixUri } = await serveDevice(t);
  const commands = [
    'write -f -P 0xab 512 1M',
    'read -P 0xab 512 1M',
    'discard 4k 64k',
    'write -z 128k 64k',
    'write -z -u 256k 64k',
    'read -P 0 128k 64k',
    'read -P 0 256k 64k',
    'aio_write -P 0xcd 2M 3M',
    'aio_flush',
    'flush',
    'read -P 0xcd 2M 3M',
  ].flatMap((command) => ['-c', command]);
  const out = await succeed(t, 'qemu-io', ['-f', 'raw', ...commands, unixUri]);
  t.false(out.includes('Pattern verification failed'), out);
  const calls = device.calls.map((call) => JSON.stringify(call));
  t.true(calls.includes(JSON.stringify({ kind: 'write', offsetBytes: 512, lengthBytes: MiB, fua: true })));
  t.true(calls.includes(JSON.stringify({ kind: 'trim', offsetBytes: 4096, lengthBytes: 65536, fua: false })));
  t.true(device.calls.some((call) => call.kind === 'writeZeroes' && call.noHole));
  t.true(device.calls.some((call) => call.kind === 'writeZeroes' && !call.noHole));
  t.true(device.calls.some((call) => call.kind === 'flush'));
});

test('qemu-io gets the error of the device and goes on', async (t) => {
  if (!requireTool(t, ['qemu-io'])) return;
  const { device, uri } = await serveDevice(t);
  device.fail = (call) => (call.kind === 'write' && call.offsetBytes === 0 ? 'ENOSPC' : null);
  const commands = ['write 0 4k', 'write -P 0x11 8k 4k', 'read -P 0x11 8k 4k'].flatMap((c) => ['-c', c]);
  const { stdout, stderr } = await runTool('qemu-io', ['-f', 'raw', ...commands, uri]);
  t.regex(`${stdout}${stderr}`, /No space left on device/);
  t.true(device.contents(8192, 4096).equals(Buffer.alloc(4096, 0x11)));
});

async function fio(t: ExecutionContext, served: ServedDevice, args: readonly string[]): Promise<void> {
  await succeed(t, 'fio', [
    '--name=verify',
    '--ioengine=nbd',
    `--uri=${served.unixUri}`,
    `--directory=${served.directory}`,
    '--verify=crc32c',
    '--verify_fatal=1',
    '--verify_state_save=0',
    ...args,
  ]);
}

test('fio verifies what it wrote at random, 4 KiB at depth 32', async (t) => {
  if (!requireTool(t, ['fio'])) return;
  const served = await serveDevice(t);
  await fio(t, served, ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--size=8M']);
});

test('fio verifies mixed sizes with trims and flushes, completions out of turn', async (t) => {
  if (!requireTool(t, ['fio'])) return;
  const device = new MemoryDevice(16 * MiB);
  device.asynchronous = true;
  const served = await serveDevice(t, { device });
  await fio(t, served, ['--rw=randwrite', '--bsrange=512-256k', '--iodepth=16', '--size=8M', '--fsync=8']);
  t.true(device.calls.some((call) => call.kind === 'flush'));
});

test('nbd-client -l lists the exports', async (t) => {
  if (!requireTool(t, ['nbd-client'])) return;
  const { tcp } = await serveDevice(t);
  const { stdout, stderr } = await runTool('nbd-client', ['-l', '127.0.0.1', String(tcp.port)]);
  t.regex(`${stdout}${stderr}`, /r0/);
  t.regex(`${stdout}${stderr}`, /standby/);
});

/** Runs a script in Debian's Python with libnbd; `h` is a handle, not connected yet. */
async function libnbd(t: ExecutionContext, script: readonly string[]): Promise<string | null> {
  const python = '/usr/bin/python3';
  if (!requireTool(t, [python.slice('/usr/bin/'.length)])) return null;
  const probe = await runTool(python, ['-c', 'import nbd']);
  if (!requirePresent(t, probe.status === 0, 'libnbd for Python')) return null;
  const prelude = ['import nbd, errno', 'h = nbd.NBD()', 'h.add_meta_context("base:allocation")'];
  return succeed(t, python, ['-c', [...prelude, ...script].join('\n')]);
}

const everyCommand = [
  'assert h.get_size() == 16 << 20',
  'h.pwrite(b"x" * 5000, 12345, nbd.CMD_FLAG_FUA)',
  'assert h.pread(5002, 12344) == b"\\0" + b"x" * 5000 + b"\\0"',
  'h.pwrite(b"y" * (32 << 20 >> 2), 0)',
  'assert h.pread(32 << 20 >> 2, 0) == b"y" * (32 << 20 >> 2)',
  'h.flush()',
  'h.cache(1 << 20, 0)',
  'h.trim(64 << 10, 0, nbd.CMD_FLAG_FUA)',
  'h.zero(100, 1 << 20, nbd.CMD_FLAG_NO_HOLE)',
  'assert h.pread(102, (1 << 20) - 1) == b"y" + b"\\0" * 100 + b"y"',
  'h.zero(1 << 20, 2 << 20, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)',
  'assert h.pread(1 << 20, 2 << 20) == b"\\0" * (1 << 20)',
];

test('libnbd: every command over structured replies', async (t) => {
  const { uri } = await serveDevice(t);
  const out = await libnbd(t, [
    `h.connect_uri("${uri}")`,
    'assert h.get_structured_replies_negotiated()',
    ...everyCommand,
    'chunks = []',
    'f = lambda data, offset, status, err: chunks.append((offset, len(data)))',
    'whole = h.pread_structured(65536, 0, f, nbd.CMD_FLAG_DF)',
    'assert whole == h.pread(65536, 0) and chunks == [(0, 65536)], chunks',
    'seen = []',
    'h.block_status(16 << 20, 0, lambda c, o, e, err: seen.append((c, o, e)))',
    'assert seen[0][0] == "base:allocation" and seen[0][1] == 0, seen',
    'assert sum(seen[0][2][0::2]) == 16 << 20, seen',
    'one = []',
    'h.block_status(1 << 20, 0, lambda c, o, e, err: one.append(e), nbd.CMD_FLAG_REQ_ONE)',
    'assert len(one) == 1 and one[0] == [64 << 10, 3], one',
    'h.shutdown()',
    'print("done")',
  ]);
  if (out !== null) t.is(out.trim(), 'done');
});

test('libnbd: every command over simple replies', async (t) => {
  const { uri } = await serveDevice(t);
  const out = await libnbd(t, [
    'h.set_request_structured_replies(False)',
    `h.connect_uri("${uri}")`,
    'assert not h.get_structured_replies_negotiated()',
    'assert not h.can_df()',
    ...everyCommand,
    'h.shutdown()',
    'print("done")',
  ]);
  if (out !== null) t.is(out.trim(), 'done');
});

test('libnbd: errors leave the connection usable', async (t) => {
  const { device, tcp } = await serveDevice(t);
  device.fastZero = false;
  device.fail = (call) => (call.kind === 'read' && call.offsetBytes === 4096 ? 'EIO' : null);
  const out = await libnbd(t, [
    'h.set_strict_mode(0)',
    'def expect(code, f):',
    '  try:',
    '    f()',
    '  except nbd.Error as e:',
    '    assert e.errno == code, (code, e)',
    '  else:',
    '    assert False, code',
    `h.connect_uri("nbd://127.0.0.1:${tcp.port}/r0")`,
    'size = h.get_size()',
    'expect("EINVAL", lambda: h.pread(512, size))',
    'expect("EINVAL", lambda: h.pread(512, (1 << 63) - 1))',
    'expect("ENOSPC", lambda: h.pwrite(b"x" * 512, size - 511))',
    'expect("ENOSPC", lambda: h.zero(512, size))',
    'expect("EINVAL", lambda: h.trim(512, size))',
    'expect("EINVAL", lambda: h.pread(512, 0, 0x8000))',
    'expect("EINVAL", lambda: h.pwrite(b"x" * 512, 0, 0x8000))',
    'expect("EIO", lambda: h.pread(512, 4096))',
    'expect("ENOTSUP", lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))',
    'h.zero(512, 0)',
    'assert h.pread(512, 0) == b"\\0" * 512',
    'h.shutdown()',
    'r = nbd.NBD()',
    'r.set_strict_mode(0)',
    `r.connect_uri("nbd://127.0.0.1:${tcp.port}/ro")`,
    'assert r.is_read_only()',
    'expect("EPERM", lambda: r.pwrite(b"x" * 512, 0))',
    'expect("EPERM", lambda: r.trim(512, 0))',
    'expect("EPERM", lambda: r.zero(512, 0))',
    'assert len(r.pread(512, 0)) == 512',
    'r.shutdown()',
    'print("done")',
  ]);
  if (out !== null) t.is(out.trim(), 'done');
});

test('libnbd: option mode, many INFO before GO, ABORT', async (t) => {
  const { tcp } = await serveDevice(t);
  const out = await libnbd(t, [
    'h.set_opt_mode(True)',
    `h.connect_tcp("127.0.0.1", "${tcp.port}")`,
    'names = []',
    'h.opt_list(lambda name, description: names.append((name, description)))',
    'assert names[0] == ("r0", "test export r0"), names',
    'contexts = []',
    'h.set_export_name("r0")',
    'h.opt_list_meta_context(lambda name: contexts.append(name))',
    'assert contexts == ["base:allocation"], contexts',
    'h.set_export_name("nothing")',
    'try:',
    '  h.opt_info()',
    '  assert False',
    'except nbd.Error as e:',
    '  assert e.errno == "ENOENT", e',
    'h.set_export_name("standby")',
    'try:',
    '  h.opt_go()',
    '  assert False',
    'except nbd.Error as e:',
    '  assert e.errno == "ENOTSUP", e',
    'h.set_export_name("r0")',
    'h.opt_info()',
    'first = h.get_size()',
    'h.opt_info()',
    'assert h.get_size() == first == 16 << 20',
    'h.opt_abort()',
    'print("done")',
  ]);
  if (out !== null) t.is(out.trim(), 'done');
});

test('libnbd: 64 requests in flight complete out of order', async (t) => {
  const device = new MemoryDevice(16 * MiB);
  device.asynchronous = true;
  const { unixUri } = await serveDevice(t, { device });
  const out = await libnbd(t, [
    `h.connect_uri("${unixUri}")`,
    'def wait(cookies):',
    '  for c in cookies:',
    '    while not h.aio_command_completed(c):',
    '      h.poll(-1)',
    'wait([h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i + 1] * 100003)), i * 100003)',
    '  for i in range(64)])',
    'buffers = [nbd.Buffer(100003) for i in range(64)]',
    'wait([h.aio_pread(buffers[i], i * 100003) for i in range(64)])',
    'for i in range(64):',
    '  assert buffers[i].to_bytearray() == bytearray([i + 1] * 100003), i',
    'h.shutdown()',
    'print("done")',
  ]);
  if (out !== null) t.is(out.trim(), 'done');
});
