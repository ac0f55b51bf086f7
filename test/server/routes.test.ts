/** The routes of the control API over a fake data plane: what they pass on and what they answer. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { refuse } from '../../replicator/core/refusal.ts';
import { CommandTimeout } from '../../server/data-plane/data-plane.ts';
import { mirroredBody, testApp } from '../support/test-app.ts';

test('PUT: defines with 201, repeats with 200, starts once', async (t) => {
  const { send, plane, store } = await testApp(t);
  const first = await send('PUT', '/v1/resources/r0', mirroredBody);
  t.is(first.statusCode, 201);
  t.like(first.json(), { name: 'r0', size: 1024 ** 3, role: 'Secondary', suspended: false, error: null });
  const again = await send('PUT', '/v1/resources/r0', { ...mirroredBody, size: 1024 ** 3 });
  t.is(again.statusCode, 200);
  t.is(plane.started.length, 1);
  t.is(store.definition('r0')?.sizeBytes, 1024 ** 3);
});

test('PUT: a conflicting definition is already-exists, names the keys and no values', async (t) => {
  const { send } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const other = {
    ...mirroredBody,
    size: '2GiB',
    replication: { ...mirroredBody.replication, secret: 'another secret' },
  };
  const answer = await send('PUT', '/v1/resources/r0', other);
  t.is(answer.statusCode, 409);
  t.like(answer.json(), { code: 'already-exists', status: 409 });
  t.regex(answer.body, /size, replication\.secret/);
  t.notRegex(answer.body, /very secret|another secret/);
});

test('PUT: what cannot start is refused and leaves no definition', async (t) => {
  const { send, plane, store } = await testApp(t);
  plane.startRefusal = { code: 'backing-missing', reason: 'there is no /x', nextStep: 'Create it.' };
  const answer = await send('PUT', '/v1/resources/r0', { size: 4096, backing: { path: '/x' } });
  t.is(answer.statusCode, 409);
  t.like(answer.json(), { code: 'backing-missing', detail: 'there is no /x. Create it.' });
  t.is(store.definition('r0'), null);
  t.deepEqual(plane.stopped, ['r0']);
});

test('PUT: a definition that cannot be stored leaves nothing running', async (t) => {
  const { send, plane, store } = await testApp(t);
  store.save = () => {
    throw new Error('the disk is full');
  };
  t.is((await send('PUT', '/v1/resources/r0', mirroredBody)).statusCode, 500);
  t.is(plane.started.length, 1);
  t.is(plane.status('r0'), null);
});

test('PUT: two at once for one name define it once', async (t) => {
  const { send, plane } = await testApp(t);
  const answers = await Promise.all([1, 2].map(() => send('PUT', '/v1/resources/r0', mirroredBody)));
  t.deepEqual(answers.map((answer) => answer.statusCode).sort(), [200, 201]);
  t.is(plane.started.length, 1);
});

test('GET: list by name, one by name, not-found for others', async (t) => {
  const { send } = await testApp(t);
  await send('PUT', '/v1/resources/b', { size: 4096 });
  await send('PUT', '/v1/resources/a', { size: 8192 });
  const list = (await send('GET', '/v1/resources')).json<{ name: string }[]>();
  t.deepEqual(
    list.map((status) => status.name),
    ['a', 'b'],
  );
  t.like((await send('GET', '/v1/resources/a')).json(), { name: 'a', role: 'Primary', peers: [] });
  const missing = await send('GET', '/v1/resources/c');
  t.is(missing.statusCode, 404);
  t.like(missing.json(), { code: 'not-found' });
});

test('status: has every field of the contract', async (t) => {
  const { send } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const status = (await send('GET', '/v1/resources/r0')).json<Record<string, unknown>>();
  for (const key of [
    'name',
    'size',
    'role',
    'diskState',
    'suspended',
    'nbd',
    'peers',
    'generation',
    'splitBrain',
    'io',
    'backing',
  ]) {
    t.true(key in status, key);
  }
  t.is(typeof status['suspended'], 'boolean');
  t.like(status['nbd'], {
    uri: 'nbd://127.0.0.1:10809/r0',
    listen: '127.0.0.1:10809',
    unix: null,
    clients: 0,
  });
  t.like((status['peers'] as object[])[0], {
    name: 'beta',
    address: '127.0.0.1:7799',
    connection: 'Connected',
    replication: 'Established',
    role: 'Secondary',
    diskState: 'UpToDate',
    outOfSyncBytes: 0,
    sync: null,
  });
});

const commands: readonly (readonly [string, object | undefined, object])[] = [
  ['promote', undefined, { kind: 'promote', force: false, dryRun: false }],
  ['promote', { force: true }, { kind: 'promote', force: true, dryRun: false }],
  ['promote?dryRun=true', {}, { kind: 'promote', force: false, dryRun: true }],
  ['demote', { force: true }, { kind: 'demote', force: true, dryRun: false }],
  ['demote?dryRun', undefined, { kind: 'demote', force: false, dryRun: true }],
  ['failover', undefined, { kind: 'failover', force: false, dryRun: false }],
  ['failover?dryRun=true', { force: true }, { kind: 'failover', force: true, dryRun: true }],
  ['connect', undefined, { kind: 'connect', discardMyData: false, dryRun: false }],
  ['connect?dryRun=true', { discardMyData: true }, { kind: 'connect', discardMyData: true, dryRun: true }],
  ['disconnect', undefined, { kind: 'disconnect' }],
  ['attach', undefined, { kind: 'attach' }],
  ['detach', undefined, { kind: 'detach', force: false }],
  ['detach', { force: true }, { kind: 'detach', force: true }],
  ['resync', { action: 'pause' }, { kind: 'resync', action: 'pause' }],
  ['resync', { action: 'invalidate-peer' }, { kind: 'resync', action: 'invalidate-peer' }],
  ['verify', { action: 'start' }, { kind: 'verify', action: 'start', repair: true }],
  ['verify', { action: 'start', repair: false }, { kind: 'verify', action: 'start', repair: false }],
  ['verify', { action: 'stop' }, { kind: 'verify', action: 'stop', repair: true }],
  ['resize', { size: '2GiB' }, { kind: 'resize', sizeBytes: 2 * 1024 ** 3 }],
];
for (const [url, body, expected] of commands) {
  test(`POST ${url} ${JSON.stringify(body ?? null)}: passes ${JSON.stringify(expected)}`, async (t) => {
    const { send, plane } = await testApp(t);
    await send('PUT', '/v1/resources/r0', mirroredBody);
    const answer = await send('POST', `/v1/resources/r0/${url}`, body);
    t.is(answer.statusCode, 200, answer.body);
    t.deepEqual(plane.commands as unknown[], [{ name: 'r0', command: expected }]);
    t.like(answer.json(), { givenUp: [], status: { name: 'r0' } });
    t.regex(answer.json<{ message: string }>().message, /^Did /);
  });
}

test('POST: a refusal is 409 with its code, reason and next step', async (t) => {
  const { send, plane } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.answer = () => refuse('peer-may-be-primary', 'beta is out of reach', 'Check beta, then use force.');
  const answer = await send('POST', '/v1/resources/r0/promote');
  t.is(answer.statusCode, 409);
  t.is(answer.headers['content-type'], 'application/problem+json');
  t.like(answer.json(), {
    code: 'peer-may-be-primary',
    status: 409,
    detail: 'beta is out of reach. Check beta, then use force.',
    nextStep: 'Check beta, then use force.',
    instance: '/v1/resources/r0/promote',
  });
});

test('POST: an empty body is fine with and without a content type', async (t) => {
  const { send, app } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  for (const type of ['application/json', 'application/x-www-form-urlencoded', undefined]) {
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/resources/r0/promote',
      headers: { authorization: 'Bearer a-token-for-tests-only', ...(type ? { 'content-type': type } : {}) },
      payload: '',
    });
    t.is(answer.statusCode, 200, `${type}: ${answer.body}`);
  }
});

test('POST: a data plane that does not answer is command-timeout', async (t) => {
  const { send, plane } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.answer = () => Promise.reject(new CommandTimeout('no answer within 60 s'));
  const answer = await send('POST', '/v1/resources/r0/promote');
  t.is(answer.statusCode, 504);
  t.like(answer.json(), { code: 'command-timeout' });
});

test('a bug is internal-error; its text goes to the log and not to the client', async (t) => {
  const { send, plane, logged } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.answer = () => Promise.reject(new Error('inner workings'));
  const answer = await send('POST', '/v1/resources/r0/promote');
  t.is(answer.statusCode, 500);
  t.like(answer.json(), { code: 'internal-error' });
  t.notRegex(answer.body, /inner workings/);
  t.true(logged.some((line) => line.includes('inner workings')));
});

test('PATCH: merges policies and says when they take effect', async (t) => {
  const { send, store } = await testApp(t);
  await send('PUT', '/v1/resources/r0', { ...mirroredBody, policies: { onPeerLoss: 'suspend' } });
  const now = await send('PATCH', '/v1/resources/r0', { policies: { pingIntervalMs: 500 } });
  t.is(now.statusCode, 200);
  t.regex(now.body, /are changed/);
  const later = await send('PATCH', '/v1/resources/r0', { policies: { activityLogExtents: 7 } });
  t.regex(later.body, /next time/);
  t.deepEqual(store.definition('r0')?.policies, {
    onPeerLoss: 'suspend',
    pingIntervalMs: 500,
    activityLogExtents: 7,
  });
  const contradicting = await send('PATCH', '/v1/resources/r0', { policies: { peerTimeoutMs: 600 } });
  t.is(contradicting.statusCode, 400);
});

test('PATCH: split-brain policies by their well-known names; a node must be one of the two', async (t) => {
  const { send, store } = await testApp(t);
  const given = { 'after-sb-0pri': 'discard-node-beta', 'after-sb-1pri': 'consensus' } as const;
  await send('PUT', '/v1/resources/r0', { ...mirroredBody, policies: given });
  const changed = await send('PATCH', '/v1/resources/r0', {
    policies: { 'after-sb-2pri': 'call-pri-lost-after-sb' },
  });
  t.is(changed.statusCode, 200);
  const policies = { ...given, 'after-sb-2pri': 'call-pri-lost-after-sb' };
  t.deepEqual(store.definition('r0')?.policies, policies);
  const stranger = await send('PATCH', '/v1/resources/r0', {
    policies: { 'after-sb-0pri': 'discard-node-gamma' },
  });
  t.is(stranger.statusCode, 400);
  t.deepEqual(store.definition('r0')?.policies, policies);
});

test('DELETE: refused while clients are attached, unless forced', async (t) => {
  const { send, plane, store } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const status = plane.status('r0');
  if (!status) return t.fail();
  plane.change('r0', { nbd: { ...status.nbd, clients: 2 } });
  const refused = await send('DELETE', '/v1/resources/r0');
  t.is(refused.statusCode, 409);
  t.like(refused.json(), { code: 'device-in-use' });
  t.truthy(store.definition('r0'));
  const forced = await send('DELETE', '/v1/resources/r0?force=true');
  t.is(forced.statusCode, 200);
  t.is(store.definition('r0'), null);
  t.is(forced.json<{ givenUp: string[] }>().givenUp.length, 1);
  t.is((await send('GET', '/v1/resources/r0')).statusCode, 404);
});

test('DELETE: keeps the data, wipe removes it', async (t) => {
  const { send, directory } = await testApp(t);
  const own = join(directory, 'own.img');
  const kept = join(directory, 'resources', 'r0');
  mkdirSync(kept, { recursive: true });
  writeFileSync(join(kept, 'metadata.db'), 'x');
  writeFileSync(own, 'x');
  const body = { size: 4096, backing: { path: own } };
  await send('PUT', '/v1/resources/r0', body);
  t.is((await send('DELETE', '/v1/resources/r0')).statusCode, 200);
  t.true(existsSync(own) && existsSync(kept));
  await send('PUT', '/v1/resources/r0', body);
  t.is((await send('DELETE', '/v1/resources/r0?wipe=true')).statusCode, 200);
  t.false(existsSync(own) || existsSync(kept));
});

test('DELETE: wiping what may be the last copy needs force', async (t) => {
  const { send, plane, store } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const peers =
    plane.status('r0')?.peers.map((peer) => ({ ...peer, connection: 'Connecting' as const })) ?? [];
  plane.change('r0', { peers });
  const refused = await send('DELETE', '/v1/resources/r0?wipe=true');
  t.like(refused.json(), { code: 'last-copy', status: 409 });
  t.truthy(store.definition('r0'));
  t.is((await send('DELETE', '/v1/resources/r0?wipe=true&force=true')).statusCode, 200);
});

test('decisions: inputs, rule and result as they are kept', async (t) => {
  const { send, plane } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.decisionRecords = [
    {
      kind: 'handshake',
      atMs: 12,
      rule: 'reconnected',
      result: 'no sync',
      inputs: { self: 'aa', bits: 0, new: false },
    },
  ];
  const answer = await send('GET', '/v1/resources/r0/decisions');
  t.deepEqual(answer.json(), plane.decisionRecords);
});

test('node: name, version, uptime, pid', async (t) => {
  const { send } = await testApp(t);
  const node = (await send('GET', '/v1/node')).json<Record<string, unknown>>();
  t.like(node, { name: 'alpha', version: '1.2.3', pid: process.pid, resources: 0 });
  t.true(Number(node['uptimeSeconds']) > 0);
});

test('healthz answers at once, readyz when resources are started', async (t) => {
  const { app, catalog, plane, store, send } = await testApp(t, { start: false });
  const defined = await send('PUT', '/v1/resources/r0', { size: 4096 });
  t.is(defined.statusCode, 201);
  t.truthy(store.definition('r0'));
  let open = () => {};
  plane.gate = new Promise((resolve) => {
    open = resolve;
  });
  const starting = catalog.startAll();
  t.is((await app.inject('/healthz')).statusCode, 200);
  const early = await app.inject('/readyz');
  t.is(early.statusCode, 503);
  t.like(early.json(), { code: 'not-ready' });
  open();
  await starting;
  t.deepEqual((await app.inject('/readyz')).json(), { status: 'ready' });
});

test('a resource that cannot start at node start is listed with its error', async (t) => {
  const { catalog, plane, store, send } = await testApp(t, { start: false });
  await send('PUT', '/v1/resources/r0', { size: 4096 });
  t.truthy(store.definition('r0'));
  plane.startRefusal = { code: 'backing-missing', reason: 'no disk', nextStep: 'Attach it.' };
  await catalog.startAll();
  t.true(catalog.ready);
  t.like((await send('GET', '/v1/resources/r0')).json(), {
    diskState: 'Diskless',
    error: { code: 'backing-missing', reason: 'no disk', nextStep: 'Attach it.' },
  });
});

test('a resize that the data plane reports is kept in the definition', async (t) => {
  const { send, plane, store } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.change('r0', { size: 2 * 1024 ** 3 });
  t.is(store.definition('r0')?.sizeBytes, 2 * 1024 ** 3);
  t.is((await send('PUT', '/v1/resources/r0', { ...mirroredBody, size: '2GiB' })).statusCode, 200);
  // News from before the growth that comes late.
  plane.change('r0', { size: 1024 ** 3 });
  t.is(store.definition('r0')?.sizeBytes, 2 * 1024 ** 3);
});

test('the answer to a resize comes when the definition has the new size', async (t) => {
  const { send, plane, store } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.refresh = (name) => {
    const status = plane.status(name);
    return Promise.resolve(status === null ? null : { ...status, size: 3 * 1024 ** 3 });
  };
  t.is((await send('POST', '/v1/resources/r0/resize', { size: '3GiB' })).statusCode, 200);
  t.is(store.definition('r0')?.sizeBytes, 3 * 1024 ** 3);
});

test('PUT with the size from before a resize: refused, and told which size fits', async (t) => {
  const { send, plane } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  plane.change('r0', { size: 2 * 1024 ** 3 });
  const older = (await send('PUT', '/v1/resources/r0', mirroredBody)).json<{
    code: string;
    detail: string;
  }>();
  t.is(older.code, 'already-exists');
  t.regex(older.detail, /has 2GiB, the request says 1GiB.*Ask for 2GiB/);
  const larger = (await send('PUT', '/v1/resources/r0', { ...mirroredBody, size: '4GiB' })).json<{
    detail: string;
  }>();
  t.regex(larger.detail, /has 2GiB, the request says 4GiB.*\/resize/);
});

test('PUT over kept data that is larger than asked for: refused, and nothing is left running', async (t) => {
  const { send, plane, store } = await testApp(t);
  const start = plane.start.bind(plane);
  plane.start = async (definition) => {
    const result = await start(definition);
    plane.change(definition.name, { size: 2 * 1024 ** 3 });
    return result;
  };
  const refused = await send('PUT', '/v1/resources/r0', mirroredBody);
  t.is(refused.statusCode, 409);
  t.is(refused.json<{ code: string }>().code, 'metadata-foreign');
  t.deepEqual(plane.stopped, ['r0']);
  t.is(store.definition('r0'), null);
});

test('metrics: node and resource, gone with the resource', async (t) => {
  const { send } = await testApp(t);
  await send('PUT', '/v1/resources/r0', mirroredBody);
  const text = (await send('GET', '/metrics')).body;
  t.true(text.includes('lockstep_node_info{node="alpha",version="1.2.3"} 1'));
  t.true(text.includes('lockstep_resource_written_bytes_total{resource="r0"} 8192'));
  t.true(text.includes('lockstep_resource_disk_state{resource="r0",state="UpToDate"} 1'));
  t.true(text.includes('lockstep_peer_out_of_sync_bytes{resource="r0",peer="beta"} 0'));
  const again = (await send('GET', '/metrics')).body;
  t.true(again.includes('lockstep_resource_written_bytes_total{resource="r0"} 8192'), 'totals do not add up');
  await send('DELETE', '/v1/resources/r0');
  t.notRegex((await send('GET', '/metrics')).body, /resource="r0"/);
});

test('the secret appears in no answer and in no log line', async (t) => {
  const { send, logged } = await testApp(t);
  const bodies = [
    (await send('PUT', '/v1/resources/r0', mirroredBody)).body,
    (await send('GET', '/v1/resources')).body,
    (await send('PATCH', '/v1/resources/r0', { policies: {} })).body,
    (await send('GET', '/openapi.json')).body,
    (await send('PUT', '/v1/resources/r1', { ...mirroredBody, peers: [] })).body,
  ];
  for (const text of [...bodies, ...logged]) t.false(text.includes('the very secret'), text);
});
