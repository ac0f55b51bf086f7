/** Packets against bytes written by hand from docs/peer-protocol.md. */
import { readdirSync } from 'node:fs';
import test from 'ava';
import type { Packet } from '../../../replicator/core/packet.ts';
import { PacketDecoder, PacketEncoder } from '../../../replicator/wire/codec.ts';
import { goldenBytes, goldenPackets, goldenPayload } from '../../golden/peer/packets.ts';
import type { GoldenPacket } from '../../golden/peer/packets.ts';
import { bitwiseCrc32c } from '../../support/bitwise-crc32c.ts';

interface Got {
  readonly packet: Packet;
  readonly payload: string | undefined;
}

function collect(): { readonly got: Got[]; readonly decoder: PacketDecoder } {
  const got: Got[] = [];
  const decoder = new PacketDecoder((packet, payload) => {
    got.push({ packet, payload: payload === null ? undefined : Buffer.from(payload).toString('hex') });
  });
  return { got, decoder };
}

const golden = (of: GoldenPacket): Got => ({ packet: of.packet, payload: of.payload });

test('every golden file has its meaning, and every meaning its file', (t) => {
  const files = readdirSync(new URL('../../golden/peer/', import.meta.url)).filter((file) =>
    file.endsWith('.hex'),
  );
  t.deepEqual(files.sort(), goldenPackets.map(({ name }) => `${name}.hex`).sort());
});

for (const of of goldenPackets) {
  const bytes = goldenBytes(of.name);

  test(`${of.name}: the CRCs of the golden bytes are CRC32C`, (t) => {
    t.is(bytes.readUInt32BE(28), bitwiseCrc32c(bytes.subarray(0, 28)));
    t.is(bytes.readUInt32BE(24), bitwiseCrc32c(bytes.subarray(32)));
  });

  test(`${of.name}: encodes to the golden bytes`, (t) => {
    const encoder = new PacketEncoder();
    encoder.encode(of.packet, goldenPayload(of));
    t.is(encoder.pendingBytes, bytes.length);
    t.deepEqual(Buffer.concat(encoder.take()), bytes);
    t.is(encoder.pendingBytes, 0);
  });

  test(`${of.name}: decodes, split anywhere`, (t) => {
    for (let split = 0; split <= bytes.length; split++) {
      const { got, decoder } = collect();
      t.is(decoder.feed(bytes.subarray(0, split)), null);
      t.is(got.length, split === bytes.length ? 1 : 0, `after ${split} bytes`);
      t.is(decoder.feed(bytes.subarray(split)), null);
      t.deepEqual(got, [golden(of)], `split at ${split}`);
    }
  });

  test(`${of.name}: decodes byte by byte`, (t) => {
    const { got, decoder } = collect();
    for (const byte of bytes) t.is(decoder.feed(Uint8Array.of(byte)), null);
    t.deepEqual(got, [golden(of)]);
  });

  test(`${of.name}: any flipped bit is an error, and nothing is delivered`, (t) => {
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const damaged = Buffer.from(bytes);
      const at = bit >> 3;
      damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << (bit & 7)), at);
      const { got, decoder } = collect();
      const error = decoder.feed(damaged);
      t.not(error, null, `bit ${bit}`);
      t.deepEqual(got, []);
      // What follows a bad packet is never looked at, however good it is.
      t.is(decoder.feed(bytes), error);
      t.deepEqual(got, []);
    }
  });
}

test('all golden packets in one stream come out in order, in chunks of any size', (t) => {
  const encoder = new PacketEncoder();
  for (const of of goldenPackets) encoder.encode(of.packet, goldenPayload(of));
  const stream = Buffer.concat(encoder.take());
  for (const size of [1, 7, 31, 32, 33, 100, stream.length]) {
    const { got, decoder } = collect();
    for (let at = 0; at < stream.length; at += size) {
      t.is(decoder.feed(stream.subarray(at, at + size)), null);
    }
    t.deepEqual(got, goldenPackets.map(golden), `chunks of ${size}`);
  }
});
