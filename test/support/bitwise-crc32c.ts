/** CRC32C one bit at a time, straight from its definition: shares nothing with the code under test. */
export function bitwiseCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Makes both CRCs of a frame right again after a test has changed other bytes of it. */
export function seal(frame: Uint8Array): Buffer {
  const sealed = Buffer.from(frame);
  sealed.writeUInt32BE(bitwiseCrc32c(sealed.subarray(32)), 24);
  sealed.writeUInt32BE(bitwiseCrc32c(sealed.subarray(0, 28)), 28);
  return sealed;
}
