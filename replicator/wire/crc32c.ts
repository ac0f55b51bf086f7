/**
 * CRC32C (Castagnoli, reflected polynomial 0x82f63b78). The hardware instruction is far away (a native call costs
 * more than 100 ns) but fast; a table is near but slow. Headers and small bodies take the table.
 */
import { crc32c as nativeCrc32c } from '@node-rs/crc32';

/** Below this many bytes the table wins (measured: they meet at about 60). */
const nativeFromBytes = 56;

const table = new Int32Array(256).map((_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC32C of `bytes[start, end)`, continuing `initial` (the CRC of what came before; 0 at the beginning). */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length, initial = 0): number {
  if (end - start >= nativeFromBytes) {
    return nativeCrc32c(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end), initial);
  }
  let crc = ~initial;
  for (let at = start; at < end; at++) {
    crc = (table[(crc ^ (bytes[at] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}
