/**
 * Holes stay holes: TRIM and WRITE_ZEROES are mirrored as such, and a resync copies what is allocated and nothing else. Told
 * by what the file system has allocated for both backing files.
 */
import { statSync } from 'node:fs';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import type { NbdClient } from '../../nbd/client.ts';
import { onlyPeer } from '../support/cluster.ts';
import { compareFiles } from '../support/files-equal.ts';
import { isConnection, mebibyte, startMirror } from '../support/mirror.ts';
import type { Mirror } from '../support/mirror.ts';

const sizeBytes = 256 * mebibyte;
const kibibyte = 1024;
/** File systems keep a little of their own, and allocate ahead. */
const toleranceBytes = 512 * kibibyte;

/** 32 MiB in 64 places; half of it goes again, in parts that lie within and across what a resync asks for at once. */
async function writeAndPunch(client: NbdClient, seed: number): Promise<void> {
  const places = Array.from({ length: 64 }, (_, i) => i * 4 * mebibyte + (seed + i) * 52 * kibibyte);
  for (const [i, place] of places.entries()) {
    await client.write(place, Buffer.alloc(512 * kibibyte, (i % 250) + seed));
  }
  for (const [i, place] of places.entries()) {
    if (i % 4 === 0) await client.trim(place, 512 * kibibyte);
    // Every other 64 KiB: data and holes in turn.
    if (i % 4 === 1)
      for (let at = 0; at < 512; at += 128) await client.trim(place + at * kibibyte, 64 * kibibyte);
    if (i % 4 === 2) await client.writeZeroes(place + 128 * kibibyte, 256 * kibibyte);
  }
  await client.flush();
}

async function assertThin(t: ExecutionContext, mirror: Mirror): Promise<void> {
  const { alpha, beta, pair } = mirror;
  await pair.mirroring();
  const client = await mirror.attach(alpha);
  await client.flush();
  await client.disconnect();
  const [primary, secondary] = await Promise.all([alpha.status(), beta.status()]);
  t.deepEqual(compareFiles(primary.backing.path, secondary.backing.path), { equal: true });
  const [here, there] = [primary, secondary].map(({ backing }) => statSync(backing.path).blocks * 512);
  t.log(
    `allocated: ${(here ?? 0) / kibibyte} KiB on the Primary, ${(there ?? 0) / kibibyte} KiB on the Secondary`,
  );
  t.true((here ?? 0) > 10 * mebibyte && (here ?? 0) < 40 * mebibyte);
  t.true(Math.abs((here ?? 0) - (there ?? 0)) <= toleranceBytes, `${here} and ${there} bytes are allocated`);
}

test.serial(
  'thin: trims and zeroes free the same on both nodes, connected or resynced, quickly or in full',
  async (t) => {
    const mirror = await startMirror(t, { sizeBytes });
    const { alpha, beta } = mirror;
    await alpha.order('promote');
    const client = await mirror.attach(alpha);
    await writeAndPunch(client, 1);
    await assertThin(t, mirror);

    // Away: what was data becomes holes and the other way round, in ranges that are copied together.
    await beta.node.kill9();
    await alpha.waitFor(isConnection('Connecting'), 'beta gone');
    await client.trim(0, sizeBytes / 2);
    await writeAndPunch(client, 3);
    await beta.node.start();
    await assertThin(t, mirror);

    await beta.order('resync', { action: 'invalidate' });
    await beta.waitFor(
      (status) => status.diskState === 'UpToDate' && onlyPeer(status).connection === 'Connected',
      'copied in full',
    );
    await assertThin(t, mirror);
  },
);
