/**
 * Sizes as people write them: a number of bytes or "10GiB". Binary units only mean powers of 1024, decimal
 * ones powers of 1000, as everywhere else; there is no guessing in between.
 */

/** Sizes are multiples of the dirty bitmap's block, in bytes. */
export const sizeMultipleBytes = 4096;
/** Largest device: 16 TiB, for which the metadata has room (replicator/shell/metadata-format.ts). */
export const sizeBytesMax = 16 * 1024 ** 4;

const unitBytes: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
  kB: 1000,
  KB: 1000,
  MB: 1000 ** 2,
  GB: 1000 ** 3,
  TB: 1000 ** 4,
};

/** What `parseSize` reads, for schemas: digits, at most one decimal point, one of the units. */
export const sizePattern = '^[0-9]{1,15}(\\.[0-9]{1,6})?\\s?(B|K|M|G|T|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$';
const sizeText = /^([0-9]{1,15}(?:\.[0-9]{1,6})?)\s?([A-Za-z]*)$/;

export type SizeResult =
  { readonly ok: true; readonly sizeBytes: number } | { readonly ok: false; readonly problem: string };

/** A device size in bytes: positive, a multiple of 4096, at most 16 TiB. */
export function parseSize(value: number | string): SizeResult {
  const bytes = typeof value === 'number' ? value : bytesOf(value);
  if (bytes === null || !Number.isSafeInteger(bytes)) {
    return bad(`${JSON.stringify(value)} is no size; write a whole number of bytes or a text like "10GiB"`);
  }
  if (bytes <= 0) return bad(`the size must be positive, not ${bytes}`);
  if (bytes % sizeMultipleBytes !== 0) {
    const below = bytes - (bytes % sizeMultipleBytes);
    const near = below === 0 ? sizeMultipleBytes : below;
    return bad(`the size must be a multiple of ${sizeMultipleBytes} bytes; ${bytes} is not, ${near} is`);
  }
  if (bytes > sizeBytesMax)
    return bad(`the size is at most ${formatSize(sizeBytesMax)}, not ${formatSize(bytes)}`);
  return { ok: true, sizeBytes: bytes };
}

/** The shortest exact binary form: 1073741824 -> "1GiB"; what no unit divides stays in bytes. */
export function formatSize(bytes: number): string {
  for (const unit of ['TiB', 'GiB', 'MiB', 'KiB']) {
    const one = unitBytes[unit] ?? 1;
    if (bytes >= one && bytes % one === 0) return `${bytes / one}${unit}`;
  }
  return `${bytes}B`;
}

function bytesOf(text: string): number | null {
  const match = sizeText.exec(text.trim());
  if (!match) return null;
  const unit = unitBytes[match[2] ?? ''];
  return unit === undefined ? null : Number(match[1]) * unit;
}

function bad(problem: string): SizeResult {
  return { ok: false, problem };
}
