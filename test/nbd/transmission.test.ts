/** Requests and what becomes of them: tables over the protocol without sockets. */
import fc from 'fast-check';
import test from 'ava';
import * as nbd from '../../nbd/constants.ts';
import { NbdProtocolError } from '../../nbd/protocol-error.ts';
import type { ReplyMode } from '../../nbd/transmission-codec.ts';
import { hex, SocketlessServer } from '../support/conversation.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import type { DeviceCall } from '../support/memory-device.ts';

const SIZE = 64 * 1024 * 1024;
const MAX = nbd.MAXIMUM_PAYLOAD_SIZE;

function begin(mode: ReplyMode, device = new MemoryDevice(SIZE), exportName = 'r0'): SocketlessServer {
  const server = new SocketlessServer(device);
  const setMeta = Buffer.from(`\0\0\0\x02${exportName}\0\0\0\x01\0\0\0\x0fbase:allocation`);
  const option = (number: number, data: Buffer): Buffer => {
    const header = hex('"IHAVEOPT" 00*8');
    header.writeUInt32BE(number, 8);
    header.writeUInt32BE(data.length, 12);
    return Buffer.concat([header, data]);
  };
  server.feed(hex('00000003'));
  if (mode === 'structured') server.feed(option(nbd.NBD_OPT_STRUCTURED_REPLY, Buffer.alloc(0)));
  if (mode === 'extended') server.feed(option(nbd.NBD_OPT_EXTENDED_HEADERS, Buffer.alloc(0)));
  if (mode !== 'simple') server.feed(option(nbd.NBD_OPT_SET_META_CONTEXT, setMeta));
  server.feed(option(nbd.NBD_OPT_GO, Buffer.from(`\0\0\0\x02${exportName}\0\0`)));
  return server;
}

interface Ask {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: bigint;
  readonly length?: bigint;
  readonly payload?: Buffer;
}

function compact({ type, flags = 0, offset = 0n, length = 0n, payload }: Ask): Buffer {
  const bytes = hex('25609513 00*24');
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(0xfedc_ba98_7654_3210n, 8);
  bytes.writeBigUInt64BE(offset, 16);
  bytes.writeUInt32BE(Number(length), 24);
  return Buffer.concat([bytes, payload ?? Buffer.alloc(0)]);
}

function extended({ type, flags = 0, offset = 0n, length = 0n, payload }: Ask): Buffer {
  const bytes = hex('21e41c71 00*28');
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(0xfedc_ba98_7654_3210n, 8);
  bytes.writeBigUInt64BE(offset, 16);
  bytes.writeBigUInt64BE(length, 24);
  return Buffer.concat([bytes, payload ?? Buffer.alloc(0)]);
}

/** The error value of a single reply; 0 is success. */
function errorOf(reply: Buffer): number {
  switch (reply.readUInt32BE(0)) {
    case nbd.NBD_SIMPLE_REPLY_MAGIC:
      return reply.readUInt32BE(4);
    case nbd.NBD_STRUCTURED_REPLY_MAGIC:
      return reply.readUInt16BE(6) === nbd.NBD_REPLY_TYPE_ERROR ? reply.readUInt32BE(20) : 0;
    case nbd.NBD_EXTENDED_REPLY_MAGIC:
      return reply.readUInt16BE(6) === nbd.NBD_REPLY_TYPE_ERROR ? reply.readUInt32BE(32) : 0;
    default:
      throw new Error('not a reply');
  }
}

const { NBD_CMD_READ: READ, NBD_CMD_WRITE: WRITE, NBD_CMD_FLUSH: FLUSH, NBD_CMD_TRIM: TRIM } = nbd;
const { NBD_CMD_CACHE: CACHE, NBD_CMD_WRITE_ZEROES: ZEROES, NBD_CMD_BLOCK_STATUS: STATUS } = nbd;
const { NBD_EINVAL: EINVAL, NBD_ENOSPC: ENOSPC, NBD_EPERM: EPERM, NBD_EOVERFLOW: EOVERFLOW } = nbd;
const end = BigInt(SIZE);
const ff = 0xffff_ffff_ffff_ffffn;

/** Refusals over structured replies: nothing reaches the device, and the connection is usable after each. */
const refusals: readonly (readonly [title: string, ask: Ask, error: number])[] = [
  ['an unknown command', { type: 99, length: 1n }, EINVAL],
  ['RESIZE, an extension we do not have', { type: 8 }, EINVAL],
  ['READ beyond the end', { type: READ, offset: end - 1n, length: 2n }, EINVAL],
  ['READ at the end', { type: READ, offset: end, length: 1n }, EINVAL],
  ['READ whose end wraps around 2^64', { type: READ, offset: ff, length: 2n }, EINVAL],
  ['READ at 2^53 + 1', { type: READ, offset: 2n ** 53n + 1n, length: 1n }, EINVAL],
  ['READ of nothing', { type: READ, offset: 0n }, EINVAL],
  ['READ longer than the maximum payload', { type: READ, length: BigInt(MAX + 1) }, EOVERFLOW],
  ['READ with an unknown flag', { type: READ, length: 1n, flags: 0x8000 }, EINVAL],
  ['READ with REQ_ONE', { type: READ, length: 1n, flags: nbd.NBD_CMD_FLAG_REQ_ONE }, EINVAL],
  [
    'READ with PAYLOAD_LEN and compact headers',
    { type: READ, length: 1n, flags: nbd.NBD_CMD_FLAG_PAYLOAD_LEN },
    EINVAL,
  ],
  ['WRITE beyond the end', { type: WRITE, offset: end - 1n, length: 2n, payload: Buffer.alloc(2) }, ENOSPC],
  [
    'WRITE whose end wraps around 2^64',
    { type: WRITE, offset: ff, length: 4n, payload: Buffer.alloc(4) },
    ENOSPC,
  ],
  ['WRITE of nothing', { type: WRITE }, EINVAL],
  [
    'WRITE longer than the maximum payload',
    { type: WRITE, length: BigInt(MAX + 1), payload: Buffer.alloc(MAX + 1) },
    EINVAL,
  ],
  [
    'WRITE with an unknown flag',
    { type: WRITE, length: 3n, flags: 0x4000, payload: Buffer.from('abc') },
    EINVAL,
  ],
  [
    'WRITE with DF',
    { type: WRITE, length: 3n, flags: nbd.NBD_CMD_FLAG_DF, payload: Buffer.from('abc') },
    EINVAL,
  ],
  ['FLUSH with a length', { type: FLUSH, length: 1n }, EINVAL],
  ['FLUSH with an offset', { type: FLUSH, offset: 1n }, EINVAL],
  ['TRIM beyond the end', { type: TRIM, offset: 1n, length: end }, EINVAL],
  ['TRIM with NO_HOLE', { type: TRIM, length: 1n, flags: nbd.NBD_CMD_FLAG_NO_HOLE }, EINVAL],
  ['CACHE beyond the end', { type: CACHE, offset: 1n, length: end }, EINVAL],
  ['WRITE_ZEROES beyond the end', { type: ZEROES, offset: 1n, length: end }, ENOSPC],
  ['WRITE_ZEROES with DF', { type: ZEROES, length: 1n, flags: nbd.NBD_CMD_FLAG_DF }, EINVAL],
  ['BLOCK_STATUS beyond the end', { type: STATUS, offset: 1n, length: end }, EINVAL],
  ['BLOCK_STATUS of nothing', { type: STATUS }, EINVAL],
];

for (const [title, ask, error] of refusals)
  test(`${title} is refused, and the connection goes on`, (t) => {
    const server = begin('structured');
    t.is(errorOf(server.feed(compact(ask))), error);
    t.deepEqual(server.device.calls, []);
    t.is(errorOf(server.feed(compact({ type: READ, length: 512n }))), 0);
  });

const extendedRefusals: readonly (readonly [title: string, ask: Ask, error: number])[] = [
  ['WRITE without PAYLOAD_LEN', { type: WRITE, length: 512n }, EINVAL],
  ['READ with a payload', { type: READ, flags: 32, length: 5n, payload: Buffer.from('abcde') }, EINVAL],
  [
    'an unknown command with a payload',
    { type: 99, flags: 32, length: 5n, payload: Buffer.from('abcde') },
    EINVAL,
  ],
  ['TRIM of nearly 2^64', { type: TRIM, length: ff }, EINVAL],
  [
    'BLOCK_STATUS with an unknown context',
    { type: STATUS, flags: 32, length: 12n, payload: hex('0000000000001000 00000009') },
    EINVAL,
  ],
  [
    'BLOCK_STATUS with no context',
    { type: STATUS, flags: 32, length: 8n, payload: hex('0000000000001000') },
    EINVAL,
  ],
  [
    'BLOCK_STATUS with a context twice',
    { type: STATUS, flags: 32, length: 16n, payload: hex('0000000000001000 00000001 00000001') },
    EINVAL,
  ],
  [
    'BLOCK_STATUS with a payload of 5 bytes',
    { type: STATUS, flags: 32, length: 5n, payload: Buffer.from('abcde') },
    EINVAL,
  ],
  [
    'BLOCK_STATUS with an effect length beyond the end',
    { type: STATUS, flags: 32, length: 12n, payload: hex('ffffffffffffffff 00000001') },
    EINVAL,
  ],
];

for (const [title, ask, error] of extendedRefusals)
  test(`extended headers: ${title} is refused, its payload taken in`, (t) => {
    const server = begin('extended');
    t.is(errorOf(server.feed(extended(ask))), error);
    t.deepEqual(server.device.calls, []);
    t.is(errorOf(server.feed(extended({ type: READ, length: 512n }))), 0);
  });

test('extended headers: a payload beyond the maximum ends the session', (t) => {
  const server = begin('extended');
  server.feed(extended({ type: WRITE, flags: 32, length: BigInt(MAX) + 1n }));
  t.is(server.ended, 'abandoned');
});

test('extended headers: compact requests are a protocol error', (t) => {
  const server = begin('extended');
  const padded = Buffer.concat([compact({ type: READ, length: 1n }), Buffer.alloc(4)]);
  t.throws(() => server.feed(padded), { instanceOf: NbdProtocolError });
});

test('simple replies: READ longer than the maximum payload, and DF, are invalid', (t) => {
  const server = begin('simple');
  t.is(errorOf(server.feed(compact({ type: READ, length: BigInt(MAX + 1) }))), EINVAL);
  t.is(errorOf(server.feed(compact({ type: READ, length: 1n, flags: nbd.NBD_CMD_FLAG_DF }))), EINVAL);
  t.is(errorOf(server.feed(compact({ type: STATUS, length: 1n }))), EINVAL);
});

test('a read-only export refuses what writes, and serves the rest', (t) => {
  for (const mode of ['simple', 'structured'] as const) {
    const server = begin(mode, new MemoryDevice(SIZE), 'ro');
    t.is(errorOf(server.feed(compact({ type: WRITE, length: 3n, payload: Buffer.from('abc') }))), EPERM);
    t.is(errorOf(server.feed(compact({ type: TRIM, length: 3n }))), EPERM);
    t.is(errorOf(server.feed(compact({ type: ZEROES, length: 3n }))), EPERM);
    t.deepEqual(server.device.calls, []);
    t.is(errorOf(server.feed(compact({ type: READ, length: 3n }))), 0);
    t.is(errorOf(server.feed(compact({ type: FLUSH }))), 0);
  }
});

/** What the device is told, with FUA, which is accepted on everything. */
const carriedOut: readonly (readonly [title: string, ask: Ask, call: DeviceCall])[] = [
  [
    'READ',
    { type: READ, flags: 1, offset: 7n, length: 5n },
    { kind: 'read', offsetBytes: 7, lengthBytes: 5 },
  ],
  [
    'WRITE',
    { type: WRITE, flags: 1, offset: 7n, length: 3n, payload: Buffer.from('abc') },
    { kind: 'write', offsetBytes: 7, lengthBytes: 3, fua: true },
  ],
  ['FLUSH', { type: FLUSH, flags: 1 }, { kind: 'flush' }],
  [
    'TRIM of everything',
    { type: TRIM, flags: 1, length: end },
    { kind: 'trim', offsetBytes: 0, lengthBytes: SIZE, fua: true },
  ],
  [
    'CACHE of everything',
    { type: CACHE, flags: 1, length: end },
    { kind: 'cache', offsetBytes: 0, lengthBytes: SIZE },
  ],
  [
    'WRITE_ZEROES of everything',
    { type: ZEROES, flags: 1 | 2 | 16, length: end },
    { kind: 'writeZeroes', offsetBytes: 0, lengthBytes: SIZE, fua: true, noHole: true, fastZero: true },
  ],
  [
    'BLOCK_STATUS of everything',
    { type: STATUS, flags: 1 | 8, length: end },
    { kind: 'blockStatus', offsetBytes: 0, lengthBytes: SIZE },
  ],
];

for (const [title, ask, call] of carriedOut)
  test(`${title} reaches the device as it was meant`, (t) => {
    const server = begin('structured');
    t.is(errorOf(server.feed(compact(ask))), 0);
    t.deepEqual(server.device.calls, [call]);
  });

test('effect lengths beyond 2^32 are one request with extended headers', (t) => {
  const huge = 2 ** 52;
  const server = begin('extended', new MemoryDevice(huge));
  for (const type of [TRIM, ZEROES, CACHE, STATUS])
    t.is(errorOf(server.feed(extended({ type, length: BigInt(huge) }))), 0);
  t.true(server.device.calls.every((call) => 'lengthBytes' in call && call.lengthBytes === huge));
  t.is(errorOf(server.feed(extended({ type: READ, offset: BigInt(huge) - 1n, length: 1n }))), 0);
  t.is(errorOf(server.feed(extended({ type: READ, offset: BigInt(huge), length: 1n }))), EINVAL);
});

for (const [error, value] of [
  ['EIO', nbd.NBD_EIO],
  ['ENOSPC', nbd.NBD_ENOSPC],
  ['EPERM', nbd.NBD_EPERM],
  ['EINVAL', nbd.NBD_EINVAL],
  ['ESHUTDOWN', nbd.NBD_ESHUTDOWN],
  ['ENOTSUP', nbd.NBD_EINVAL],
] as const)
  test(`the device's ${error} is told as ${value}, for every command`, (t) => {
    const device = new MemoryDevice(SIZE);
    device.fail = () => error;
    for (const mode of ['simple', 'structured'] as const) {
      const server = begin(mode, device);
      for (const type of [READ, TRIM, CACHE, ZEROES])
        t.is(errorOf(server.feed(compact({ type, length: 512n }))), value);
      t.is(errorOf(server.feed(compact({ type: WRITE, length: 3n, payload: Buffer.from('abc') }))), value);
      t.is(errorOf(server.feed(compact({ type: FLUSH }))), value);
    }
  });

test('ENOTSUP is told for FAST_ZERO only', (t) => {
  const device = new MemoryDevice(SIZE);
  device.fastZero = false;
  const server = begin('simple', device);
  t.is(errorOf(server.feed(compact({ type: ZEROES, length: 512n, flags: 16 }))), nbd.NBD_ENOTSUP);
  t.is(errorOf(server.feed(compact({ type: ZEROES, length: 512n }))), 0);
});

test('block status without REQ_ONE stays within the request and merges equal neighbours', (t) => {
  const device = new MemoryDevice(SIZE);
  device.blockStatus = (_offset, _length, _most, done) => {
    done(null, [
      { lengthBytes: 512, hole: true, zero: true },
      { lengthBytes: 512, hole: true, zero: true },
      { lengthBytes: 1024, hole: false, zero: true },
    ]);
  };
  const reply = begin('structured', device).feed(compact({ type: STATUS, length: 4096n }));
  t.is(reply.subarray(20).toString('hex'), '00000001' + '0000040000000003' + '0000040000000002');
});

for (const [title, extents] of [
  ['no extent', []],
  ['an extent of length zero', [{ lengthBytes: 0, hole: true, zero: true }]],
  ['more than was asked', [{ lengthBytes: 4097, hole: true, zero: true }]],
] as const)
  test(`a device that tells ${title} is a bug that stops the process`, (t) => {
    const device = new MemoryDevice(SIZE);
    device.blockStatus = (_offset, _length, _most, done) => {
      done(null, extents);
    };
    t.throws(() => begin('structured', device).feed(compact({ type: STATUS, length: 4096n })), {
      message: /the device told/,
    });
  });

test('a device that completes twice, or reads short, is a bug that stops the process', (t) => {
  const twice = new MemoryDevice(SIZE);
  twice.flush = (done) => {
    done(null);
    done(null);
  };
  t.throws(() => begin('simple', twice).feed(compact({ type: FLUSH })), { message: /twice/ });
  const short = new MemoryDevice(SIZE);
  short.read = (_offset, _length, done) => {
    done(null, Buffer.alloc(1));
  };
  t.throws(() => begin('simple', short).feed(compact({ type: READ, length: 2n })), { message: /read of 2/ });
});

test('a payload within one chunk is handed over as a view of it', (t) => {
  const device = new MemoryDevice(SIZE);
  const seen: Uint8Array[] = [];
  device.write = (_offset, data, _options, done) => {
    seen.push(data);
    done(null);
  };
  const request = compact({ type: WRITE, length: 65536n, payload: Buffer.alloc(65536, 5) });
  begin('simple', device).feed(request);
  t.true(seen[0]?.buffer === request.buffer);
});

test('any 28 bytes after the magic are answered or end the session, and the device sees only what fits', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 9 }),
      fc.integer({ min: 0, max: 63 }),
      fc.bigInt({ min: 0n, max: ff }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      (type, commandFlags, offset, length) => {
        // A write's payload is not sent: it has nothing to answer yet.
        const server = begin('structured', new MemoryDevice(100_000));
        const reply = server.feed(compact({ type, flags: commandFlags, offset, length: BigInt(length) }));
        for (const call of server.device.calls)
          if ('offsetBytes' in call)
            t.true(call.lengthBytes > 0 && call.offsetBytes + call.lengthBytes <= 100_000);
        t.true(type === WRITE || server.ended !== 'no' || reply.length >= 20);
      },
    ),
  );
});

test('requests cut anywhere have the same effect', (t) => {
  const requests = Buffer.concat([
    compact({ type: WRITE, offset: 5n, length: 9000n, payload: Buffer.alloc(9000, 1) }),
    compact({ type: WRITE, offset: end, length: 700n, payload: Buffer.alloc(700, 2) }),
    compact({ type: WRITE, offset: 5000n, length: 300n, payload: Buffer.alloc(300, 3) }),
    compact({ type: READ, offset: 4n, length: 9100n }),
  ]);
  const whole = begin('structured');
  const expected = whole.feed(requests).toString('hex');
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: requests.length }), { maxLength: 12 }), (cuts) => {
      const server = begin('structured');
      const before = server.output.length;
      let at = 0;
      for (const cut of [...cuts.sort((a, b) => a - b), requests.length]) {
        server.feed(requests.subarray(at, cut));
        at = cut;
      }
      t.is(server.output.subarray(before).toString('hex'), expected);
    }),
    { numRuns: 50 },
  );
});
