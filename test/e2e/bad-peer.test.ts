/**
 * A peer that knows the secret and does not keep to the protocol, and conversations that were valid before something
 * happened to their bytes: the session ends at worst. Nothing changes on the disk or in the generations, the node uses no
 * more memory than before, and a client of another resource of the node notices nothing.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { connectNbd } from '../../nbd/client.ts';
import type { Packet, PeerState } from '../../replicator/core/packet.ts';
import { packetTypes, supportedVersions } from '../../replicator/wire/constants.ts';
import { FrameEncoder } from '../../replicator/wire/frame-encoder.ts';
import { encodeHello, encodeProof } from '../../replicator/wire/handshake-codec.ts';
import { startNode } from '../support/cluster.ts';
import type { NodeProcess } from '../support/cluster.ts';
import { readConversation } from '../support/conversation.ts';
import { asEqual, FakePeer } from '../support/fake-peer.ts';
import type { FakePeerOptions, RawFrame } from '../support/fake-peer.ts';
import { memoryOf } from '../support/memory-use.ts';
import { mutated } from '../support/mutations.ts';
import { patienceMs } from '../support/node-process.ts';
import { freePort } from '../support/ports.ts';
import { seededRandom, StampedLoad } from '../support/stamped-load.ts';

const sizeBytes = 1024 * 1024;
const secret = 'only for this test';
/** The whole node may use this much more than before the attack, ever. */
const moreMemoryBytes = 256 * 1024 * 1024;

test.serial('an authenticated peer out of its mind ends its session, and nothing else changes', async (t) => {
  const { node, dial, unchanged, finish } = await underAttack(t);
  for (const role of ['Secondary', 'Primary'] as const) {
    if (role === 'Primary') await promote(node, dial);
    for (const [what, bad] of badFrames) {
      const peer = await dial();
      await peer.establish();
      peer.send(bad(peer));
      await peer.closed;
      t.pass(`${role}: ${what}`);
    }
    for (const [what, packet, payload] of uncalledFor) {
      const peer = await dial();
      await peer.establish();
      peer.say(packet, payload ?? null);
      // Ended or ignored, as it may be.
      await peer.isHeard();
      peer.destroy();
      t.pass(`${role}: ${what}`);
    }
    await unchanged(`as ${role}`);
  }
  for (const [what, packet, payload] of [...uncalledFor, ...tooEarly]) {
    const peer = await dial();
    await peer.introduced();
    peer.say(packet, payload ?? null);
    await peer.isHeard();
    peer.destroy();
    t.pass(`before its state: ${what}`);
  }
  await unchanged('before any state');
  await finish();
});

test.serial(
  'valid conversations of peers and of NBD clients, damaged: connections end, and nothing else',
  async (t) => {
    const { node, ports, dial, unchanged, finish } = await underAttack(t);
    const random = seededRandom(2026);
    for (let round = 0; round < 150; round++) {
      const peer = await dial();
      const theirs = await peer.introduced();
      peer.socket.end(mutated(conversation(peer, theirs), random));
      await peer.closed;
      if (round % 30 === 0) await unchanged(`round ${round}`);
    }
    await unchanged('authenticated');

    for (let round = 0; round < 150; round++) {
      const frames = new FrameEncoder();
      const nonce = Buffer.alloc(32, round);
      const identity = { resourceName: 'm0', nodeName: 'alpha', peerName: 'beta' };
      encodeHello(frames, {
        versions: supportedVersions,
        intent: 'session',
        features: 0,
        nonce,
        ...identity,
      });
      const hello = Buffer.concat(frames.take());
      encodeProof(frames, nonce);
      await throwAt(ports.replication, mutated([hello, Buffer.concat(frames.take())], random));
    }
    await unchanged('unauthenticated');

    const golden = ['nbd-options', 'nbd-simple', 'nbd-structured', 'nbd-extended'].map((name) =>
      readConversation(name)
        .filter(({ from }) => from === 'client')
        .map(({ bytes }) => bytes),
    );
    for (let round = 0; round < 300; round++) {
      await throwAt(ports.nbd, mutated(golden[round % golden.length] ?? [], random));
    }
    t.is((await node.status('r0')).diskState, 'UpToDate');
    await unchanged('NBD');
    await finish();
  },
);

test.serial(
  'whoever answers for the peer with damaged bytes gets no session, and harms nobody',
  async (t) => {
    const { node, unchanged, finish } = await underAttack(t);
    const random = seededRandom(7);
    let answered = 0;
    const enough = new Promise<void>((resolve) => {
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', (hello) => {
          // Its own hello, damaged or not, and something after it.
          socket.end(mutated([hello, hello, hello.subarray(0, 32)], random));
          if (++answered === 60) resolve();
        });
        socket.resume();
      });
      t.teardown(() => server.close());
      server.listen(0, '127.0.0.1', () => {
        const address = server.address();
        const port = typeof address === 'object' && address !== null ? address.port : 0;
        void define(node, 'd0', { peer: 'gamma', peerPort: port });
      });
    });
    await enough;
    t.is((await node.status('d0')).peers[0]?.connection, 'Connecting');
    await unchanged('after all answers');
    await finish();
  },
);

const deviceBlocks = sizeBytes / 4096;
const beyond2To53 = be64(2n ** 63n);

/** What no peer says in any state, with right checksums: each ends the session. */
const badFrames: readonly (readonly [string, (peer: FakePeer) => Buffer])[] = [
  ['an unknown type', (peer) => peer.frame({ type: 0x7f })],
  ['a type of the handshake', (peer) => peer.frame({ type: 0xe0, body: Buffer.alloc(64) })],
  ['reserved flags', (peer) => peer.frame({ type: packetTypes.ping, flags: 1 })],
  ['a sequence number that was used', (peer) => peer.frame({ type: packetTypes.ping, sequence: 0 })],
  ['a sequence number to come', (peer) => peer.frame({ type: packetTypes.ping, sequence: 1_000 })],
  ['a wrong checksum of the header', (peer) => peer.frame({ type: packetTypes.ping, headerCrc: 1 })],
  ['a wrong checksum of the content', (peer) => peer.frame({ type: packetTypes.ping, contentCrc: 1 })],
  ['a body of 4 GiB', (peer) => peer.frame({ type: packetTypes.write, bodyLength: 0xffffffff })],
  ['a payload of 4 GiB', (peer) => peer.frame(writeFrame({ payloadLength: 0xffffffff }))],
  [
    'a payload where none belongs',
    (peer) => peer.frame({ type: packetTypes.ping, payload: Buffer.alloc(9) }),
  ],
  ['an empty body of a write', (peer) => peer.frame({ type: packetTypes.write })],
  ['a write at 2^63', (peer) => peer.frame(writeFrame({ offset: beyond2To53 }))],
  ['a write of 2^63 bytes', (peer) => peer.frame(writeFrame({ length: beyond2To53 }))],
  ['a write of nothing', (peer) => peer.frame(writeFrame({ length: be64(0n), payload: Buffer.alloc(0) }))],
  ['a write of more than it carries', (peer) => peer.frame(writeFrame({ length: be64(8192n) }))],
  ['a write of an unknown kind', (peer) => peer.frame(writeFrame({ op: 99 }))],
  ['a write with unknown flags', (peer) => peer.frame(writeFrame({ writeFlags: 0x80 }))],
  ['a write across the end', (peer) => peer.frame(writeFrame({ offset: be64(BigInt(sizeBytes - 512)) }))],
  ['a trim beyond the end', (peer) => peer.encode(mirrored('trim', sizeBytes, 4096))],
  ['zeroes beyond the end', (peer) => peer.encode(mirrored('zeroes', sizeBytes - 4096, 2 ** 40))],
  ['a read beyond the end', (peer) => peer.encode({ kind: 'read', id: 1, offset: sizeBytes, length: 4096 })],
  [
    'a read of 2^63 bytes',
    (peer) => peer.frame({ type: packetTypes.read, body: Buffer.concat([be64(1n), be64(0n), beyond2To53]) }),
  ],
  ['a second state', (peer) => peer.encode({ kind: 'state', state: impossibleState })],
  ['a second syncReady', (peer) => peer.encode({ kind: 'syncReady' })],
  [
    'a bitmap after the handshake',
    (peer) => peer.encode({ kind: 'bitmap', runs: [{ first: 0, count: 1 }], last: true }),
  ],
  [
    'a bitmap beyond the device',
    (peer) => peer.encode({ kind: 'bitmap', runs: [{ first: deviceBlocks, count: 1 }], last: false }),
  ],
  ['a resync that was not agreed on', (peer) => peer.encode({ kind: 'syncStart', current: 5n, history: [] })],
  [
    'runs without end',
    (peer) =>
      peer.frame({
        type: packetTypes.resyncStable,
        body: Buffer.concat([Buffer.from([0xff, 0xff, 0x7f]), Buffer.alloc(40, 0xff)]),
      }),
  ],
];

/** Valid by themselves; nobody asked for them. */
const uncalledFor: readonly (readonly [string, Packet, Buffer?])[] = [
  ['written', { kind: 'written', seq: 77 }],
  ['received', { kind: 'received', seq: 2 ** 52 }],
  ['flushed', { kind: 'flushed', epoch: 12 }],
  ['flushFailed', { kind: 'flushFailed', epoch: 12 }],
  ['readData', { kind: 'readData', id: 4 }, Buffer.alloc(4096, 0xee)],
  ['readFailed', { kind: 'readFailed', id: 4 }],
  [
    'resyncData',
    { kind: 'resyncData', id: 3, offset: 0, length: 4096, zero: false },
    Buffer.alloc(4096, 0xee),
  ],
  ['resyncData of a hole', { kind: 'resyncData', id: 3, offset: 0, length: sizeBytes, zero: true }],
  ['resyncRequest', { kind: 'resyncRequest', id: 3, offset: 0, length: 4096 }],
  ['resyncRequest beyond the end', { kind: 'resyncRequest', id: 3, offset: sizeBytes, length: 2 ** 25 }],
  ['scatteredRequest', { kind: 'scatteredRequest', id: 3, runs: [{ first: 0, count: 1 }] }],
  [
    'scatteredRequest beyond the end',
    { kind: 'scatteredRequest', id: 3, runs: [{ first: 2 ** 40, count: 7 }] },
  ],
  [
    'scatteredData',
    { kind: 'scatteredData', id: 3, runs: [{ first: 0, count: 1 }], length: 4096, zero: false },
    Buffer.alloc(4096, 0xee),
  ],
  ['resyncFailed', { kind: 'resyncFailed', id: 3 }],
  ['resyncStable', { kind: 'resyncStable', runs: [{ first: 0, count: deviceBlocks }] }],
  ['resyncStable beyond the end', { kind: 'resyncStable', runs: [{ first: 2 ** 40, count: 7 }] }],
  ['syncFinished', { kind: 'syncFinished', current: 99n }],
  ['newGenerationDone', { kind: 'newGenerationDone', current: 99n }],
  ['peerDiskGoneDone', { kind: 'peerDiskGoneDone', current: 99n }],
  ['promoteReply', { kind: 'promoteReply', id: 6, granted: true }],
  ['handoverReply', { kind: 'handoverReply', id: 6, refusal: null }],
  ['pong', { kind: 'pong' }],
];

/** Valid in a session that is established. */
const tooEarly: readonly (readonly [string, Packet, Buffer?])[] = [
  ['write', mirrored('write', 0, 4096), Buffer.alloc(4096, 0xee)],
  ['trim', mirrored('trim', 0, sizeBytes)],
  ['syncReady', { kind: 'syncReady' }],
  ['newGeneration', { kind: 'newGeneration', current: 5n, history: [] }],
  ['peerDiskGone', { kind: 'peerDiskGone', current: 5n, history: [] }],
];

const impossibleState: PeerState = {
  sizeBytes: 4096,
  protocol: 'A',
  role: 'Primary',
  disk: 'UpToDate',
  origin: 'settled',
  current: 1n,
  bitmap: [],
  history: [],
  exposed: 1n,
  writer: true,
  crashedPrimary: true,
  linked: true,
  peerExcluded: true,
  dirtyBlocks: 0,
  discardMyData: false,
  partedAsPrimary: false,
  'after-sb-0pri': 'disconnect',
  'after-sb-1pri': 'disconnect',
  'after-sb-2pri': 'disconnect',
};

/** As a peer that has nothing to do: it introduces itself, agrees, asks for a flush and a block. */
function conversation(peer: FakePeer, theirs: PeerState): Buffer[] {
  const packets: readonly Packet[] = [
    { kind: 'state', state: asEqual(theirs) },
    { kind: 'syncReady' },
    { kind: 'diskState', disk: 'UpToDate', role: 'Secondary' },
    { kind: 'ping' },
    { kind: 'flush', epoch: 1 },
    { kind: 'read', id: 1, offset: 4096, length: 4096 },
  ];
  return packets.map((packet) => peer.encode(packet));
}

function mirrored(op: 'write' | 'trim' | 'zeroes', offset: number, length: number): Packet {
  return { kind: 'write', seq: 1, op, offset, length, fua: false, noHole: false };
}

/** A write of 4096 bytes to offset 0, but for what is changed. */
function writeFrame(change: {
  readonly offset?: Buffer;
  readonly length?: Buffer;
  readonly op?: number;
  readonly writeFlags?: number;
  readonly payload?: Buffer;
  readonly payloadLength?: number;
}): RawFrame {
  const { offset = be64(0n), length = be64(4096n), op = 1, writeFlags = 0, payloadLength } = change;
  const body = Buffer.concat([be64(1n), offset, length, Buffer.from([op, writeFlags])]);
  const payload = change.payload ?? Buffer.alloc(4096, 0xee);
  const frame = { type: packetTypes.write, body, payload };
  return payloadLength === undefined ? frame : { ...frame, payloadLength };
}

function be64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

interface UnderAttack {
  readonly node: NodeProcess;
  /** Of `r0`, which may be written to, and of `m0`, whose peer the test plays. */
  readonly ports: { readonly nbd: number; readonly replication: number };
  readonly dial: () => Promise<FakePeer>;
  /** Data, generation and disk of `m0` are as they were, and the client of `load` goes on. */
  readonly unchanged: (when: string) => Promise<void>;
  readonly finish: () => Promise<void>;
}

async function underAttack(t: ExecutionContext): Promise<UnderAttack> {
  const node = await startNode(t, { name: 'beta' });
  const ports = { nbd: await freePort(), replication: await freePort(), load: await freePort() };
  await node.call('PUT', '/v1/resources/r0', { size: sizeBytes, nbd: { listen: `127.0.0.1:${ports.nbd}` } });
  await node.call('PUT', '/v1/resources/load', {
    size: 4 * sizeBytes,
    nbd: { listen: `127.0.0.1:${ports.load}` },
  });
  await define(node, 'm0', { port: ports.replication, peer: 'alpha', peerPort: await freePort() });
  const options: FakePeerOptions = {
    ...{ port: ports.replication, resourceName: 'm0', name: 'alpha', peerName: 'beta', secret },
  };
  const dial = async (): Promise<FakePeer> => {
    const peer = await FakePeer.dial(options);
    t.teardown(() => peer.destroy());
    return peer;
  };
  // Something to lose.
  const first = await dial();
  await first.establish();
  first.say(mirrored('write', 4096, 4096), Buffer.alloc(4096, 0x5a));
  first.say({ kind: 'flush', epoch: 1 });
  t.truthy(await first.heard('flushed'));
  first.destroy();

  const client = await connectNbd({
    address: { host: '127.0.0.1', port: ports.load },
    exportName: 'load',
    timeoutMs: patienceMs,
  });
  t.teardown(() => client.destroy());
  const load = new StampedLoad({ sizeBytes: 4 * sizeBytes, seed: 9, queueDepth: 2 });
  const phase = load.start(client);
  await phase.acknowledged(100);
  const { pid } = node;
  const look = async (): Promise<unknown> => {
    // In a session of its own: without a peer a mirrored disk is Consistent at best.
    const peer = await dial();
    const state = await peer.establish();
    peer.destroy();
    const status = await node.status('m0');
    const data = createHash('sha256').update(readFileSync(status.backing.path)).digest('hex');
    const { origin, current, bitmap, history, dirtyBlocks, peerExcluded } = state;
    return {
      data,
      generation: status.generation,
      origin,
      current,
      bitmap,
      history,
      dirtyBlocks,
      peerExcluded,
    };
  };
  const before = await look();
  const memory = memoryOf(pid);
  return {
    node,
    ports,
    dial,
    unchanged: async (when) => {
      t.deepEqual(await look(), before, when);
      t.is(node.pid, pid);
      await phase.more(20);
    },
    finish: async () => {
      t.is((await phase.stop()).reason, 'stopped', 'the client saw no error');
      t.deepEqual(await load.verify((offset, length) => client.read(offset, length)), []);
      const more = memoryOf(pid).mostBytes - memory.nowBytes;
      t.true(more < moreMemoryBytes, `${more} bytes more at the most`);
      t.log(`at most ${Math.round(more / 2 ** 20)} MiB more`);
    },
  };
}

async function define(
  node: NodeProcess,
  resource: string,
  { port, peer, peerPort }: { readonly port?: number; readonly peer: string; readonly peerPort: number },
): Promise<void> {
  await node.call('PUT', `/v1/resources/${resource}`, {
    size: sizeBytes,
    replication: { listen: `127.0.0.1:${port ?? (await freePort())}`, secret },
    peers: [{ name: peer, address: `127.0.0.1:${peerPort}` }],
    policies: { connectIntervalMs: 50 },
  });
}

/** The peer that the test plays gives its leave. */
async function promote(node: NodeProcess, dial: () => Promise<FakePeer>): Promise<void> {
  const peer = await dial();
  await peer.establish();
  const promoted = node.call('POST', '/v1/resources/m0/promote');
  const asked = await peer.heard('promoteRequest');
  peer.say({ kind: 'promoteReply', id: asked?.id ?? 0, granted: true });
  await promoted;
  peer.destroy();
}

/** Sends it and says no more; resolves when the node has ended the connection. */
async function throwAt(port: number, bytes: Buffer): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.resume();
  const closed = once(socket, 'close');
  socket.end(bytes);
  await closed;
}
