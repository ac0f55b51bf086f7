/** Sizes and endpoints as people write them. */
import test from 'ava';
import fc from 'fast-check';
import { formatEndpoint, isLoopback, parseEndpoint } from '../../server/endpoint.ts';
import { nearest } from '../../server/nearest.ts';
import { formatSize, parseSize, sizeBytesMax, sizePattern } from '../../server/size.ts';

const good: readonly (readonly [number | string, number])[] = [
  [4096, 4096],
  ['4096', 4096],
  ['4096B', 4096],
  ['4K', 4096],
  ['4KiB', 4096],
  ['10GiB', 10 * 1024 ** 3],
  ['10 GiB', 10 * 1024 ** 3],
  ['1.5GiB', 1.5 * 1024 ** 3],
  ['16TiB', sizeBytesMax],
  ['4096kB', 4_096_000],
  ['512MB', 512_000_000],
];
for (const [text, bytes] of good) {
  test(`size ${JSON.stringify(text)} is ${bytes}`, (t) => {
    t.deepEqual(parseSize(text), { ok: true, sizeBytes: bytes });
  });
}

for (const text of [
  '',
  'x',
  '10gib',
  '10 GiBs',
  '-4096',
  '1e6',
  '0x1000',
  '4096 4096',
  '0.1B',
  '1GB1',
  0,
  -4096,
  4095,
  NaN,
  Infinity,
  2 ** 53,
]) {
  test(`size ${typeof text} ${String(text) || '(empty)'} is refused`, (t) => {
    t.false(parseSize(text).ok);
  });
}

test('sizes: format and parse are inverse for every multiple of 4096', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: sizeBytesMax / 4096 }), (blocks) => {
      const text = formatSize(blocks * 4096);
      t.deepEqual(parseSize(text), { ok: true, sizeBytes: blocks * 4096 });
      t.regex(text, new RegExp(sizePattern));
    }),
  );
});

test('sizes: whatever is accepted is a positive safe multiple of 4096 within the limit', (t) => {
  const written = fc
    .tuple(
      fc.oneof(fc.nat(70_000), fc.float({ min: 0, max: 100, noNaN: true })),
      fc.constantFrom('', 'K', 'MiB', 'GiB', 'TiB', 'MB'),
    )
    .map(([amount, unit]) => `${amount}${unit}`);
  let accepted = 0;
  fc.assert(
    fc.property(fc.oneof(fc.double(), fc.integer(), fc.string(), written), (value) => {
      const result = parseSize(value);
      if (!result.ok) return;
      accepted++;
      t.true(Number.isSafeInteger(result.sizeBytes) && result.sizeBytes > 0);
      t.is(result.sizeBytes % 4096, 0);
      t.true(result.sizeBytes <= sizeBytesMax);
    }),
    { numRuns: 2000 },
  );
  t.true(accepted > 10);
});

test('endpoints: parse and format are inverse; ports end at 65535', (t) => {
  for (const text of ['127.0.0.1:0', 'localhost:65535', '[::1]:7789', 'node-1.example:1']) {
    const endpoint = parseEndpoint(text);
    t.is(endpoint && formatEndpoint(endpoint), text);
  }
  for (const text of ['', '7789', ':7789', 'a:', 'a:65536', '::1:7789', 'a:b', 'a:1:2', '[]:1', 'a:-1']) {
    t.is(parseEndpoint(text), null, text);
  }
});

test('loopback is 127/8, ::1 and localhost', (t) => {
  t.deepEqual(
    ['127.0.0.1', '127.9.9.9', '::1', 'localhost', '0.0.0.0', '::', '10.0.0.1', '127.evil.example'].map(
      isLoopback,
    ),
    [true, true, true, true, false, false, false, false],
  );
});

test('nearest: a misspelt word finds its neighbour, another one nothing', (t) => {
  t.is(nearest('staus', ['status', 'promote']), 'status');
  t.is(nearest('onPeerLost', ['onPeerLoss', 'protocol']), 'onPeerLoss');
  t.is(nearest('zebra', ['status', 'promote']), null);
});
