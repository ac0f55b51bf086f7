/** What the control API refuses before any route runs: bad requests, missing tokens, foreign hosts. */
import test from 'ava';
import { mirroredBody, testApp, testToken } from '../support/test-app.ts';

const replication = mirroredBody.replication;
const bad: readonly (readonly [string, object, RegExp])[] = [
  ['no size', {}, /"size" is missing/],
  ['size zero', { size: 0 }, /"size"/],
  ['size negative', { size: -4096 }, /"size"/],
  ['size fractional', { size: 4096.5 }, /"size"/],
  ['size no multiple of 4096', { size: 5000 }, /multiple of 4096.*4096 is/],
  ['size below one block', { size: 512 }, /multiple of 4096/],
  ['size beyond the largest', { size: '65TiB' }, /at most 16TiB/],
  ['size with an unknown unit', { size: '10 gallons' }, /"size" must be a positive number of bytes/],
  ['size null', { size: null }, /"size" must be/],
  ['size a huge number', { size: 1e300 }, /"size"/],
  ['unknown key', { size: 4096, sise: 1 }, /unknown key "sise" \(did you mean "size"\?\)/],
  [
    'unknown key inside',
    { size: 4096, nbd: { lisen: 'x' } },
    /unknown key "lisen" in "nbd" \(did you mean "listen"\?\)/,
  ],
  ['unknown policy', { size: 4096, policies: { onPeerLost: 'x' } }, /unknown key "onPeerLost" in "policies"/],
  [
    'policy value',
    { size: 4096, policies: { onPeerLoss: 'panic' } },
    /"policies\/onPeerLoss" must be "continue"/,
  ],
  [
    'split-brain policy of other words',
    { ...mirroredBody, policies: { 'after-sb-0pri': 'discard-oldest' } },
    /"policies\/after-sb-0pri" must be after a split brain, with no Primary left: "disconnect", "discard-younger/,
  ],
  [
    'split-brain policy that means another node on each side',
    { ...mirroredBody, policies: { 'after-sb-0pri': 'discard-local' } },
    /name the node instead/,
  ],
  [
    'split-brain policy that discards a stranger',
    { ...mirroredBody, policies: { 'after-sb-0pri': 'discard-node-gamma' } },
    /names "gamma", which is not one of the two nodes of this resource: they are "alpha" and "beta"/,
  ],
  [
    'split-brain policy without a peer',
    { size: 4096, policies: { 'after-sb-0pri': 'discard-node-alpha' } },
    /names "alpha".*it has no peer/,
  ],
  [
    'split-brain policy for no Primary as one for one',
    { ...mirroredBody, policies: { 'after-sb-1pri': 'discard-zero-changes' } },
    /"policies\/after-sb-1pri" must be .*"consensus"/,
  ],
  [
    'split-brain policy for one Primary as one for two',
    { ...mirroredBody, policies: { 'after-sb-2pri': 'consensus' } },
    /"policies\/after-sb-2pri" must be .*"violently-as0p"/,
  ],
  ['too few extents', { size: 4096, policies: { activityLogExtents: 6 } }, /7 to 65534/],
  ['too many extents', { size: 4096, policies: { activityLogExtents: 65535 } }, /7 to 65534/],
  [
    'timer too short',
    { size: 4096, policies: { pingIntervalMs: 1 } },
    /"policies\/pingIntervalMs" must be 50 to/,
  ],
  [
    'a rate below any progress',
    { size: 4096, policies: { resyncRateMax: 100 } },
    /"policies\/resyncRateMax" \(100\) must be 0 \(no limit\) or at least 4096/,
  ],
  [
    'rates that contradict',
    { size: 4096, policies: { resyncRateMin: 8192, resyncRateMax: 4096 } },
    /resyncRateMin" \(8192\) is more than "policies\/resyncRateMax" \(4096\)/,
  ],
  ['timers that contradict', { size: 4096, policies: { peerTimeoutMs: 1500 } }, /at least twice/],
  ['listen no endpoint', { size: 4096, nbd: { listen: 'here' } }, /"nbd\/listen" must be HOST:PORT/],
  ['listen port too high', { size: 4096, nbd: { listen: 'localhost:65536' } }, /"nbd\/listen".*65535/],
  ['unix relative', { size: 4096, nbd: { unix: 'nbd.sock' } }, /"nbd\/unix" must be an absolute path/],
  ['unix too long', { size: 4096, nbd: { unix: `/${'x'.repeat(107)}` } }, /at most 107 bytes/],
  [
    'backing relative',
    { size: 4096, backing: { path: 'disk.img' } },
    /"backing\/path" must be an absolute path/,
  ],
  ['backing a string', { size: 4096, backing: '/disk.img' }, /"backing" must be object/],
  [
    'two peers',
    { ...mirroredBody, peers: [...mirroredBody.peers, { name: 'gamma', address: 'c:1' }] },
    /a pair of nodes, not by more/,
  ],
  ['peer without replication', { size: 4096, peers: mirroredBody.peers }, /"replication" is missing/],
  ['replication without peer', { size: 4096, replication }, /"peers" is missing/],
  [
    'peer port 0',
    { ...mirroredBody, peers: [{ name: 'beta', address: 'b:0' }] },
    /"peers\/0\/address".*1 to 65535/,
  ],
  ['peer named as this node', { ...mirroredBody, peers: [{ name: 'alpha', address: 'b:1' }] }, /own name/],
  [
    'secret empty',
    { ...mirroredBody, replication: { ...replication, secret: '' } },
    /"replication\/secret" must be/,
  ],
  [
    'secret too long',
    { ...mirroredBody, replication: { ...replication, secret: 'é'.repeat(600) } },
    /longer than 1024 bytes/,
  ],
  [
    'protocol unknown',
    { ...mirroredBody, replication: { ...replication, protocol: 'D' } },
    /"replication\/protocol" must be "C"/,
  ],
  ['a list', [], /must be an object/],
];
for (const [title, body, detail] of bad) {
  test(`PUT with ${title} is invalid-request`, async (t) => {
    const { send, plane } = await testApp(t);
    const answer = await send('PUT', '/v1/resources/r0', body);
    t.is(answer.statusCode, 400);
    t.like(answer.json(), { code: 'invalid-request', status: 400, type: 'about:blank' });
    t.regex(answer.json<{ detail: string }>().detail, detail);
    t.false(answer.body.includes('é'), 'the secret is not repeated');
    t.is(plane.started.length, 0);
  });
}

const badCommands: readonly (readonly [string, object | undefined, RegExp])[] = [
  ['promote', { force: 'yes' }, /"force" must be true or false/],
  ['promote', { forse: true }, /unknown key "forse" \(did you mean "force"/],
  ['promote?dryRun=maybe', undefined, /"dryRun" must be true or false/],
  ['promote?dryrun=true', undefined, /unknown key "dryrun" \(did you mean "dryRun"/],
  ['disconnect?dryRun=true', undefined, /unknown key "dryRun"/],
  ['resync', undefined, /"action" is missing/],
  ['resync', { action: 'stop' }, /"action" must be "pause"/],
  ['verify', { action: 'pause' }, /"action" must be "start" or "stop"/],
  ['verify', { action: 'start', repair: 'no' }, /"repair" must be true/],
  ['resize', { size: 4097 }, /multiple of 4096/],
  ['resize', undefined, /"size" is missing/],
];
for (const [url, body, detail] of badCommands) {
  test(`POST ${url} with ${JSON.stringify(body ?? null)} is invalid-request`, async (t) => {
    const { send, plane } = await testApp(t);
    await send('PUT', '/v1/resources/r0', mirroredBody);
    const answer = await send('POST', `/v1/resources/r0/${url}`, body);
    t.is(answer.statusCode, 400, answer.body);
    t.regex(answer.json<{ detail: string }>().detail, detail);
    t.is(plane.commands.length, 0);
  });
}

test('a bad resource name is invalid-request', async (t) => {
  const { send } = await testApp(t);
  const long = [64, 101, 4096].map((length) => 'x'.repeat(length));
  for (const name of ['', '.hidden', '-x', 'a%2Fb', 'a%20b', 'a%zz', ...long, '..%2f..%2fetc']) {
    const answer = await send('PUT', `/v1/resources/${name}`, { size: 4096 });
    t.is(answer.statusCode, 400, `${name}: ${answer.body}`);
    t.is(answer.headers['content-type'], 'application/problem+json');
    t.is(answer.json<{ code: string }>().code, 'invalid-request');
  }
});

test('every command on an unknown resource is not-found', async (t) => {
  const { send } = await testApp(t);
  for (const verb of ['promote', 'demote', 'failover', 'connect', 'disconnect', 'attach', 'detach']) {
    const answer = await send('POST', `/v1/resources/none/${verb}`);
    t.is(answer.statusCode, 404, verb);
    t.is(answer.json<{ code: string }>().code, 'not-found');
  }
  t.is((await send('PATCH', '/v1/resources/none', { policies: {} })).statusCode, 404);
  t.is((await send('DELETE', '/v1/resources/none')).statusCode, 404);
  t.is((await send('GET', '/v1/resources/none/decisions')).statusCode, 404);
});

test('bodies: malformed JSON, another content type and 65 KiB are refused as problems', async (t) => {
  const { app } = await testApp(t);
  const rows: readonly (readonly [string, string, number, string])[] = [
    ['application/json', '{"size":', 400, 'invalid-request'],
    ['application/json', 'null', 400, 'invalid-request'],
    ['application/json', '"text"', 400, 'invalid-request'],
    ['text/plain', 'size=1', 415, 'unsupported-media-type'],
    ['application/x-www-form-urlencoded', 'size=1', 415, 'unsupported-media-type'],
    ['application/json', ' '.repeat(65 * 1024), 413, 'payload-too-large'],
  ];
  for (const [type, payload, status, code] of rows) {
    const answer = await app.inject({
      method: 'PUT',
      url: '/v1/resources/r0',
      headers: { authorization: `Bearer ${testToken}`, 'content-type': type },
      payload,
    });
    t.is(answer.statusCode, status, `${type}: ${answer.body}`);
    t.is(answer.headers['content-type'], 'application/problem+json');
    t.is(answer.json<{ code: string }>().code, code);
  }
});

test('a path or method that does not exist is a not-found problem', async (t) => {
  const { app, send } = await testApp(t);
  for (const answer of [
    await app.inject('/nope'),
    await send('POST', '/v1/resources'),
    await send('GET', '/v1/resources/r0/promote'),
  ]) {
    t.is(answer.statusCode, 404);
    t.is(answer.headers['content-type'], 'application/problem+json');
    t.like(answer.json(), { code: 'not-found', status: 404 });
  }
});

test('token: needed by everything but health, readiness and the documents', async (t) => {
  const { app } = await testApp(t);
  for (const url of ['/v1/node', '/v1/resources', '/v1/resources/r0', '/v1/events', '/metrics']) {
    const answer = await app.inject(url);
    t.is(answer.statusCode, 401, url);
    t.like(answer.json(), { code: 'unauthorized' });
    t.regex(String(answer.headers['www-authenticate']), /^Bearer/);
  }
  for (const url of ['/healthz', '/readyz', '/openapi.json', '/docs', '/docs/static/swagger-ui.css']) {
    t.is((await app.inject(url)).statusCode, 200, url);
  }
});

test('token: a wrong, empty, prefixed or misplaced one is refused', async (t) => {
  const { app } = await testApp(t);
  for (const authorization of [
    'Bearer wrong',
    'Bearer ',
    'Bearer',
    `Bearer ${testToken}x`,
    `Bearer ${testToken.slice(0, -1)}`,
    `Bearer ${testToken} ${testToken}`,
    `Basic ${testToken}`,
    testToken,
  ]) {
    t.is((await app.inject({ url: '/v1/node', headers: { authorization } })).statusCode, 401, authorization);
  }
  t.is(
    (await app.inject({ url: '/v1/node', headers: { authorization: `bearer ${testToken}` } })).statusCode,
    200,
  );
});

test('host: a name that is not ours is refused, addresses and localhost are not', async (t) => {
  const { app } = await testApp(t);
  for (const host of ['evil.example', 'evil.example:7780', 'localhost.evil.example']) {
    const answer = await app.inject({ url: '/healthz', headers: { host } });
    t.is(answer.statusCode, 421, host);
    t.like(answer.json(), { code: 'host-not-allowed' });
  }
  for (const host of ['127.0.0.1:7780', 'localhost:7780', '[::1]:7780', '192.0.2.7', 'LOCALHOST']) {
    t.is((await app.inject({ url: '/healthz', headers: { host } })).statusCode, 200, host);
  }
});
