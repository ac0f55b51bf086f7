/** Frames: every split, every truncation, every flipped bit, and lengths that lie. */
import test from 'ava';
import { PacketDecoder, PacketEncoder } from '../../../replicator/wire/codec.ts';
import { crc32c } from '../../../replicator/wire/crc32c.ts';
import { maxBlockIndex, maxBodyBytes, maxRunsPerPacket } from '../../../replicator/wire/constants.ts';
import { packetTypes } from '../../../replicator/wire/constants.ts';
import { packetBodies } from '../../../replicator/wire/packet-body.ts';
import { payloadKinds } from '../../../replicator/core/packet.ts';
import type { PacketKind } from '../../../replicator/core/packet.ts';
import { alwaysDisconnect } from '../../../replicator/core/after-split-brain.ts';
import type { PeerState } from '../../../replicator/core/packet.ts';
import { maxPayloadBytes } from '../../../replicator/core/vocabulary.ts';
import { goldenBytes } from '../../golden/peer/packets.ts';
import { bitwiseCrc32c, seal } from '../../support/bitwise-crc32c.ts';

/** Feeds the bytes and returns the field of the error, or what was delivered. */
function verdict(bytes: Uint8Array): string {
  const kinds: string[] = [];
  const decoder = new PacketDecoder((packet) => kinds.push(packet.kind));
  const error = decoder.feed(bytes);
  return error === null ? kinds.join(' ') : error.field;
}

/** A golden frame with some bytes replaced and both CRCs right again. */
function changed(name: string, at: number, hex: string): Buffer {
  const frame = goldenBytes(name);
  frame.write(hex, at, 'hex');
  return seal(frame);
}

/** A golden frame with another body and no payload, lengths and CRCs right. */
function withBody(name: string, hex: string): Buffer {
  const body = Buffer.from(hex, 'hex');
  const frame = Buffer.concat([goldenBytes(name).subarray(0, 32), body]);
  frame.writeUInt32BE(body.length, 8);
  frame.writeUInt32BE(0, 12);
  return seal(frame);
}

test('CRC32C is right for every length around the switch to the native one, and when continued', (t) => {
  const bytes = Buffer.from(Array.from({ length: 300 }, (_, i) => (i * 167 + 13) & 0xff));
  t.is(crc32c(Buffer.from('123456789')), 0xe3069283);
  for (let length = 0; length < 200; length++) {
    const part = bytes.subarray(3, 3 + length);
    t.is(crc32c(bytes, 3, 3 + length), bitwiseCrc32c(part), `${length} bytes`);
    t.is(crc32c(bytes, 3 + length, 300, crc32c(part)), bitwiseCrc32c(bytes.subarray(3)), `after ${length}`);
  }
});

const header = test.macro({
  title: (_, at: number, hex: string, field: string) => `header: ${hex} at byte ${at} is refused (${field})`,
  exec(t, at: number, hex: string, field: string) {
    t.is(verdict(changed('written', at, hex)), field);
  },
});
test(header, 0, '4c4b5351', 'magic');
test(header, 4, '00', 'type');
test(header, 4, 'ff', 'type');
test(header, 4, 'e0', 'type');
test(header, 5, '01', 'flags');
test(header, 6, '0001', 'reserved');
test(header, 8, '00000007', 'bodyLength');
test(header, 8, '00000009', 'bodyLength');
test(header, 8, 'ffffffff', 'bodyLength');
test(header, 12, '00000001', 'payloadLength');
test(header, 16, '0000000000000001', 'sequence');
test(header, 16, '8000000000000000', 'sequence');

test('a length is not believed before the CRC of its header', (t) => {
  const frame = goldenBytes('bitmap');
  frame.writeUInt32BE(0xffffffff, 8);
  t.is(verdict(frame), 'headerCrc');
});

test('a body of 4 GiB and a payload of 4 GiB are refused at the header, with nothing allocated', (t) => {
  for (const [at, field] of [
    [8, 'bodyLength'],
    [12, 'payloadLength'],
  ] as const) {
    const before = process.memoryUsage();
    const frame = seal(changed('write', at, 'ffffffff')).subarray(0, 32);
    t.is(verdict(frame), field);
    const after = process.memoryUsage();
    t.true(after.arrayBuffers + after.external - before.arrayBuffers - before.external < 1024 * 1024);
  }
});

test('a payload of 32 MiB is announced, one byte more is refused', (t) => {
  const frame = changed('write', 12, (maxPayloadBytes + 1).toString(16).padStart(8, '0'));
  t.is(verdict(frame.subarray(0, 32)), 'payloadLength');
  t.is(verdict(changed('write', 12, maxPayloadBytes.toString(16).padStart(8, '0')).subarray(0, 32)), '');
});

test('a packet left out, sent twice or out of order ends the stream', (t) => {
  const encoder = new PacketEncoder();
  const frames = ['ping', 'pong', 'invalidate'].map((kind) => {
    encoder.encode({ kind } as { kind: 'ping' | 'pong' | 'invalidate' }, null);
    return Buffer.concat(encoder.take());
  });
  const [first, second, third] = frames as [Buffer, Buffer, Buffer];
  t.is(verdict(Buffer.concat([first, second, third])), 'ping pong invalidate');
  t.is(verdict(Buffer.concat([first, third])), 'sequence');
  t.is(verdict(Buffer.concat([first, first])), 'sequence');
  t.is(verdict(Buffer.concat([second, first])), 'sequence');
});

const body = test.macro({
  title: (_, name: string, hex: string, field: string) => `${name}: body ${hex} is refused (${field})`,
  exec(t, name: string, hex: string, field: string) {
    t.is(verdict(withBody(name, hex)), field);
  },
});
test(body, 'written', '0020000000000000', 'written.seq');
test(body, 'written', 'ffffffffffffffff', 'written.seq');
test(body, 'resyncPause', '02', 'resyncPause.paused');
test(body, 'resyncLimit', '0000000000000000000000000000000001', 'resyncLimit.windowBytes');
test(body, 'resyncLimit', '0000000000001000000000000000000006', 'resyncLimit.reason');
test(body, 'diskState', '0002', 'diskState.disk');
test(body, 'diskState', '0a02', 'diskState.disk');
test(body, 'diskState', '0104', 'diskState.role');
test(body, 'goodbye', '0501', 'goodbye.reason');
test(body, 'read', '000000000000000100000000000000000000000000000000', 'read.length');
test(body, 'read', '000000000000000100000000000000000000000002000001', 'read.length');
test(body, 'read', '0000000000000001001fffffffffffff0000000000000001', 'read.length');
test(body, 'write-trim', '0000000000000001001ffffffffffff000000000000000100200', 'write.length');
test(body, 'write-trim', '000000000000000100000000000000000000000000000010'.concat('0400'), 'write.op');
test(body, 'write-trim', '000000000000000100000000000000000000000000000010'.concat('0204'), 'write.flags');
test(body, 'write-trim', '000000000000000100000000000000000000000000000010'.concat('0100'), 'write.payload');
test(
  body,
  'resyncData-zero',
  '0000000000000001'.concat('0000000000000000', '0000000000000010', '00'),
  'resyncData.payload',
);
test(body, 'readData', '000000000000000f', 'readData.payload');
test(
  body,
  'digestRequest',
  '0000000000000018'.concat('0000000000002000', '0000000000001001', '01'),
  'digestRequest.payload',
);
test(
  body,
  'digestRequest',
  '0000000000000018'.concat('0000000000002000', '0000000000000000', '00'),
  'digestRequest.length',
);
test(
  body,
  'digestRequest',
  '0000000000000018'.concat('0000000000002000', '0000000002000001', '00'),
  'digestRequest.length',
);
test(
  body,
  'digestRequest',
  '0000000000000018'.concat('0000000000002000', '0000000000001001', '02'),
  'digestRequest.coarse',
);
test(body, 'scatteredRequest', '000000000000001900', 'scatteredRequest.runs');
test(body, 'scatteredRequest', '00000000000000190100'.concat('814000'), 'scatteredRequest.runs');
test(
  body,
  'scatteredData-zero',
  '0000000000000019'.concat('0000000000001000', '00', '010601'),
  'scatteredData.payload',
);
test(
  body,
  'scatteredData-zero',
  '0000000000000019'.concat('0000000002000001', '01', '010601'),
  'scatteredData.length',
);
test(body, 'resyncSame', '0000000000000018'.concat('010200'), 'resyncSame.runs');
test(
  body,
  'verifyRequest',
  '0000000000000019'.concat('0000000000000000', '0000000000001000', '0200'),
  'verifyRequest.mark',
);
test(
  body,
  'verifyRequest',
  '0000000000000019'.concat('0000000000000000', '0000000000001000', '0002'),
  'verifyRequest.coarse',
);
test(
  body,
  'verifyRequest',
  '0000000000000019'.concat('0000000000000000', '0000000002000001', '0000'),
  'verifyRequest.length',
);
test(body, 'verifyDigests', '0000000000000019', 'verifyDigests.payload');
test(body, 'verifyFound', '02010001', 'verifyFound.last');
test(body, 'refused', '000c73706c69742d627261696e', 'refused.rule');
test(body, 'refused', '010073706c69742d627261696e', 'refused.rule');
test(body, 'refused', '000a73706c69742d627261696e', 'refused.body');
test(body, 'refused', '0002c328', 'refused.rule');
test(body, 'bitmap', '010105', 'bitmap.runs');
test(body, 'bitmap', '01010500', 'bitmap.runs');
test(body, 'bitmap', '0101850001', 'bitmap.runs');
test(body, 'bitmap', '01010501ff', 'bitmap.body');
test(body, 'bitmap', '01818004', 'bitmap.runs');
test(body, 'bitmap', '0101ffffffffffffffffff01', 'bitmap.runs');
test(body, 'bitmap', '010180808080804001', 'bitmap.runs');
test(body, 'resyncStable', '010301'.concat('00'), 'resyncStable.body');
test(
  body,
  'newGeneration',
  '800000000000000121'.concat('0000000000000001'.repeat(32)),
  'newGeneration.history',
);
test(body, 'newGeneration', '800000000000000102'.concat('0000000000000001'), 'newGeneration.history');
test(body, 'handoverReply', '00000000000000170104', 'handoverReply.refusal.reason');
test(body, 'handoverReply', '000000000000001701ff', 'handoverReply.refusal.code');

test('state: reserved flags and too many generations are refused', (t) => {
  const state = goldenBytes('state').subarray(32);
  state.writeUInt8(0x40, 4);
  t.is(verdict(withBody('state', state.toString('hex'))), 'state.flags');
  state.writeUInt8(0, 4);
  t.is(verdict(withBody('state', state.toString('hex'))), 'state');
  state.writeUInt8(9, 40);
  t.is(verdict(withBody('state', state.toString('hex'))), 'state.bitmap');
});

test('a write whose payload has another length than the write is refused', (t) => {
  const frame = goldenBytes('write');
  frame.writeUInt32BE(4, 12);
  t.is(verdict(seal(frame.subarray(0, frame.length - 1))), 'write.payload');
});

test('half a hash is refused', (t) => {
  const frame = goldenBytes('verifyDigests');
  frame.writeUInt32BE(31, 12);
  t.is(verdict(seal(frame.subarray(0, frame.length - 1))), 'verifyDigests.payload');
});

test('the largest bitmap packet fits the bound of a body and comes back', (t) => {
  const runs = Array.from({ length: maxRunsPerPacket }, (_, i) => ({ first: i * 2 ** 25, count: 2 ** 24 }));
  t.true((runs.at(-1)?.first ?? 0) < maxBlockIndex);
  const encoder = new PacketEncoder();
  encoder.encode({ kind: 'bitmap', runs, last: false }, null);
  encoder.encode({ kind: 'resyncStable', runs }, null);
  const bytes = Buffer.concat(encoder.take());
  t.true(bytes.length < 2 * maxBodyBytes);
  const got: unknown[] = [];
  t.is(new PacketDecoder((packet) => got.push(packet)).feed(bytes), null);
  t.deepEqual(got, [
    { kind: 'bitmap', runs, last: false },
    { kind: 'resyncStable', runs },
  ]);
});

test('the bound of every body holds, and payloads belong to the kinds the core names', (t) => {
  for (const kind of Object.keys(packetTypes) as PacketKind[]) {
    t.true(packetBodies[kind].bodyBytesMax <= maxBodyBytes, kind);
    t.is(packetBodies[kind].payloadBytesMax > 0, payloadKinds.has(kind), kind);
  }
});

test('a packet that cannot be is not sent: the encoder throws', (t) => {
  const encoder = new PacketEncoder();
  t.throws(() => encoder.encode({ kind: 'written', seq: -1 }, null), { instanceOf: RangeError });
  t.throws(() => encoder.encode({ kind: 'written', seq: 2 ** 53 }, null), { instanceOf: RangeError });
  t.throws(() => encoder.encode({ kind: 'ping' }, Buffer.from('x')), { instanceOf: RangeError });
  t.throws(() => encoder.encode({ kind: 'readData', id: 1 }, null), { instanceOf: RangeError });
  t.throws(() => encoder.encode({ kind: 'syncFinished', current: 1n << 64n }, null), {
    instanceOf: RangeError,
  });
  t.throws(
    () =>
      encoder.encode(
        { kind: 'write', seq: 1, op: 'write', offset: 0, length: 2, fua: false, noHole: false },
        Buffer.from('x'),
      ),
    { instanceOf: RangeError },
  );
  const unordered = [
    { first: 5, count: 2 },
    { first: 6, count: 1 },
  ];
  t.throws(() => encoder.encode({ kind: 'bitmap', runs: unordered, last: true }, null), {
    instanceOf: RangeError,
  });
  // None of them has left anything behind.
  encoder.encode({ kind: 'ping' }, null);
  t.deepEqual(Buffer.concat(encoder.take()), goldenBytes('ping'));
});

test('text that is too long for its field is cut at a character', (t) => {
  const encoder = new PacketEncoder();
  encoder.encode({ kind: 'refused', rule: 'ä'.repeat(200) }, null);
  const got: unknown[] = [];
  new PacketDecoder((packet) => got.push(packet)).feed(Buffer.concat(encoder.take()));
  t.deepEqual(got, [{ kind: 'refused', rule: 'ä'.repeat(127) }]);
});

test('a long payload is not copied on the way out, nor on the way in when it is in one piece', (t) => {
  const payload = Buffer.alloc(20_000, 'hello');
  const encoder = new PacketEncoder();
  encoder.encode(
    { kind: 'write', seq: 0, op: 'write', offset: 0, length: payload.length, fua: false, noHole: false },
    payload,
  );
  encoder.encode({ kind: 'ping' }, null);
  const chunks = encoder.take();
  t.is(chunks.length, 3);
  t.is(chunks[1], payload);
  const stream = Buffer.concat(chunks);
  let got: Uint8Array | null = null;
  new PacketDecoder((_packet, data) => {
    got ??= data;
  }).feed(stream);
  t.is((got as Uint8Array | null)?.buffer, stream.buffer);
});

test('packets of one turn leave in one piece', (t) => {
  const encoder = new PacketEncoder();
  for (let seq = 0; seq < 100; seq++) encoder.encode({ kind: 'written', seq }, null);
  t.is(encoder.take().length, 1);
});

test('bytes taken from the encoder stay as they are while it goes on', (t) => {
  const encoder = new PacketEncoder();
  encoder.encode({ kind: 'written', seq: 1 }, null);
  const taken = encoder.take();
  const before = Buffer.concat(taken);
  for (let seq = 0; seq < 10_000; seq++) encoder.encode({ kind: 'written', seq }, null);
  t.deepEqual(Buffer.concat(taken), before);
});

test('a decoder that is stopped while it delivers delivers no more of that chunk', (t) => {
  const encoder = new PacketEncoder();
  for (let seq = 0; seq < 3; seq++) encoder.encode({ kind: 'written', seq }, null);
  const seen: unknown[] = [];
  const decoder = new PacketDecoder((packet) => {
    seen.push(packet);
    decoder.stop();
  });
  t.is(decoder.feed(Buffer.concat(encoder.take())), null);
  t.deepEqual(seen, [{ kind: 'written', seq: 0 }]);
});

test('an error thrown by the receiver of a packet is not taken for the fault of the peer', (t) => {
  const encoder = new PacketEncoder();
  encoder.encode({ kind: 'ping' }, null);
  const decoder = new PacketDecoder(() => {
    throw new Error('a bug');
  });
  t.throws(() => decoder.feed(Buffer.concat(encoder.take())), { message: 'a bug' });
});

const state: PeerState = {
  sizeBytes: 4096,
  protocol: 'C',
  role: 'Secondary',
  disk: 'Diskless',
  origin: 'created-empty',
  current: 0n,
  bitmap: Array.from({ length: 8 }, (_, i) => BigInt(i)),
  history: Array.from({ length: 32 }, (_, i) => BigInt(i)),
  exposed: 7n,
  writer: false,
  crashedPrimary: false,
  linked: false,
  peerExcluded: true,
  dirtyBlocks: 0,
  discardMyData: false,
  partedAsPrimary: false,
  ...alwaysDisconnect,
};

test('the largest state fits its bound', (t) => {
  const encoder = new PacketEncoder();
  encoder.encode({ kind: 'state', state }, null);
  const bytes = Buffer.concat(encoder.take());
  t.is(bytes.length, 32 + packetBodies.state.bodyBytesMax);
  const got: unknown[] = [];
  t.is(new PacketDecoder((packet) => got.push(packet)).feed(bytes), null);
  t.deepEqual(got, [{ kind: 'state', state }]);
});
