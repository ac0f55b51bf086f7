/**
 * CRC32C (Castagnoli, reflected polynomial 0x82f63b78). Three ways, by length: a table, since a native call costs more
 * than 100 ns; Intel's ISA-L where the system has it (Debian: libisal2), which folds with carry-less multiplication; and
 * otherwise the hardware instruction, one word after the other, which takes several times as long (`npm run bench -- --micro`).
 */
import { crc32c as nativeCrc32c } from '@node-rs/crc32';
import koffi from 'koffi';
import type { KoffiFunc } from 'koffi';

/** Below this many bytes the table wins (measured: they meet at about 60). */
const nativeFromBytes = 56;

type Crc = (bytes: Uint8Array, initial: number) => number;

const table = new Int32Array(256).map((_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

const long: Crc = bindIsaL() ?? nativeCrc32c;

/** Which of them does the long ones: for whoever measures. */
export const crc32cImplementation: 'isa-l' | 'instruction' = long === nativeCrc32c ? 'instruction' : 'isa-l';

/** CRC32C of `bytes[start, end)`, continuing `initial` (the CRC of what came before; 0 at the beginning). */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length, initial = 0): number {
  if (end - start >= nativeFromBytes) {
    return long(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end), initial);
  }
  return byTable(bytes, start, end, initial);
}

function byTable(bytes: Uint8Array, start: number, end: number, initial: number): number {
  let crc = ~initial;
  for (let at = start; at < end; at++) {
    crc = (table[(crc ^ (bytes[at] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

/** Null where it is not installed, or does not give what the table does. */
function bindIsaL(): Crc | null {
  let call: KoffiFunc<(bytes: Uint8Array, length: number, initial: number) => number>;
  try {
    call = koffi.load('libisal.so.2').func('crc32_iscsi', 'uint32', ['void *', 'int', 'uint32']);
  } catch {
    return null;
  }
  const crc: Crc = (bytes, initial) => ~call(bytes, bytes.length, ~initial >>> 0) >>> 0;
  const sample = Uint8Array.from({ length: 4099 }, (_, at) => at * 31);
  const isRight = [0, 1, 7, 64, 1000].every((start) => {
    const piece = sample.subarray(start);
    return crc(piece, start) === byTable(piece, 0, piece.length, start);
  });
  return isRight ? crc : null;
}
