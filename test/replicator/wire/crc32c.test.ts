/** Whatever computes it, CRC32C is the same: against the check value of its definition, and bit by bit. */
import fc from 'fast-check';
import test from 'ava';
import { crc32c, crc32cImplementation } from '../../../replicator/wire/crc32c.ts';

function bitByBit(bytes: Uint8Array, initial: number): number {
  let crc = ~initial >>> 0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

test('the check value is that of iSCSI', (t) => {
  t.is(crc32c(Buffer.from('123456789')), 0xe3069283);
});

test('any piece of any bytes, continued from any value', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3000 }), fc.nat(), fc.nat(), fc.nat(), (bytes, a, b, initial) => {
      const start = a % (bytes.length + 1);
      const end = start + (b % (bytes.length - start + 1));
      t.is(crc32c(bytes, start, end, initial), bitByBit(bytes.subarray(start, end), initial));
    }),
  );
});

test('where everything is installed, the fast one is in use', (t) => {
  if (process.env['CI'] === 'true') t.is(crc32cImplementation, 'isa-l');
  else t.regex(crc32cImplementation, /^(isa-l|instruction)$/);
});
