/** The client against servers that break the rules, or use those our own server does not. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { NbdClosedError, NbdHaggling, NbdOptionError, NbdRequestError } from '../../nbd/client.ts';
import type { NbdClient } from '../../nbd/client.ts';
import { NbdProtocolError } from '../../nbd/protocol-error.ts';
import { hex } from '../support/conversation.ts';
import { serveDevice } from '../support/nbd-server.ts';

const greeting = hex('"NBDMAGIC" "IHAVEOPT" 0003');
const ack = (option: string): Buffer => hex(`0003e889045565a9 ${option} 00000001 00000000`);
const opened = Buffer.concat([
  hex('0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 0ded'),
  ack('00000007'),
]);

interface Line {
  /** Said once this many bytes of the client have arrived in all. */
  readonly afterBytes: number;
  readonly bytes: Buffer;
}

/** Port of a server that sends these, then closes if told so. */
async function scripted(t: ExecutionContext, lines: readonly Line[], close = false): Promise<number> {
  const server = createServer((socket) => {
    let next = 0;
    let heard = 0;
    const speak = (): void => {
      for (let line = lines[next]; line !== undefined && heard >= line.afterBytes; line = lines[++next])
        socket.write(line.bytes);
      if (close && next === lines.length) socket.end();
    };
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.length;
      speak();
    });
    socket.on('error', () => undefined);
    speak();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** A client with structured replies, whose first request (cookie 1) gets this answer. */
async function answered(t: ExecutionContext, answer: Buffer, close = false): Promise<NbdClient> {
  const script = [
    { afterBytes: 0, bytes: greeting },
    { afterBytes: 4 + 16, bytes: ack('00000008') },
    { afterBytes: 4 + 16 + 30, bytes: opened },
    { afterBytes: 4 + 16 + 30 + 28, bytes: answer },
  ];
  const port = await scripted(t, script, close);
  const haggling = await NbdHaggling.connect({ host: '127.0.0.1', port });
  t.teardown(() => {
    haggling.destroy();
  });
  await haggling.structuredReply();
  const client = await haggling.go('r0');
  t.teardown(() => {
    client.destroy();
  });
  return client;
}

const data = (flags: string, offset: string, text: string): string =>
  `668e33ef ${flags} 0001 0000000000000001 ${(8 + text.length).toString(16).padStart(8, '0')} ${offset} "${text}"`;
const hole = (flags: string, offset: string, size: string): string =>
  `668e33ef ${flags} 0002 0000000000000001 0000000c ${offset} ${size}`;

/** Answers to a READ of 8 bytes at 0 that end the connection. */
const violations: readonly (readonly [title: string, answer: string])[] = [
  ['a wrong magic', '11223344 0000 0000 0000000000000001 00000000'],
  ['an extended reply nobody negotiated', '6e8a278c 0001 0000 0000000000000001 00*16'],
  ['a simple reply to a READ', '67446698 00000000 0000000000000001 00*8'],
  ['a cookie that is not in flight', '668e33ef 0001 0000 0000000000000002 00000000'],
  ['a chunk of unknown type', '668e33ef 0001 0009 0000000000000001 00000000'],
  ['a chunk longer than the request', data('0001', '0000000000000000', '123456789')],
  ['a chunk that announces 4 GiB', '668e33ef 0001 0001 0000000000000001 ffffffff'],
  ['content before the request', data('0001', 'ffffffffffffffff', '12')],
  ['content behind the request', data('0001', '0000000000000007', '12')],
  [
    'content chunks that overlap',
    `${data('0000', '0000000000000000', '12345')} ${data('0001', '0000000000000004', '5678')}`,
  ],
  [
    'content that leaves a gap',
    `${data('0000', '0000000000000000', '123')} ${data('0001', '0000000000000004', '5678')}`,
  ],
  ['success without content', '668e33ef 0001 0000 0000000000000001 00000000'],
  ['a hole of size zero', hole('0001', '0000000000000000', '00000000')],
  ['a hole beyond the request', hole('0001', '0000000000000000', '00000009')],
  [
    'block status as an answer to READ',
    '668e33ef 0001 0005 0000000000000001 0000000c 00000001 00001000 00000000',
  ],
  ['NONE with a payload', '668e33ef 0001 0000 0000000000000001 00000001 00'],
  ['an error whose message exceeds its chunk', '668e33ef 0001 8001 0000000000000001 00000006 00000005 0001'],
];

for (const [title, answer] of violations)
  test(`${title} ends the connection`, async (t) => {
    const client = await answered(t, hex(answer));
    await t.throwsAsync(client.read(0, 8), { instanceOf: NbdProtocolError });
    await client.closed;
    t.false(client.isOpen);
  });

test('a read in several chunks, holes among them and in any order, is put together', async (t) => {
  const chunks = [
    data('0000', '0000000000000006', 'gh'),
    hole('0000', '0000000000000002', '00000004'),
    data('0000', '0000000000000000', 'ab'),
    '668e33ef 0001 0000 0000000000000001 00000000',
  ];
  const client = await answered(t, hex(chunks.join(' ')));
  t.is((await client.read(0, 8)).toString(), 'ab\0\0\0\0gh');
});

test('an error among content fails the read, of a known kind or not, and the connection goes on', async (t) => {
  const answer = [
    data('0000', '0000000000000000', '12345678'),
    '668e33ef 0000 8002 0000000000000001 00000011 00000005 0003 "bad" 0000000000000004',
    '668e33ef 0001 8077 0000000000000001 00000006 00000016 0000',
  ];
  const client = await answered(t, hex(answer.join(' ')));
  await t.throwsAsync(client.read(0, 8), { instanceOf: NbdRequestError, code: 'EIO', message: 'EIO: bad' });
  t.true(client.isOpen);
});

test('an unexpected error value counts as EINVAL', async (t) => {
  const client = await answered(t, hex('67446698 00000063 0000000000000001'));
  await t.throwsAsync(client.flush(), { code: 'EINVAL' });
});

test('a server that closes amid a reply rejects what is in flight', async (t) => {
  const client = await answered(t, hex(data('0001', '0000000000000000', '12345678')).subarray(0, 25), true);
  await t.throwsAsync(client.read(0, 8), { instanceOf: NbdClosedError });
});

test('oldstyle, and what is no NBD at all, is refused', async (t) => {
  for (const bytes of [
    hex('"NBDMAGIC" 00420281861253 00*130'),
    Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
  ]) {
    const port = await scripted(t, [{ afterBytes: 0, bytes }]);
    await t.throwsAsync(NbdHaggling.connect({ host: '127.0.0.1', port }), { instanceOf: NbdProtocolError });
  }
});

test('a refused option leaves the haggling usable', async (t) => {
  const { tcp } = await serveDevice(t);
  const haggling = await NbdHaggling.connect(tcp);
  await t.throwsAsync(haggling.go('standby'), { instanceOf: NbdOptionError, message: /the Primary is beta/ });
  await t.throwsAsync(haggling.go('nothing'), { instanceOf: NbdOptionError });
  t.deepEqual(
    (await haggling.list()).map(({ name }) => name),
    ['r0', 'ro', 'standby'],
  );
  t.is((await haggling.info('r0')).sizeBytes, 16 * 1024 * 1024);
  await haggling.structuredReply();
  t.deepEqual(await haggling.listMetaContexts('r0'), ['base:allocation']);
  const client = await haggling.go('r0');
  await client.flush();
  await client.disconnect();
});

test('EXPORT_NAME works with and without its zeroes', async (t) => {
  const { tcp } = await serveDevice(t);
  for (const noZeroes of [true, false]) {
    const haggling = await NbdHaggling.connect(tcp, { noZeroes });
    const client = await haggling.exportName('r0');
    t.is(client.info.sizeBytes, 16 * 1024 * 1024);
    await client.write(0, Buffer.from('abc'));
    t.is((await client.read(0, 3)).toString(), 'abc');
    await client.disconnect();
  }
});
