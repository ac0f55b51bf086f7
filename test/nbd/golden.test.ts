/** Conversations written by hand from the NBD document, held with the server and with the client. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { NbdHaggling, NbdRequestError } from '../../nbd/client.ts';
import { NbdProtocolError } from '../../nbd/protocol-error.ts';
import { allBytes, readConversation, SocketlessServer } from '../support/conversation.ts';
import type { Turn } from '../support/conversation.ts';

const names = ['nbd-simple', 'nbd-structured', 'nbd-extended', 'nbd-options'] as const;

for (const name of names) {
  const turns = readConversation(name);
  const input = allBytes(turns, 'client');
  const expected = allBytes(turns, 'server').toString('hex');

  test(`${name}: the server says what the document says, turn by turn`, (t) => {
    const server = new SocketlessServer();
    let said = server.output;
    for (const turn of turns) {
      if (turn.from === 'client') said = server.feed(turn.bytes);
      else t.is(said.toString('hex'), turn.bytes.toString('hex'));
    }
    t.is(server.ended, 'disconnected');
  });

  test(`${name}: the same at every split point`, (t) => {
    for (let at = 0; at <= input.length; at++) {
      const server = new SocketlessServer();
      server.feed(input.subarray(0, at));
      server.feed(input.subarray(at));
      if (server.output.toString('hex') !== expected) return t.fail(`split at ${at}`);
    }
    return t.pass();
  });

  test(`${name}: the same byte by byte`, (t) => {
    const server = new SocketlessServer();
    for (let at = 0; at < input.length; at++) server.feed(input.subarray(at, at + 1));
    t.is(server.output.toString('hex'), expected);
  });

  test(`${name}: a truncated conversation is answered as far as it goes, and nothing more is done`, (t) => {
    const whole = new SocketlessServer();
    whole.feed(input);
    for (let at = 0; at < input.length; at++) {
      const server = new SocketlessServer();
      server.feed(input.subarray(0, at));
      if (!expected.startsWith(server.output.toString('hex'))) return t.fail(`cut at ${at}: wrong answer`);
      const { calls } = server.device;
      if (JSON.stringify(calls) !== JSON.stringify(whole.device.calls.slice(0, calls.length)))
        return t.fail(`cut at ${at}: wrong calls`);
    }
    return t.pass();
  });
}

test('a write whose payload lacks its last byte is not carried out', (t) => {
  const turns = readConversation('nbd-simple');
  const clientTurns = turns.filter(({ from }) => from === 'client').map(({ bytes }) => bytes);
  const server = new SocketlessServer();
  // Flags and GO, then the first write.
  const input = Buffer.concat(clientTurns.slice(0, 2));
  server.feed(input.subarray(0, -1));
  t.deepEqual(server.device.calls, []);
  server.feed(input.subarray(-1));
  t.is(server.device.calls.length, 1);
});

test('any flipped bit in a magic number is a protocol error', (t) => {
  const turns = readConversation('nbd-structured').filter(({ from }) => from === 'client');
  let at = 0;
  let flipped = 0;
  for (const { bytes } of turns) {
    const start = at === 0 ? 4 : at; // the first turn begins with the client's flags
    const magicBits = bytes.subarray(start - at).readUInt32BE() === 0x25609513 ? 32 : 64;
    for (let bit = 0; bit < magicBits; bit++) {
      const input = Buffer.from(allBytes(turns, 'client'));
      const position = start + Math.floor(bit / 8);
      input.writeUInt8(input.readUInt8(position) ^ (1 << (bit % 8)), position);
      t.throws(() => new SocketlessServer().feed(input), { instanceOf: NbdProtocolError });
      flipped++;
    }
    at += bytes.length;
  }
  t.true(flipped > 100);
});

/** A server that only knows this conversation. Answers what the client said instead, if it did. */
async function play(
  t: ExecutionContext,
  turns: readonly Turn[],
  chunkBytes: number,
): Promise<{ address: AddressInfo & { host: string }; heard: Promise<string> }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const heard = new Promise<string>((resolve) => {
    server.on('connection', (socket) => {
      socket.setNoDelay(true);
      let received = Buffer.alloc(0);
      let next = 0;
      let expected = 0;
      const speak = (): void => {
        for (;;) {
          const turn = turns[next];
          if (
            turn === undefined ||
            (turn.from === 'client' && received.length < expected + turn.bytes.length)
          )
            return;
          next++;
          if (turn.from === 'client') expected += turn.bytes.length;
          else
            for (let at = 0; at < turn.bytes.length; at += chunkBytes)
              socket.write(turn.bytes.subarray(at, at + chunkBytes));
        }
      };
      socket.on('data', (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        speak();
      });
      socket.on('error', () => undefined);
      socket.on('close', () => {
        resolve(received.toString('hex'));
      });
      speak();
    });
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { address: { ...address, host: '127.0.0.1' }, heard };
}

for (const chunkBytes of [1, 1 << 16]) {
  const chunks = chunkBytes === 1 ? 'single bytes' : 'whole turns';

  test(`nbd-simple: the client says and understands it, in ${chunks}`, async (t) => {
    const turns = readConversation('nbd-simple');
    const { address, heard } = await play(t, turns, chunkBytes);
    const client = await (await NbdHaggling.connect(address)).go('r0');
    t.deepEqual(client.info, {
      sizeBytes: 1 << 20,
      transmissionFlags: 0x0d6d,
      name: 'r0',
      description: 'test export r0',
      blockSize: { minimumBytes: 1, preferredBytes: 4096, maximumPayloadBytes: 1 << 25 },
    });
    await client.write(4096, Buffer.from('abc'), { fua: true });
    t.is((await client.read(4095, 5)).toString(), '\0abc\0');
    await client.flush();
    await client.cache(0, 1 << 20);
    await client.writeZeroes(4097, 1, { noHole: true, fastZero: true });
    t.is((await client.read(4096, 3)).toString(), 'a\0c');
    await client.trim(4096, 4096);
    await t.throwsAsync(client.read(1 << 20, 1), { instanceOf: NbdRequestError, code: 'EINVAL' });
    await t.throwsAsync(client.write((1 << 20) - 1, Buffer.from('zz')), { code: 'ENOSPC' });
    await client.disconnect();
    t.is(await heard, allBytes(turns, 'client').toString('hex'));
  });

  test(`nbd-structured: the client says and understands it, in ${chunks}`, async (t) => {
    const turns = readConversation('nbd-structured');
    const { address, heard } = await play(t, turns, chunkBytes);
    const haggling = await NbdHaggling.connect(address);
    await haggling.structuredReply();
    t.deepEqual(await haggling.setMetaContexts('r0', ['base:allocation']), ['base:allocation']);
    const client = await haggling.go('r0');
    await client.write(4096, Buffer.from('abc'));
    t.is((await client.read(4095, 5, { dontFragment: true })).toString(), '\0abc\0');
    t.deepEqual(
      [...(await client.blockStatus(0, 16384))],
      [
        [
          'base:allocation',
          [
            { lengthBytes: 4096, flags: 3 },
            { lengthBytes: 4096, flags: 0 },
            { lengthBytes: 8192, flags: 3 },
          ],
        ],
      ],
    );
    const one = await client.blockStatus(2048, 16384, { reqOne: true });
    t.deepEqual([...one.values()], [[{ lengthBytes: 2048, flags: 3 }]]);
    await t.throwsAsync(client.read(1 << 20, 1), {
      code: 'EINVAL',
      message: "EINVAL: the request goes beyond the export's 1048576 bytes",
    });
    await client.disconnect();
    t.is(await heard, allBytes(turns, 'client').toString('hex'));
  });

  test(`nbd-extended: the client says and understands it, in ${chunks}`, async (t) => {
    const turns = readConversation('nbd-extended');
    const { address, heard } = await play(t, turns, chunkBytes);
    const haggling = await NbdHaggling.connect(address);
    await haggling.extendedHeaders();
    await haggling.setMetaContexts('r0', ['base:allocation']);
    const client = await haggling.go('r0');
    await client.write(4096, Buffer.from('abc'));
    t.is((await client.read(4095, 5)).toString(), '\0abc\0');
    t.is((await client.blockStatus(0, 16384)).get('base:allocation')?.length, 3);
    const payload = Buffer.from('000000000000400000000001', 'hex');
    const filtered = await client.request({ type: 7, flags: 8, offset: 2048n, payload });
    t.deepEqual([...filtered.statuses.values()], [[{ lengthBytes: 2048, flags: 3 }]]);
    const everything = { type: 6, offset: 0n, length: 0xffff_ffff_ffff_ffffn };
    await t.throwsAsync(client.request(everything), { code: 'ENOSPC' });
    await client.disconnect();
    t.is(await heard, allBytes(turns, 'client').toString('hex'));
  });
}
