/** Server-Sent Events: over real HTTP, and one stream against a client that does not read. */
import { Writable } from 'node:stream';
import test, { type ExecutionContext } from 'ava';
import { ApiClient, ApiFailure } from '../../server/cli/api-client.ts';
import { readEvents } from '../../server/cli/event-reader.ts';
import { defineResource } from '../../server/definition.ts';
import { EventStream } from '../../server/event-stream.ts';
import type { ResourceStatus } from '../../server/schemas/status.ts';
import { statusOf } from '../support/fake-data-plane.ts';
import { mirroredBody, testApp, testToken } from '../support/test-app.ts';

async function listening(t: ExecutionContext) {
  const running = await testApp(t);
  const api = await running.app.listen({ host: '127.0.0.1', port: 0 });
  return { ...running, api, client: new ApiClient({ name: 'alpha', api, token: testToken }) };
}

interface Change {
  resource: string;
  status?: ResourceStatus;
}

test('a snapshot of all comes first, then each change with rising ids', async (t) => {
  const { send, plane, client } = await listening(t);
  await send('PUT', '/v1/resources/a', { size: 4096 });
  await send('PUT', '/v1/resources/b', mirroredBody);
  const events = client.events();
  const next = async () => {
    const result = await events.next();
    if (result.done === true) throw new Error('the stream ended');
    const { event, id, data } = result.value;
    return { event, id, change: JSON.parse(data) as Change };
  };
  const snapshot = [await next(), await next()];
  t.deepEqual(
    snapshot.map(({ event, change }) => [event, change.resource, change.status?.role]),
    [
      ['status', 'a', 'Primary'],
      ['status', 'b', 'Secondary'],
    ],
  );
  plane.change('b', { role: 'Primary' });
  const promoted = await next();
  t.is(promoted.change.status?.role, 'Primary');
  await send('DELETE', '/v1/resources/a');
  const removed = await next();
  t.deepEqual([removed.event, removed.change], ['removed', { resource: 'a' }]);
  const ids = [...snapshot, promoted, removed].map(({ id }) => Number(id));
  t.deepEqual(
    ids,
    [...ids].sort((x, y) => x - y),
  );
  t.is(new Set(ids).size, ids.length);
  await events.return(undefined);
});

test('streams end when the node stops, which does not wait for them', async (t) => {
  const { send, client, app } = await listening(t);
  await send('PUT', '/v1/resources/a', { size: 4096 });
  const events = client.events();
  await events.next();
  await app.close();
  t.true((await events.next()).done);
});

test('without a token there are no events', async (t) => {
  const { api } = await listening(t);
  const client = new ApiClient({ name: null, api, token: 'wrong' });
  const error = await t.throwsAsync(client.events().next(), { instanceOf: ApiFailure });
  t.is(error.problem.code, 'unauthorized');
});

/** A socket whose other end reads when the test says so. */
class Sluggish extends Writable {
  readonly chunks: string[] = [];
  #resume: (() => void) | null = null;

  constructor() {
    super({ highWaterMark: 1, decodeStrings: false });
  }

  override _write(chunk: string, _encoding: BufferEncoding, done: () => void): void {
    this.chunks.push(chunk);
    this.#resume = done;
  }

  async readAll(): Promise<void> {
    while (this.#resume) {
      const resume = this.#resume;
      this.#resume = null;
      resume();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

function status(name: string, clients: number): ResourceStatus {
  const checked = defineResource(name, { size: 4096 }, 'alpha');
  if (!checked.ok) throw new Error('not valid');
  const whole = statusOf(checked.value);
  return { ...whole, nbd: { ...whole.nbd, clients } };
}

test('a client that does not read gets the newest status of each resource later, and nothing piles up', async (t) => {
  const out = new Sluggish();
  let id = 0;
  const stream = new EventStream(out, () => ++id);
  for (let change = 1; change <= 1000; change++) {
    stream.push('a', status('a', change));
    stream.push('b', status('b', change));
  }
  t.is(out.chunks.length, 1);
  t.true(out.writableLength < 10_000);
  await out.readAll();
  const seen = out.chunks.join('').match(/"clients":\d+/g);
  t.deepEqual(seen, ['"clients":1', '"clients":1000', '"clients":1000']);
});

test('a client that read nothing from one heartbeat to the next is disconnected', async (t) => {
  const out = new Sluggish();
  const stream = new EventStream(out, () => 1);
  stream.heartbeat();
  await out.readAll();
  stream.push('a', status('a', 1));
  stream.heartbeat();
  t.false(out.destroyed);
  await out.readAll();
  stream.heartbeat();
  t.false(out.destroyed, 'it read meanwhile');
  stream.heartbeat();
  stream.heartbeat();
  t.true(out.destroyed);
  t.notThrows(() => stream.push('a', status('a', 2)));
});

test('event reader: any split of the bytes gives the same events', async (t) => {
  const bytes = Buffer.from(
    ': hi\n\nevent: status\nid: 7\ndata: {"a":"é"}\n\ndata: one\r\ndata: two\r\n\r\nevent: empty\n\n',
  );
  for (let at = 0; at <= bytes.length; at++) {
    const events = [];
    const parts = [bytes.subarray(0, at), bytes.subarray(at)];
    for await (const event of readEvents(asynchronously(parts))) events.push(event);
    t.deepEqual(events, [
      { event: 'status', id: '7', data: '{"a":"é"}' },
      { event: 'message', id: '7', data: 'one\ntwo' },
    ]);
  }
});

async function* asynchronously(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    await Promise.resolve();
    yield part;
  }
}
