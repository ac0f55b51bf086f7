/** STARTTLS with certificates made by openssl, over our client and others. */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { connectNbd, NbdHaggling } from '../../nbd/client.ts';
import { createNbdServer } from '../../nbd/server.ts';
import { createAuthority, createCertificate } from '../support/certificates.ts';
import type { Certificate } from '../support/certificates.ts';
import { hex } from '../support/conversation.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { serveDevice, sourceOf, temporaryDirectory } from '../support/nbd-server.ts';
import { RawClient } from '../support/raw-client.ts';
import { requireTool, runTool } from '../support/tools.ts';

interface Material {
  readonly directory: string;
  readonly ca: Certificate;
  readonly server: Certificate;
  readonly client: Certificate;
  readonly strangerCa: Certificate;
  readonly stranger: Certificate;
}

async function material(t: ExecutionContext): Promise<Material> {
  const directory = await temporaryDirectory(t);
  const [ca, strangerCa] = await Promise.all([
    createAuthority(directory, 'ca'),
    createAuthority(directory, 'stranger-ca'),
  ]);
  const [server, client, stranger] = await Promise.all([
    createCertificate(directory, 'ca', 'server'),
    createCertificate(directory, 'ca', 'client'),
    createCertificate(directory, 'stranger-ca', 'stranger'),
  ]);
  return { directory, ca, server, client, strangerCa, stranger };
}

test('a client over TLS reads and writes, also more than one record', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server } = await material(t);
  const { tcp } = await serveDevice(t, { tls: { ...server, required: true } });
  const client = await connectNbd({ address: tcp, tls: { caPem: ca.certPem } });
  const data = Buffer.alloc(3_000_000, 'lockstep');
  await client.write(100, data, { fua: true });
  t.true((await client.read(100, data.length)).equals(data));
  t.is(client.mode, 'extended');
  await client.disconnect();
});

test('requests that waited on a TLS connection that is gone do not land over newer data', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server: certificate } = await material(t);
  const tls = { ...certificate, required: true };
  const { tcp, server, device } = await serveDevice(t, { tls, limits: { maxRequestsInFlight: 1 } });
  device.hold = (call) => call.kind === 'write' && call.offsetBytes === 0;
  const before = await connectNbd({ address: tcp, tls: { caPem: ca.certPem } });
  const lost = [0, 4096].map((offset) => t.throwsAsync(before.write(offset, Buffer.from('old'))));
  await device.arrived(1);
  before.destroy();
  await Promise.all([before.closed, ...lost]);
  const after = await connectNbd({ address: tcp, tls: { caPem: ca.certPem } });
  await after.write(4096, Buffer.from('new'));
  device.releaseAll();
  await after.disconnect();
  await server.disconnectClients();
  t.is(device.contents(4096, 3).toString(), 'new');
});

test('a server that requires TLS serves no client without', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { server } = await material(t);
  const { tcp, device } = await serveDevice(t, { tls: { ...server, required: true } });
  await t.throwsAsync(connectNbd({ address: tcp }), { message: 'this server requires TLS' });
  t.deepEqual(device.calls, []);
});

test('a server with optional TLS serves clients either way', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server } = await material(t);
  const { tcp, device } = await serveDevice(t, { tls: { ...server, required: false } });
  for (const tls of [{}, { tls: { caPem: ca.certPem } }]) {
    const client = await connectNbd({ address: tcp, ...tls });
    await client.flush();
    await client.disconnect();
  }
  t.is(device.calls.length, 2);
});

test('our client refuses a server whose certificate it does not trust', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { server, strangerCa } = await material(t);
  const { tcp } = await serveDevice(t, { tls: { ...server, required: true } });
  await t.throwsAsync(connectNbd({ address: tcp, tls: { caPem: strangerCa.certPem } }));
});

test('client certificates: ours is let in, none and a stranger are not', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server, client, stranger } = await material(t);
  const tls = { ...server, caPem: ca.certPem, requireClientCert: true, required: true };
  const { tcp, device } = await serveDevice(t, { tls });
  await t.throwsAsync(connectNbd({ address: tcp, tls: { caPem: ca.certPem } }));
  await t.throwsAsync(connectNbd({ address: tcp, tls: { caPem: ca.certPem, ...stranger } }));
  t.deepEqual(device.calls, []);
  const served = await connectNbd({ address: tcp, tls: { caPem: ca.certPem, ...client } });
  await served.flush();
  await served.disconnect();
});

test('client certificates cannot be required without an authority', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { server } = await material(t);
  const source = sourceOf(new MemoryDevice(4096));
  t.throws(() => createNbdServer({ source, tls: { ...server, requireClientCert: true, required: true } }), {
    message: /authority/,
  });
});

test('plaintext behind STARTTLS is discarded, not executed after TLS is up', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server } = await material(t);
  const { tcp } = await serveDevice(t, { tls: { ...server, required: true } });
  const plain = await RawClient.connect(t, tcp);
  const startTls = '"IHAVEOPT" 00000005 00000000';
  const injected = '"IHAVEOPT" 00000003 00000000';
  plain.send(hex(`00000003 ${startTls} ${injected}`));
  t.is((await plain.receive(18 + 20)).readUInt32BE(18 + 12), 1);
  plain.socket.removeAllListeners('data');
  const secure = connectTls({ socket: plain.socket, ca: ca.certPem, host: '127.0.0.1' });
  const answer = await new Promise<Buffer>((resolve, reject) => {
    secure.on('error', reject);
    secure.on('data', resolve);
    secure.on('secureConnect', () => {
      secure.write(hex('"IHAVEOPT" 0000004d 00000000'));
    });
  });
  t.is(answer.readUInt32BE(8), 0x4d, 'the first answer is to the first option within TLS');
  secure.destroy();
});

test('garbage instead of a TLS handshake closes that connection alone', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server } = await material(t);
  const { tcp, device } = await serveDevice(t, { tls: { ...server, required: true } });
  const other = await connectNbd({ address: tcp, tls: { caPem: ca.certPem } });
  const bad = await RawClient.connect(t, tcp);
  bad.send(hex('00000003 "IHAVEOPT" 00000005 00000000'));
  await bad.receive(18 + 20);
  bad.send(Buffer.alloc(300, 'x'));
  await bad.closed;
  await other.flush();
  await other.disconnect();
  t.is(device.calls.length, 1);
});

test('clients that vanish in the TLS handshake leave nothing behind', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { server } = await material(t);
  const { tcp, server: nbdServer } = await serveDevice(t, { tls: { ...server, required: true } });
  for (let round = 0; round < 5; round++) {
    const client = await RawClient.connect(t, tcp);
    client.send(hex('00000003 "IHAVEOPT" 00000005 00000000'));
    if (round > 0) await client.receive(18 + 20);
    if (round > 2) client.send(hex('1603010200 010001fc 0303'));
    client.socket.destroy();
    await client.closed;
  }
  const haggling = await NbdHaggling.connect(tcp);
  await haggling.abort();
  await nbdServer.close();
  t.is(nbdServer.connectionCount, 0);
});

test('disconnectClients fences clients over TLS as well', async (t) => {
  if (!requireTool(t, ['openssl'])) return;
  const { ca, server } = await material(t);
  const { tcp, device, server: nbdServer } = await serveDevice(t, { tls: { ...server, required: true } });
  const client = await connectNbd({ address: tcp, tls: { caPem: ca.certPem } });
  device.hold = () => true;
  const write = client.write(0, Buffer.from('abc'));
  await device.arrived(1);
  const gone = nbdServer.disconnectClients();
  device.failAll('ESHUTDOWN');
  await t.throwsAsync(write, { code: 'ESHUTDOWN' });
  await Promise.all([gone, client.closed]);
  t.is(nbdServer.clientCount, 0);
});

/** A directory as libnbd and QEMU want it. */
async function clientDirectory({ directory, client }: Material): Promise<string> {
  const pki = join(directory, 'pki');
  await mkdir(pki);
  await copyFile(join(directory, 'ca.pem'), join(pki, 'ca-cert.pem'));
  await writeFile(join(pki, 'client-cert.pem'), client.certPem);
  await writeFile(join(pki, 'client-key.pem'), client.keyPem);
  return pki;
}

test('nbdinfo and nbdcopy over TLS with certificates', async (t) => {
  if (!requireTool(t, ['openssl', 'nbdinfo', 'nbdcopy'])) return;
  const made = await material(t);
  const tls = { ...made.server, caPem: made.ca.certPem, requireClientCert: true, required: true };
  const { tcp, device, directory } = await serveDevice(t, { tls });
  const pki = await clientDirectory(made);
  const uri = `nbds://localhost:${tcp.port}/r0?tls-certificates=${pki}`;
  const info = await runTool('nbdinfo', ['--json', uri]);
  t.is(info.status, 0, info.stderr);
  t.regex(info.stdout, /"TLS": true/);
  const image = join(directory, 'image');
  await writeFile(image, Buffer.alloc(2 * 1024 * 1024, 'secret'));
  const copy = await runTool('nbdcopy', [image, uri]);
  t.is(copy.status, 0, copy.stderr);
  t.true(device.contents(0, 2 * 1024 * 1024).equals(Buffer.alloc(2 * 1024 * 1024, 'secret')));
});

test('qemu-io over TLS with certificates', async (t) => {
  if (!requireTool(t, ['openssl', 'qemu-io'])) return;
  const made = await material(t);
  const tls = { ...made.server, caPem: made.ca.certPem, requireClientCert: true, required: true };
  const { tcp } = await serveDevice(t, { tls });
  const pki = await clientDirectory(made);
  const image = `driver=nbd,host=localhost,port=${tcp.port},export=r0,tls-creds=tls0`;
  const commands = ['write -f -P 0x5a 0 3M', 'read -P 0x5a 0 3M'].flatMap((command) => ['-c', command]);
  const { status, stdout, stderr } = await runTool('qemu-io', [
    ...['--object', `tls-creds-x509,id=tls0,endpoint=client,dir=${pki}`],
    ...commands,
    ...['--image-opts', image],
  ]);
  t.is(status, 0, `${stdout}${stderr}`);
  t.false(stdout.includes('failed'), stdout);
});
