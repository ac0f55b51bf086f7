/** The simulator's own models: a disk with a cache, metadata that commits, a network that breaks. */
import test from 'ava';
import type { Superblock } from '../../replicator/core/metadata.ts';
import { Expectations } from './expectations.ts';
import { Prng } from './prng.ts';
import { SimDisk, SimPayload } from './sim-disk.ts';
import { SimMetadata } from './sim-metadata.ts';
import { SimNetwork } from './sim-network.ts';
import type { Host } from './sim-network.ts';
import { World } from './world.ts';

const block = 4096;

function makeDisk(seed = 1n): { world: World; disk: SimDisk; write: (at: number, stamp: number) => void } {
  const world = new World(seed);
  const disk = new SimDisk(world, 'disk', 64 * block, { latencyMs: 5 });
  const write = (at: number, stamp: number): void => {
    const payload = new SimPayload(new Uint32Array(8).fill(stamp));
    disk.write('write', at * block, block, payload, () => undefined);
    world.run(world.nowMs + 100);
  };
  return { world, disk, write };
}

test('prng: the same seed gives the same numbers, each seed its own', (t) => {
  const some = (seed: bigint): number[] => {
    const prng = new Prng(seed);
    return Array.from({ length: 20 }, () => prng.int(1000));
  };
  t.deepEqual(some(1n), some(1n));
  t.notDeepEqual(some(1n), some(2n));
  t.true(some(3n).every((number) => number >= 0 && number < 1000));
});

test('world: events happen in order of time, those of one time in the order they were asked for', (t) => {
  const world = new World(1n);
  const happened: string[] = [];
  for (const [delayMs, name] of [
    [5, 'c'],
    [1, 'a'],
    [5, 'd'],
    [2, 'b'],
  ] as const) {
    world.after(delayMs, () => happened.push(name));
  }
  world.after(2, () => world.after(0, () => happened.push('after b')));
  world.run(10);
  t.deepEqual(happened, ['a', 'b', 'after b', 'c', 'd']);
  t.is(world.nowMs, 10);
});

test('disk: a killed process leaves what was written; a power cut may lose what was not flushed', (t) => {
  let lost = 0;
  for (let seed = 1n; seed <= 20n; seed++) {
    const { world, disk, write } = makeDisk(seed);
    write(0, 1);
    disk.flush(() => undefined);
    world.run(world.nowMs + 100);
    write(1, 2);
    disk.kill();
    t.is(disk.visible[8], 2);
    disk.powerCut();
    t.is(disk.visible[0], 1);
    if (disk.visible[8] === 0) lost++;
  }
  t.true(lost > 0 && lost < 20);
});

test('disk: a flush covers the writes that ended before it was asked for, and no later ones', (t) => {
  const { world, disk, write } = makeDisk();
  write(0, 1);
  disk.flush(() => undefined);
  const payload = new SimPayload(new Uint32Array(8).fill(2));
  disk.write('write', block, block, payload, () => undefined);
  world.run(world.nowMs + 100);
  t.is(disk.stable[0], 1);
  t.is(disk.stable[8], 0);
  t.is(disk.visible[8], 2);
});

test('disk: a failed flush loses what it should have saved', (t) => {
  const { world, disk, write } = makeDisk();
  write(0, 1);
  disk.fail();
  disk.flush((outcome) => t.is(outcome, 'failed'));
  world.run(1000);
  disk.repair();
  t.is(disk.visible[0], 0);
});

test('disk: overlapping writes under way are a violation, a trim of less than a block is nothing', (t) => {
  const { world, disk } = makeDisk();
  disk.write('trim', 512, 1024, null, () => undefined);
  disk.write('zeroes', 0, block, null, () => undefined);
  t.deepEqual(world.violations, []);
  disk.write('zeroes', 512, block, null, () => undefined);
  t.is(world.violations.length, 1);
});

const superblock: Superblock = {
  ...{ sizeBytes: 1, origin: 'settled', current: 1n, bitmap: [], history: [], disk: 'UpToDate' },
  partedAsPrimary: false,
  ...{ primary: false, writer: false, linked: false, peerExcluded: false, detached: false },
};

test('metadata: a crash keeps a beginning of what was not yet reported, and reports none of it', (t) => {
  const kept = new Set<bigint>();
  for (let seed = 1n; seed <= 40n; seed++) {
    const world = new World(seed);
    const metadata = new SimMetadata(world, 'node', superblock, 50);
    for (const current of [2n, 3n, 4n])
      metadata.commit({ superblock: { ...superblock, current } }, () => t.fail());
    metadata.kill();
    world.run(1000);
    kept.add(metadata.superblock.current);
  }
  t.deepEqual([...kept].sort(), [1n, 2n, 3n, 4n]);
});

test('metadata: transactions become durable in order, chunks and active ranges with them', (t) => {
  const world = new World(1n);
  const metadata = new SimMetadata(world, 'node', superblock, 50);
  const done: number[] = [];
  metadata.commit(
    { activate: [{ first: 1, count: 1 }], chunks: [{ chunk: 0, image: Uint8Array.of(1) }] },
    () => done.push(1),
  );
  metadata.commit({ deactivate: [{ first: 1, count: 1 }], chunks: [{ chunk: 0, image: null }] }, () =>
    done.push(2),
  );
  world.run(1000, () => done.length === 1);
  t.is(metadata.image().active.length, 1);
  t.is(metadata.image().chunks.length, 1);
  world.run(1000);
  t.deepEqual(done, [1, 2]);
  t.deepEqual([metadata.image().active, metadata.image().chunks], [[], []]);
});

interface Log extends Host {
  readonly heard: string[];
}

function makeHost(name: string): Log {
  const heard: string[] = [];
  return {
    ...{ name, heard, isUp: true, isResponding: true, published: null },
    linkUp: (session) => heard.push(`up ${session}`),
    linkDown: (session) => heard.push(`down ${session}`),
    linkRefused: () => undefined,
    packet: (_session, packet) => heard.push(packet.kind === 'written' ? String(packet.seq) : packet.kind),
  };
}

function connected(seed: bigint): { world: World; network: SimNetwork; a: Log; b: Log; sendAll: () => void } {
  const world = new World(seed);
  const network = new SimNetwork(world, {
    delayMs: 10,
    connectIntervalMs: 50,
    probeTimeoutMs: 100,
    wire: 'values',
  });
  const [a, b] = [makeHost('a'), makeHost('b')];
  network.start([a, b]);
  for (const host of [a, b]) network.wantLink(host, true);
  world.run(500, () => a.heard.length > 0 && b.heard.length > 0);
  const sendAll = (): void => {
    for (let seq = 1; seq <= 5; seq++) network.send(a, 1, { kind: 'written', seq }, null);
  };
  return { world, network, a, b, sendAll };
}

test('network: a session delivers in order; what was sent before it was closed arrives before its end', (t) => {
  const { world, network, a, b, sendAll } = connected(3n);
  sendAll();
  network.wantLink(a, false);
  network.close(a, 1);
  world.run(2000);
  t.deepEqual(b.heard, ['up 1', '1', '2', '3', '4', '5', 'down 1']);
  t.deepEqual(a.heard, ['up 1']);
});

test('network: a stall holds packets back until it heals', (t) => {
  const { world, network, b, sendAll } = connected(4n);
  network.cut('stall');
  sendAll();
  world.run(world.nowMs + 5000);
  t.deepEqual(b.heard, ['up 1']);
  network.heal();
  t.deepEqual(b.heard, ['up 1', '1', '2', '3', '4', '5']);
});

test('network: a machine without power is not missed until it is back; then the old session may end after the new one has begun', (t) => {
  const orders = new Set<string>();
  for (let seed = 1n; seed <= 20n; seed++) {
    const { world, network, a, b } = connected(seed);
    network.hostDied(a, true);
    world.run(world.nowMs + 5000);
    t.deepEqual(b.heard, ['up 1']);
    network.wantLink(a, true);
    world.run(world.nowMs + 500);
    orders.add(b.heard.join(', '));
  }
  t.deepEqual([...orders].sort(), ['up 1, down 1, up 2', 'up 1, up 2, down 1']);
});

test('expectations: an acknowledged write hides what ended before it, and only that', (t) => {
  const expectations = new Expectations(4096);
  const before = expectations.issue('write', 0, 1);
  expectations.acknowledged(before, 'write', false);
  const given = expectations.issue('write', 0, 1);
  expectations.givenUp(given);
  const since = expectations.readIssued();
  t.false(expectations.isLegitimate(0, 0, since));
  t.true(expectations.isLegitimate(0, before.value, since));
  t.true(expectations.isLegitimate(0, given.value, since));
  const after = expectations.issue('write', 0, 1);
  t.true(expectations.isLegitimate(0, after.value, since));
  expectations.acknowledged(after, 'write', false);
  const later = expectations.readIssued();
  t.false(expectations.isLegitimate(0, given.value, later));
  t.true(expectations.isLegitimate(0, given.value, since), 'the earlier read is still under way');
});

test('expectations: lost caches bring back what was before, but not what was flushed away', (t) => {
  const expectations = new Expectations(4096);
  const [first, second] = [expectations.issue('write', 0, 1), expectations.issue('write', 0, 1)];
  expectations.acknowledged(first, 'write', false);
  expectations.acknowledged(second, 'write', false);
  expectations.flushed(expectations.flushIssued());
  const third = expectations.issue('write', 0, 1);
  expectations.acknowledged(third, 'write', false);
  expectations.loseUnflushed();
  const since = expectations.readIssued();
  t.true(expectations.isLegitimate(0, second.value, since));
  t.true(expectations.isLegitimate(0, third.value, since));
  t.false(expectations.isLegitimate(0, 0, since));
  expectations.loseEverything();
  t.true(expectations.isLegitimate(0, 0, since));
});

test('expectations: a copy may lack what was not flushed and still have all that is durable, and only then', (t) => {
  const expectations = new Expectations(4096);
  const [earlier, kept] = [expectations.issue('write', 0, 2), expectations.issue('write', 0, 2)];
  expectations.acknowledged(earlier, 'write', false);
  expectations.acknowledged(kept, 'write', true);
  const replaced = expectations.issue('write', 0, 1);
  expectations.acknowledged(replaced, 'write', false);
  const copy = new Uint32Array(4096).fill(kept.value, 0, 2);
  t.is(expectations.firstMissing(copy), 0);
  t.is(expectations.firstDurableMissing(copy), null);
  t.is(expectations.firstDurableMissing(copy.slice().fill(replaced.value, 0, 1)), null);
  t.is(expectations.firstDurableMissing(new Uint32Array(4096)), 0);
  t.is(expectations.firstDurableMissing(copy.slice().fill(replaced.value, 1, 2)), 1, 'never written there');
  const [before, flushed] = [expectations.issue('write', 1, 1), expectations.flushIssued()];
  expectations.acknowledged(before, 'write', false);
  expectations.flushed(flushed);
  t.is(expectations.firstDurableMissing(copy), 0, 'what was flushed counts');
  t.is(expectations.firstDurableMissing(copy.slice().fill(replaced.value, 0, 1)), null, 'and nothing later');
});

test('expectations: a trim may leave what was there', (t) => {
  const expectations = new Expectations(4096);
  const write = expectations.issue('write', 0, 4000);
  expectations.acknowledged(write, 'write', true);
  const trim = expectations.issue('trim', 0, 4000);
  expectations.acknowledged(trim, 'trim', false);
  const since = expectations.readIssued();
  t.true(expectations.isLegitimate(7, 0, since));
  t.true(expectations.isLegitimate(7, write.value, since));
});
