/** The kernel harness itself, proven against a server that is not ours: nbdkit. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { testWith, toolPath } from '../support/needs.ts';
import { verifyFlow, writeFlow } from './ext4-flow.ts';
import { bootGuest, guestNeeds } from './guest.ts';

const exportName = 'r0';

testWith([...guestNeeds, 'nbdkit'], 'guest: ext4 on nbdkit survives detach and attach', async (t) => {
  const port = await startNbdkit(t, 64 * 1024 * 1024);
  const guest = await bootGuest(t);
  const checksums = await writeFlow(guest, port, exportName);
  t.is(checksums.trim().split('\n').length, 12);
  await verifyFlow(guest, port, exportName, checksums);

  const wrong = checksums.replaceAll(/^./gm, (digit) => (digit === '0' ? '1' : '0'));
  await t.throwsAsync(verifyFlow(guest, port, exportName, wrong), { message: /small\/deep\/1: FAILED/ });
});

testWith(guestNeeds, 'guest: status and output of scripts come back in order, byte by byte', async (t) => {
  const guest = await bootGuest(t);
  const long = guest.run('seq 1 20000; exit 3');
  const none = guest.run('true');
  const binary = guest.run(`printf 'no newline at the end'; printf ' nor on stderr' >&2; kill -9 $$`);
  const { status, output } = await long;
  t.is(status, 3);
  t.is(output, Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join(''));
  t.deepEqual(await none, { status: 0, output: '' });
  const last = await binary;
  t.is(last.status, 137);
  t.regex(last.output, /^no newline at the end nor on stderr/);

  await t.throwsAsync(guest.run('sleep 100', 1), { message: /not done after 1 ms: sleep 100/ });
  await t.throwsAsync(guest.run('true'), { message: /not done after 1 ms/ });
});

/** One nbdkit per connection, spoken to through its standard input and output, all on one file. */
async function startNbdkit(t: ExecutionContext, sizeBytes: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-nbdkit-'));
  const image = join(folder, 'image');
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  const ended: Promise<unknown>[] = [];
  const server = createServer((socket) => {
    const child = spawn(toolPath('nbdkit'), ['--single', 'file', image], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    ended.push(once(child, 'close'));
    socket.on('error', () => child.kill('SIGKILL'));
    child.stdin.on('error', () => socket.destroy());
    socket.pipe(child.stdin);
    child.stdout.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(async () => {
    server.close();
    // The guest is gone by now (teardowns run backwards), so every connection ends by itself.
    await Promise.all(ended);
    rmSync(folder, { recursive: true, force: true });
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
