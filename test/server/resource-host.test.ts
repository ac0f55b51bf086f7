/** A resource in a data plane: its node and the NBD server in front of it, with both ends faked. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { refuse } from '../../replicator/core/refusal.ts';
import { ResourceHost } from '../../server/data-plane/resource-host.ts';
import { defineResource } from '../../server/definition.ts';
import type { ResourceBody, ResourceDefinition } from '../../server/schemas/resource-definition.ts';
import type { ResourceStatus } from '../../server/schemas/status.ts';
import { FakeParts, secondary } from '../support/fake-parts.ts';
import { mirroredBody, temporaryDirectory } from '../support/test-app.ts';

function hosted(t: ExecutionContext, body: ResourceBody, parts = new FakeParts()) {
  const dataDirectory = temporaryDirectory(t);
  const reports: ResourceStatus[] = [];
  const panics: string[] = [];
  const host = new ResourceHost(definition(body), {
    nodeName: 'alpha',
    dataDirectory,
    parts,
    report: (status) => reports.push(status),
    log: () => undefined,
    panic: (text) => panics.push(text),
  });
  return { host, parts, reports, panics, dataDirectory };
}

function definition(body: ResourceBody): ResourceDefinition {
  const checked = defineResource('r0', body, 'alpha');
  if (!checked.ok) throw new Error(checked.mistakes.map((mistake) => mistake.message).join());
  return checked.value;
}

test('a plain resource is promoted at start, on a socket and files of the data directory', async (t) => {
  const { host, parts, dataDirectory } = hosted(t, { size: 8192 });
  t.is(await host.start(), null);
  t.deepEqual(parts.commands, [{ kind: 'promote', force: false, dryRun: false }]);
  const directory = join(dataDirectory, 'resources', 'r0');
  t.like(parts.opened[0], {
    resourceName: 'r0',
    backing: { path: join(directory, 'data.img'), create: true },
    metadataPath: join(directory, 'metadata.db'),
    replication: null,
    core: { nodeName: 'alpha', peerName: null, sizeBytes: 8192, activityLogExtents: 1237 },
  });
  t.deepEqual(parts.events, [`listening on ${join(directory, 'nbd.sock')}`, 'node opened']);
  const { uri } = host.status().nbd;
  t.is(uri, `nbd+unix:///r0?socket=${join(directory, 'nbd.sock')}`);
});

test('a mirrored resource stays Secondary; policies, addresses and the secret reach its node', async (t) => {
  const { host, parts } = hosted(t, {
    ...mirroredBody,
    backing: { path: '/dev/null' },
    nbd: { listen: '0.0.0.0:0' },
    policies: { activityLogExtents: 7, connectIntervalMs: 77, onPeerLoss: 'suspend' },
  });
  t.is(await host.start(), null);
  t.deepEqual(parts.commands, []);
  t.like(parts.opened[0], {
    backing: { path: '/dev/null', create: false },
    core: { peerName: 'beta', protocol: 'C', activityLogExtents: 7, onPeerLoss: 'suspend' },
    replication: {
      listen: { host: '127.0.0.1', port: 7789 },
      peerAddress: { host: '127.0.0.1', port: 7799 },
      secret: 'the very secret',
      connectIntervalMs: 77,
      probeTimeoutMs: 1000,
    },
  });
  t.like(host.status().nbd, { listen: '0.0.0.0:4711', uri: 'nbd://127.0.0.1:4711/r0' });
});

test('clients are let in while the node serves, and refused with the reason otherwise', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  const open = (name: string) => parts.fronts[0]?.source.open(name);
  await host.start();
  t.deepEqual(parts.fronts[0]?.source.list(), [{ name: 'r0', description: '' }]);
  t.deepEqual(open('other'), { kind: 'unknown' });
  t.regex(JSON.stringify(open('r0')), /refused.*Secondary on alpha, and no Primary is known/);
  parts.status = {
    ...secondary,
    peer: {
      connection: 'Connected',
      replication: 'Established',
      role: 'Primary',
      diskState: 'UpToDate',
      outOfSyncBytes: 0,
      sync: null,
      verify: null,
      lastError: null,
    },
  };
  t.regex(JSON.stringify(open('r0')), /Secondary on alpha; the Primary is beta/);
  parts.hooks?.serveClients(true);
  t.is(open('r0')?.kind, 'export');
  t.is(open('')?.kind, 'export');
  t.false(parts.events.includes('clients disconnected'));
  parts.hooks?.serveClients(false);
  t.is(open('r0')?.kind, 'refused');
  t.true(parts.events.includes('clients disconnected'));
});

test('serving that began while the node was opened counts once it is open', async (t) => {
  const parts = new FakeParts();
  const open = parts.openResourceNode.bind(parts);
  parts.openResourceNode = async (options, hooks) => {
    hooks.serveClients(true);
    t.is(parts.fronts[0]?.source.open('r0').kind, 'refused');
    return open(options, hooks);
  };
  const { host } = hosted(t, mirroredBody, parts);
  await host.start();
  t.is(parts.fronts[0]?.source.open('r0').kind, 'export');
});

test('the number of clients reaches the node and the status', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  await host.start();
  parts.fronts[0]?.onClientCount(3);
  t.is(parts.clientCount, 3);
  t.is(host.status().nbd.clients, 3);
});

test('changes within one turn are reported once', async (t) => {
  const { host, parts, reports } = hosted(t, mirroredBody);
  await host.start();
  await new Promise((resolve) => setImmediate(resolve));
  reports.length = 0;
  for (let change = 0; change < 5; change++) parts.hooks?.statusChanged();
  t.is(reports.length, 0);
  await new Promise((resolve) => setImmediate(resolve));
  t.is(reports.length, 1);
});

test('status: generations as 16 hex digits, suspension as a flag with reasons', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  parts.status = { ...secondary, suspended: ['no-data'], splitBrain: true };
  await host.start();
  t.like(host.status(), {
    suspended: true,
    suspendReasons: ['no-data'],
    splitBrain: true,
    generation: { current: '0000000000000abc', bitmap: '0000000000000000', history: ['0000000000000001'] },
    error: null,
  });
});

test('a refused node leaves the resource down with its reason; commands say so; attach tries again', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  parts.refusal = { code: 'backing-missing', reason: 'no /x', nextStep: 'Make it.' };
  t.is((await host.start())?.code, 'backing-missing');
  t.true(parts.events.includes('front closed'));
  t.like(host.status(), { diskState: 'Diskless', role: 'Secondary', error: { code: 'backing-missing' } });
  t.like(await host.command({ kind: 'disconnect' }), {
    ok: false,
    refusal: { code: 'backing-missing', nextStep: 'Make it. Then use attach.' },
  });
  t.like(await host.command({ kind: 'attach' }), { ok: false });
  parts.refusal = null;
  t.like(await host.command({ kind: 'attach' }), { ok: true });
  t.is(host.status().error, null);
  t.like(await host.command({ kind: 'disconnect' }), { ok: true, message: 'Did disconnect.' });
});

test('a taken address is address-in-use, and no node is opened', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  parts.listenError = Object.assign(new Error('listen EADDRINUSE: address already in use'), {
    code: 'EADDRINUSE',
  });
  const fault = await host.start();
  t.is(fault?.code, 'address-in-use');
  t.regex(fault?.reason ?? '', /127\.0\.0\.1:10809/);
  t.deepEqual(parts.opened, []);
});

test('TLS files that are missing are tls-unusable', async (t) => {
  const { host } = hosted(t, { size: 8192, nbd: { tls: { certFile: '/none.pem', keyFile: '/none.key' } } });
  t.is((await host.start())?.code, 'tls-unusable');
});

test('TLS files that are no certificate are tls-unusable, and nothing is listened on', async (t) => {
  const file = join(temporaryDirectory(t), 'x.pem');
  writeFileSync(file, 'garbage');
  const { host, parts } = hosted(t, { size: 8192, nbd: { tls: { certFile: file, keyFile: file } } });
  t.is((await host.start())?.code, 'tls-unusable');
  t.deepEqual(parts.events, []);
});

test('a start that throws is a fault of this resource only', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  parts.openResourceNode = () => Promise.reject(new Error('surprise'));
  t.regex((await host.start())?.reason ?? '', /surprise/);
  t.is(parts.events.at(-1), 'front closed');
});

test('stop ends the node, then the front, and waits for a start under way', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  let open = () => {};
  parts.gate = new Promise((resolve) => {
    open = resolve;
  });
  const starting = host.start();
  const stopping = host.stop();
  open();
  await Promise.all([starting, stopping]);
  t.deepEqual(parts.events.slice(-3), ['node opened', 'node stopped', 'front closed']);
  t.like(await host.command({ kind: 'disconnect' }), { ok: false });
});

test('a refusal of the node passes through', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  await host.start();
  parts.answer = () => refuse('peer-is-primary', 'beta is Primary', 'Use failover.');
  t.like(await host.command({ kind: 'promote', force: false, dryRun: false }), {
    refusal: { code: 'peer-is-primary' },
  });
});

test('new policies are in force at once, but for those a resource is opened with', async (t) => {
  const { host, parts } = hosted(t, mirroredBody);
  await host.start();
  t.is(host.configure(definition({ ...mirroredBody, policies: { onPeerLoss: 'suspend' } })), 'applied');
  t.like(parts.configured.at(-1), { onPeerLoss: 'suspend', pingIntervalMs: 1000 });
  const policies = { 'after-sb-1pri': 'discard-secondary' } as const;
  t.is(host.configure(definition({ ...mirroredBody, policies })), 'applied');
  t.like(parts.configured.at(-1), { ...policies, 'after-sb-0pri': 'disconnect' });
  const next = { onPeerLoss: 'suspend', activityLogExtents: 7, pingIntervalMs: 500 } as const;
  t.is(host.configure(definition({ ...mirroredBody, policies: next })), 'next-start');
  t.like(parts.configured.at(-1), { onPeerLoss: 'suspend', pingIntervalMs: 500 });
});
