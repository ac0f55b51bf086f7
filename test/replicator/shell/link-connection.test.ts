/** The end of a connection that this side closes while the other goes on sending. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { LinkConnection } from '../../../replicator/shell/link-connection.ts';
import { systemLinkClock } from '../../../replicator/shell/link-clock.ts';
import { FrameEncoder } from '../../../replicator/wire/frame-encoder.ts';

const frameType = 7;

/** One frame, as its bytes. */
function frameOf(frames: FrameEncoder, payload: Uint8Array | null): Buffer {
  frames.begin(0);
  frames.end(frameType, payload);
  return Buffer.concat(frames.take());
}

interface Ends {
  readonly connection: LinkConnection;
  readonly other: Socket;
  readonly delivered: Uint8Array[];
  readonly errors: Error[];
  /** Resolves when so many bytes in all have been received. */
  readonly received: (byteCount: number) => Promise<void>;
}

/** A connection that receives into memory of its own, and the bare socket at its other end. */
async function connectEnds(t: ExecutionContext): Promise<Ends> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));

  let count = 0;
  let changed = (): void => undefined;
  const errors: Error[] = [];
  const connection = new LinkConnection({
    clock: systemLinkClock,
    closeTimeoutMs: 60_000,
    socket: (receiver) => {
      const socket = connect({
        port: address.port,
        host: '127.0.0.1',
        onread: {
          buffer: () => receiver.nextBuffer(),
          callback: (byteCount) => {
            receiver.received(byteCount);
            count += byteCount;
            changed();
            return true;
          },
        },
      });
      return socket.on('error', (error) => errors.push(error));
    },
  });
  t.teardown(() => connection.destroy());
  const other = await accepted;
  t.teardown(() => other.destroy());
  const delivered: Uint8Array[] = [];
  connection.become({
    bounds: new Map([
      [frameType, { name: 'some', bodyBytesMin: 0, bodyBytesMax: 0, payloadBytesMax: 1024 * 1024 }],
    ]),
    deliver: (_type, _body, payload) => {
      if (payload !== null) delivered.push(payload);
    },
  });
  const received = (byteCount: number): Promise<void> =>
    new Promise((resolve) => {
      changed = () => {
        if (count >= byteCount) resolve();
      };
      changed();
    });
  return { connection, other, delivered, errors, received };
}

test('closed in the middle of a long payload: the last words arrive, and the rest of it is read and dropped', async (t) => {
  const { connection, other, delivered, errors, received } = await connectEnds(t);
  const frame = frameOf(new FrameEncoder(), Buffer.alloc(1024 * 1024, 1));
  other.write(frame.subarray(0, 300_000));
  await received(300_000);

  const goodbye = frameOf(new FrameEncoder(), null);
  connection.frames.begin(0);
  connection.frames.end(frameType, null);
  connection.close();
  for (const end of [500_000, 700_000]) {
    other.write(frame.subarray(end - 200_000, end));
    await Promise.race([received(end), connection.closed]);
  }
  t.deepEqual(errors, []);
  const words: Buffer[] = [];
  other.on('data', (chunk: Buffer) => words.push(chunk));
  await once(other, 'end');
  t.deepEqual(Buffer.concat(words), goodbye);
  other.end();
  await connection.closed;
  t.deepEqual(errors, []);
  t.is(delivered.length, 0);
});

test('what was delivered before a close stays as it was, though the other side goes on sending', async (t) => {
  const { connection, other, delivered, received } = await connectEnds(t);
  // Who is asked forgets what is under way when its session ends.
  let hasSession = true;
  connection.settledWhen(() => !hasSession);
  const frames = new FrameEncoder();
  const first = frameOf(frames, Buffer.alloc(8192, 1));
  const ends = {
    bounds: new Map([
      [frameType, { name: 'some', bodyBytesMin: 0, bodyBytesMax: 0, payloadBytesMax: 1024 * 1024 }],
    ]),
    deliver: (_type: number, _body: unknown, payload: Uint8Array | null) => {
      if (payload !== null) delivered.push(payload);
      hasSession = false;
      connection.close();
    },
  };
  connection.become(ends);
  other.write(first);
  await received(first.length);
  const more = Buffer.alloc(2 * first.length, 2);
  other.write(more);
  await received(first.length + more.length);
  t.is(delivered.length, 1);
  t.true(delivered[0]?.every((byte) => byte === 1));
  other.end();
  await connection.closed;
});
