/** Option haggling: tables of options and what the server answers. */
import fc from 'fast-check';
import test from 'ava';
import * as nbd from '../../nbd/constants.ts';
import { decodeOption, encodeExportRequest, encodeMetaContextRequest } from '../../nbd/handshake-codec.ts';
import { MAX_OPTION_BYTES, MAX_SKIPPED_OPTION_BYTES } from '../../nbd/handshake-intake.ts';
import type { TlsMode } from '../../nbd/handshake.ts';
import { NbdProtocolError } from '../../nbd/protocol-error.ts';
import { hex, SocketlessServer } from '../support/conversation.ts';
import { MemoryDevice } from '../support/memory-device.ts';

const flags = hex('00000003');
const device = new MemoryDevice(1024 * 1024);

function option(number: number, data: Buffer = Buffer.alloc(0), lengthBytes = data.length): Buffer {
  const header = Buffer.alloc(16);
  header.write('IHAVEOPT');
  header.writeUInt32BE(number, 8);
  header.writeUInt32BE(lengthBytes, 12);
  return Buffer.concat([header, data]);
}

/** Reply types in an answer, and the text of the last, if that is an error. */
function replies(bytes: Buffer): { types: number[]; message: string; data: Buffer[] } {
  const types: number[] = [];
  const data: Buffer[] = [];
  let message = '';
  for (let at = 0; at < bytes.length;) {
    const type = bytes.readUInt32BE(at + 12);
    const length = bytes.readUInt32BE(at + 16);
    types.push(type);
    data.push(bytes.subarray(at + 20, at + 20 + length));
    if (type >= 0x80000000) message = bytes.toString('utf8', at + 20, at + 20 + length);
    at += 20 + length;
  }
  return { types, message, data };
}

function haggle(
  options: readonly Buffer[],
  tls: TlsMode = 'off',
): { server: SocketlessServer; last: Buffer } {
  const server = new SocketlessServer(device, tls);
  let last = server.feed(flags);
  for (const bytes of options) last = server.feed(bytes);
  return { server, last };
}

const SR = option(nbd.NBD_OPT_STRUCTURED_REPLY);
const EH = option(nbd.NBD_OPT_EXTENDED_HEADERS);
const go = (name: string, infos: readonly number[] = []): Buffer =>
  option(nbd.NBD_OPT_GO, encodeExportRequest(name, infos));
const info = (name: string): Buffer => option(nbd.NBD_OPT_INFO, encodeExportRequest(name, []));
const setMeta = (name: string, ...queries: string[]): Buffer =>
  option(nbd.NBD_OPT_SET_META_CONTEXT, encodeMetaContextRequest(name, queries));
const listMeta = (name: string, ...queries: string[]): Buffer =>
  option(nbd.NBD_OPT_LIST_META_CONTEXT, encodeMetaContextRequest(name, queries));
const exportName = (name: string): Buffer => option(nbd.NBD_OPT_EXPORT_NAME, Buffer.from(name));

const { NBD_REP_ACK: ACK, NBD_REP_INFO: INFO, NBD_REP_META_CONTEXT: META } = nbd;
const INVALID = nbd.NBD_REP_ERR_INVALID;

/** The last option's reply types; the talk goes on after each of these. */
const answers: readonly (readonly [title: string, options: readonly Buffer[], types: readonly number[]])[] = [
  ['an unknown option is unsupported', [option(77, Buffer.from('data'))], [nbd.NBD_REP_ERR_UNSUP]],
  ['PEEK_EXPORT, withdrawn, is unsupported', [option(4)], [nbd.NBD_REP_ERR_UNSUP]],
  ['LIST with data is invalid', [option(nbd.NBD_OPT_LIST, Buffer.from('x'))], [INVALID]],
  ['STRUCTURED_REPLY is acknowledged', [SR], [ACK]],
  [
    'STRUCTURED_REPLY with data is invalid',
    [option(nbd.NBD_OPT_STRUCTURED_REPLY, Buffer.from('x'))],
    [INVALID],
  ],
  ['EXTENDED_HEADERS is acknowledged', [EH], [ACK]],
  ['EXTENDED_HEADERS after STRUCTURED_REPLY is acknowledged', [SR, EH], [ACK]],
  ['STRUCTURED_REPLY after EXTENDED_HEADERS is refused', [EH, SR], [nbd.NBD_REP_ERR_EXT_HEADER_REQD]],
  [
    'EXTENDED_HEADERS with data is invalid',
    [option(nbd.NBD_OPT_EXTENDED_HEADERS, Buffer.from('x'))],
    [INVALID],
  ],
  [
    'STARTTLS without TLS configured is refused by policy',
    [option(nbd.NBD_OPT_STARTTLS)],
    [nbd.NBD_REP_ERR_POLICY],
  ],
  ['INFO of an export tells it', [info('r0')], [INFO, ACK]],
  ['INFO of the default export tells it', [info('')], [INFO, ACK]],
  ['INFO of no export is unknown', [info('nothing')], [nbd.NBD_REP_ERR_UNKNOWN]],
  ['GO of no export is unknown', [go('nothing')], [nbd.NBD_REP_ERR_UNKNOWN]],
  ['GO of a Secondary is refused by policy', [go('standby')], [nbd.NBD_REP_ERR_POLICY]],
  [
    'INFO ignores requests it does not know, and answers one asked twice once',
    [option(nbd.NBD_OPT_INFO, encodeExportRequest('r0', [3, 3, 999, 0]))],
    [INFO, INFO, ACK],
  ],
  [
    'GO with a name beyond its length is invalid',
    [option(nbd.NBD_OPT_GO, hex('00000009 "r0" 0000'))],
    [INVALID],
  ],
  ['GO with a name of 4 GiB is invalid', [option(nbd.NBD_OPT_GO, hex('ffffffff "r0" 0000'))], [INVALID]],
  [
    'GO with fewer requests than announced is invalid',
    [option(nbd.NBD_OPT_GO, hex('00000002 "r0" 0002 0003'))],
    [INVALID],
  ],
  ['GO with excess bytes is invalid', [option(nbd.NBD_OPT_GO, hex('00000002 "r0" 0000 00'))], [INVALID]],
  ['GO without data is invalid', [option(nbd.NBD_OPT_GO)], [INVALID]],
  ['GO with NUL in the name is invalid', [option(nbd.NBD_OPT_GO, hex('00000002 7200 0000'))], [INVALID]],
  [
    'GO with a name that is not UTF-8 is invalid',
    [option(nbd.NBD_OPT_GO, hex('00000002 c328 0000'))],
    [INVALID],
  ],
  ['GO with a name of 4097 bytes is invalid', [go('x'.repeat(4097))], [INVALID]],
  ['GO with a name of 4096 bytes is looked up', [go('x'.repeat(4096))], [nbd.NBD_REP_ERR_UNKNOWN]],
  ['SET_META_CONTEXT before STRUCTURED_REPLY is invalid', [setMeta('r0', 'base:allocation')], [INVALID]],
  ['LIST_META_CONTEXT before STRUCTURED_REPLY is invalid', [listMeta('r0')], [INVALID]],
  ['SET_META_CONTEXT selects base:allocation', [SR, setMeta('r0', 'base:allocation')], [META, ACK]],
  ['SET_META_CONTEXT works with extended headers alone', [EH, setMeta('r0', 'base:allocation')], [META, ACK]],
  [
    'SET_META_CONTEXT selects it once, however often asked',
    [SR, setMeta('', 'base:allocation', 'base:allocation')],
    [META, ACK],
  ],
  ['SET_META_CONTEXT does not know wildcards', [SR, setMeta('r0', 'base:')], [ACK]],
  ['SET_META_CONTEXT with no query selects nothing', [SR, setMeta('r0')], [ACK]],
  [
    'SET_META_CONTEXT ignores other namespaces, leaves and nonsense',
    [SR, setMeta('r0', 'qemu:dirty-bitmap:x', 'base:other', 'nonsense', '')],
    [ACK],
  ],
  [
    'SET_META_CONTEXT of no export is unknown',
    [SR, setMeta('nothing', 'base:allocation')],
    [nbd.NBD_REP_ERR_UNKNOWN],
  ],
  ['LIST_META_CONTEXT with no query lists all', [SR, listMeta('r0')], [META, ACK]],
  ['LIST_META_CONTEXT knows the wildcard base:', [SR, listMeta('r0', 'base:')], [META, ACK]],
  ['LIST_META_CONTEXT of another namespace lists nothing', [SR, listMeta('r0', 'qemu:')], [ACK]],
  [
    'a query beyond its option is invalid',
    [SR, option(10, hex('00000002 "r0" 00000001 0000000f "base"'))],
    [INVALID],
  ],
  ['4 Gi queries are invalid', [SR, option(10, hex('00000002 "r0" ffffffff'))], [INVALID]],
  [
    'SET_META_CONTEXT with excess bytes is invalid',
    [SR, option(10, hex('00000002 "r0" 00000000 00'))],
    [INVALID],
  ],
];

for (const [title, options, types] of answers)
  test(title, (t) => {
    const { server, last } = haggle(options);
    t.deepEqual(replies(last).types, [...types]);
    t.deepEqual(replies(server.feed(info('r0'))).types, [INFO, ACK], 'the talk goes on');
  });

test('ABORT is acknowledged, whatever data it has, and ends the session', (t) => {
  const { server, last } = haggle([option(nbd.NBD_OPT_ABORT, Buffer.from('bye'))]);
  t.deepEqual(replies(last).types, [ACK]);
  t.is(server.ended, 'closed');
});

test('a refusal names the Primary', (t) => {
  t.is(replies(haggle([go('standby')]).last).message, 'standby is Secondary here; the Primary is beta');
});

test('INFO says the same when asked twice, and GO says it again', (t) => {
  const { server, last } = haggle([SR, info('r0')]);
  t.deepEqual(server.feed(info('r0')), last);
  t.deepEqual(replies(server.feed(go('r0'))).data, replies(last).data);
});

for (const [title, name] of [
  ['an unknown export', 'nothing'],
  ['a refused export', 'standby'],
  ['a name with NUL', 'r\0'],
] as const)
  test(`EXPORT_NAME of ${title} ends the session without a word`, (t) => {
    const { server, last } = haggle([exportName(name)]);
    t.is(server.ended, 'closed');
    t.is(last.length, 0);
  });

test('EXPORT_NAME after EXTENDED_HEADERS ends the session', (t) => {
  t.is(haggle([EH, exportName('r0')]).server.ended, 'closed');
});

test('EXPORT_NAME is padded with 124 zeroes unless both sides chose NO_ZEROES', (t) => {
  t.is(haggle([exportName('r0')]).last.length, 10);
  const server = new SocketlessServer(device);
  server.feed(hex('00000001'));
  t.is(server.feed(exportName('r0')).length, 134);
});

test('a client without fixed newstyle may use EXPORT_NAME and nothing else', (t) => {
  const served = new SocketlessServer(device);
  served.feed(hex('00000000'));
  t.is(served.feed(exportName('r0')).length, 134);
  const closed = new SocketlessServer(device);
  closed.feed(hex('00000000'));
  closed.feed(info('r0'));
  t.is(closed.ended, 'closed');
});

test('an unknown client flag ends the session', (t) => {
  for (let bit = 2; bit < 32; bit++) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE((3 | (1 << bit)) >>> 0);
    t.throws(() => new SocketlessServer(device).feed(bytes), { instanceOf: NbdProtocolError });
  }
});

/** Whether BLOCK_STATUS is allowed after these options, which end with GO. */
const selections: readonly (readonly [title: string, options: readonly Buffer[], allowed: boolean])[] = [
  ['selected for the export opened', [SR, setMeta('r0', 'base:allocation'), go('r0')], true],
  ['selected by the default name', [SR, setMeta('', 'base:allocation'), go('r0')], true],
  ['never selected', [SR, go('r0')], false],
  ['selected for another export', [SR, setMeta('ro', 'base:allocation'), go('r0')], false],
  [
    'selected, then replaced by nothing',
    [SR, setMeta('r0', 'base:allocation'), setMeta('r0'), go('r0')],
    false,
  ],
  [
    'selected, then replaced by a failing SET',
    [SR, setMeta('r0', 'base:allocation'), setMeta('nothing', 'base:allocation'), go('r0')],
    false,
  ],
  [
    'selected, then replaced by a malformed SET',
    [SR, setMeta('r0', 'base:allocation'), option(10, hex('00')), go('r0')],
    false,
  ],
  ['selected, then listed', [SR, setMeta('r0', 'base:allocation'), listMeta('r0', 'qemu:'), go('r0')], true],
];

for (const [title, options, allowed] of selections)
  test(`base:allocation ${title}: BLOCK_STATUS is ${allowed ? 'answered' : 'refused'}`, (t) => {
    const { server } = haggle(options);
    const reply = server.feed(hex('25609513 0000 0007 00*8 00*8 00001000'));
    t.is(reply.readUInt16BE(6), allowed ? nbd.NBD_REPLY_TYPE_BLOCK_STATUS : nbd.NBD_REPLY_TYPE_ERROR);
  });

test('SEND_DF is told only once structured replies were negotiated', (t) => {
  const told = (options: readonly Buffer[]): number =>
    replies(haggle([...options, info('r0')]).last).data[0]?.readUInt16BE(10) ?? 0;
  t.is(told([]) & nbd.NBD_FLAG_SEND_DF, 0);
  t.not(told([SR]) & nbd.NBD_FLAG_SEND_DF, 0);
  t.not(told([EH]) & nbd.NBD_FLAG_SEND_DF, 0);
  t.is(told([SR, setMeta('r0', 'base:allocation')]) & nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD, 0);
  t.is(told([EH]) & nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD, 0);
  t.not(told([EH, setMeta('r0', 'base:allocation')]) & nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD, 0);
});

test('required TLS refuses everything but STARTTLS and ABORT', (t) => {
  for (const bytes of [
    SR,
    EH,
    info('r0'),
    go('r0'),
    option(nbd.NBD_OPT_LIST),
    option(77),
    option(7, hex('00')),
  ])
    t.deepEqual(replies(haggle([bytes], 'required').last).types, [nbd.NBD_REP_ERR_TLS_REQD]);
  t.is(haggle([exportName('r0')], 'required').server.ended, 'closed');
  t.deepEqual(replies(haggle([option(nbd.NBD_OPT_ABORT)], 'required').last).types, [ACK]);
  const { server, last } = haggle([option(nbd.NBD_OPT_STARTTLS)], 'required');
  t.deepEqual(replies(last).types, [ACK]);
  t.is(server.ended, 'tls');
  server.secured();
  t.deepEqual(replies(server.feed(info('r0'))).types, [INFO, ACK]);
  t.deepEqual(replies(server.feed(option(nbd.NBD_OPT_STARTTLS))).types, [INVALID]);
});

test('STARTTLS with data is invalid', (t) => {
  t.deepEqual(replies(haggle([option(nbd.NBD_OPT_STARTTLS, hex('00'))], 'optional').last).types, [INVALID]);
});

test('STARTTLS forgets what was negotiated before', (t) => {
  const { server } = haggle([SR, setMeta('r0', 'base:allocation'), option(nbd.NBD_OPT_STARTTLS)], 'optional');
  server.secured();
  t.deepEqual(replies(server.feed(listMeta('r0'))).types, [INVALID], 'structured replies are off again');
  server.feed(SR);
  server.feed(go('r0'));
  const reply = server.feed(hex('25609513 0000 0007 00*8 00*8 00001000'));
  t.is(reply.readUInt16BE(6), nbd.NBD_REPLY_TYPE_ERROR, 'the context is gone');
});

test('an option longer than is read is skipped and too big, and the talk goes on', (t) => {
  const { server, last } = haggle([option(nbd.NBD_OPT_GO, Buffer.alloc(MAX_OPTION_BYTES + 1))]);
  t.deepEqual(replies(last).types, [nbd.NBD_REP_ERR_TOO_BIG]);
  t.deepEqual(replies(server.feed(info('r0'))).types, [INFO, ACK]);
});

test('an option that announces 4 GiB ends the session at its header', (t) => {
  const { server } = haggle([option(nbd.NBD_OPT_GO, Buffer.alloc(0), 0xffff_ffff)]);
  t.is(server.ended, 'closed');
  const justTooLong = option(77, Buffer.alloc(0), MAX_SKIPPED_OPTION_BYTES + 1);
  t.is(haggle([justTooLong]).server.ended, 'closed');
});

test('any bytes as option data are decoded or malformed, never an exception', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 64 }), (number, data) => {
      const decoded = decodeOption(number, Buffer.from(data));
      return typeof decoded.kind === 'string';
    }),
  );
  t.pass();
});

test('what is encoded for GO and SET_META_CONTEXT is decoded again', (t) => {
  const name = fc.string({ unit: 'grapheme', maxLength: 40 }).filter((s) => !s.includes('\0'));
  const queries = fc.array(fc.string({ unit: 'grapheme-ascii', maxLength: 20 }), { maxLength: 8 });
  fc.assert(
    fc.property(name, fc.array(fc.integer({ min: 0, max: 65535 }), { maxLength: 8 }), queries, (n, i, q) => {
      t.deepEqual(decodeOption(7, encodeExportRequest(n, i)), { kind: 'go', exportName: n, infoRequests: i });
      t.deepEqual(decodeOption(10, encodeMetaContextRequest(n, q)), {
        kind: 'setMetaContext',
        exportName: n,
        queries: q,
      });
    }),
  );
});
