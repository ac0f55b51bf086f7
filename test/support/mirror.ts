/**
 * A pair of real nodes with a load on it, and what has to hold whatever was done to them: every acknowledged write is
 * there, both backing files are the same, and a resync copied what the replicas may have differed in, not more.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Compile } from 'typebox/compile';
import { connectNbd } from '../../nbd/client.ts';
import type { NbdClient } from '../../nbd/client.ts';
import { extentBytes } from '../../replicator/core/vocabulary.ts';
import { DecisionsAnswer } from '../../server/schemas/answers.ts';
import type { DecisionRecord } from '../../server/schemas/status.ts';
import { onlyPeer, startPair } from './cluster.ts';
import type { LinkProxy, NodePeer, Pair, PairOptions, ResourceStatus } from './cluster.ts';
import { compareFiles } from './files-equal.ts';
import { stampedBytes, writeStamp } from './stamp.ts';
import { StampedLoad } from './stamped-load.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { temporaryDirectory } from './temporary.ts';

export const mebibyte = 1024 * 1024;
export const blocksPerExtent = extentBytes / stampedBytes;

export interface MirrorOptions {
  /** Default 128 MiB. */
  readonly sizeBytes?: number;
  /** The part of the device that the load uses, from its start. Default 16 MiB: four extents. */
  readonly loadBytes?: number;
  readonly queueDepth?: number;
  readonly flushEvery?: number;
  readonly policies?: PairOptions['policies'];
  /** Puts proxies on the link. */
  readonly proxied?: boolean;
}

/** A silent peer is given up after a second: for tests that wait for that. */
export const shortTimeouts = {
  pingIntervalMs: 200,
  peerTimeoutMs: 1_000,
  probeTimeoutMs: 500,
  connectIntervalMs: 200,
};

/** Decisions of one run of a node, taken together with those made before. */
export interface DecisionMark {
  /** How many there were. Not their time, which many share: the core hears of it ten times a second. */
  readonly count: number;
}

export interface Mirror {
  readonly pair: Pair;
  readonly alpha: NodePeer;
  readonly beta: NodePeer;
  readonly load: StampedLoad;
  readonly sizeBytes: number;
  /** An NBD client of this node. It ends with the test. */
  attach(peer: NodePeer): Promise<NbdClient>;
  /** Gives up the last connection to this node and waits until the node has noticed. */
  detach(client: NbdClient, peer: NodePeer): Promise<void>;
  /** While it is there, every operation of this kind fails on the node's backing device. */
  breakDisk(peer: NodePeer, kind: 'failWrites' | 'failReads' | 'failFlush'): void;
  /** While it is there, these bytes of the node's backing device cannot be read until they are written again. */
  breakSector(peer: NodePeer, offset: number, length: number): void;
  /** Reads of the backing device hang for good. `begun` resolves when the first one does. */
  stallReads(peer: NodePeer): Promise<{ readonly begun: Promise<void> }>;
  mendDisk(peer: NodePeer): void;
  /** Waits until both copies are good, then holds them against the load and against each other. */
  assertWhole(primary: NodePeer): Promise<void>;
}

/** Both nodes are Secondary, connected and UpToDate; beta is the second. Everything ends with the test. */
export async function startMirror(t: ExecutionContext, options: MirrorOptions = {}): Promise<Mirror> {
  const { sizeBytes = 128 * mebibyte, loadBytes = 16 * mebibyte, queueDepth = 16, flushEvery = 0 } = options;
  const directory = temporaryDirectory(t);
  const faultFile = { alpha: join(directory, 'alpha-fault'), beta: join(directory, 'beta-fault') };
  const faulty = (path: string) => ({ LOCKSTEP_TEST: '1', LOCKSTEP_TEST_FAULT_FILE: path });
  const pair = await startPair(t, {
    sizeBytes,
    policies: { connectIntervalMs: 200, ...options.policies },
    env: [faulty(faultFile.alpha), faulty(faultFile.beta)],
    ...(options.proxied === true ? { proxy: startProxy } : {}),
  });
  const { alpha, beta, resource } = pair;
  const load = new StampedLoad({ sizeBytes: loadBytes, seed: 7, queueDepth, flushEvery });
  const faultFileOf = (peer: NodePeer): string => (peer === alpha ? faultFile.alpha : faultFile.beta);

  const mirror: Mirror = {
    pair,
    alpha,
    beta,
    load,
    sizeBytes,
    attach: async (peer) => {
      const client = await connectNbd({
        address: { host: '127.0.0.1', port: peer.nbdPort },
        exportName: resource,
        timeoutMs: 60_000,
      });
      t.teardown(() => client.destroy());
      return client;
    },
    detach: async (client, peer) => {
      await client.disconnect();
      await peer.waitFor((status) => status.nbd.clients === 0, 'no client');
    },
    breakDisk: (peer, kind) => writeFileSync(faultFileOf(peer), JSON.stringify({ [kind]: true })),
    breakSector: (peer, offset, length) =>
      writeFileSync(faultFileOf(peer), JSON.stringify({ badSector: { offset, length } })),
    stallReads: async (peer) => {
      const fifo = `${faultFileOf(peer)}-fifo`;
      spawnSync('mkfifo', [fifo]);
      const { backing } = await peer.status();
      writeFileSync(faultFileOf(peer), JSON.stringify({ stall: { backing: backing.path, fifo } }));
      // Opening it to write waits for whoever opens it to read, or for the end of the test.
      const opened = open(fifo, 'w');
      t.teardown(async () => {
        closeSync(openSync(fifo, constants.O_RDWR));
        await (await opened).close();
      });
      return { begun: opened.then(() => undefined) };
    },
    mendDisk: (peer) => rmSync(faultFileOf(peer), { force: !existsSync(faultFileOf(peer)) }),
    assertWhole: async (primary) => {
      await pair.mirroring();
      const client = await mirror.attach(primary);
      t.deepEqual(await load.verify((offset, length) => client.read(offset, length)), []);
      await client.flush();
      await client.disconnect();
      const [one, other] = await Promise.all([alpha.status(), beta.status()]);
      t.deepEqual(compareFiles(one.backing.path, other.backing.path), { equal: true });
      t.deepEqual(
        [one, other].map((status) => onlyPeer(status).outOfSyncBytes),
        [0, 0],
      );
      t.is(one.generation.current, other.generation.current);
    },
  };
  return mirror;
}

/** For `PairOptions.proxy`. Frozen, it swallows new connections too. */
export async function startProxy(targetPort: number): Promise<LinkProxy> {
  const proxy = await TcpProxy.start(targetPort);
  return {
    port: proxy.port,
    cut: () => proxy.cut(),
    freeze: () => proxy.freeze({ includeNew: true }),
    heal: () => proxy.heal(),
    close: () => proxy.stop(),
  };
}

const checkedDecisions = Compile(DecisionsAnswer);

/** The decisions of this node's present run after the mark. */
export async function decisions(peer: NodePeer, mark: DecisionMark = start): Promise<DecisionRecord[]> {
  const answer = await peer.node.call('GET', `/v1/resources/${(await peer.status()).name}/decisions`);
  if (!checkedDecisions.Check(answer)) throw new Error(`not decisions: ${JSON.stringify(answer)}`);
  return answer.slice(mark.count);
}

const start: DecisionMark = { count: 0 };

/** Up to the last decision made by now. A restart of the node makes it void. */
export async function markDecisions(peer: NodePeer): Promise<DecisionMark> {
  return { count: (await decisions(peer)).length };
}

/** Rules of the handshakes after the mark. */
export async function handshakes(peer: NodePeer, mark: DecisionMark = start): Promise<string[]> {
  return (await decisions(peer, mark)).filter(({ kind }) => kind === 'handshake').map(({ rule }) => rule);
}

/** Blocks marked when each resync after the mark began, in order; this node was the source. */
export async function resyncsFrom(peer: NodePeer, mark: DecisionMark = start): Promise<number[]> {
  return (await decisions(peer, mark))
    .filter(({ kind, rule }) => kind === 'resync' && (rule === 'quick' || rule === 'full'))
    .map(({ inputs }) => Number(inputs['blocks']));
}

/** POST that has to be refused; answers the code. */
export async function refusalOf(
  peer: NodePeer,
  verb: string,
  body: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const { name } = await peer.status();
  const answer = await peer.node.api('POST', `/v1/resources/${name}/${verb}`, body);
  if (answer.status !== 409) throw new Error(`not refused: ${answer.status} ${JSON.stringify(answer.body)}`);
  return stringField(answer.body, 'code');
}

export function stringField(value: unknown, field: string): string {
  const text: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, field) : undefined;
  if (typeof text !== 'string') throw new Error(`no ${field} in ${JSON.stringify(value)}`);
  return text;
}

/** What an answer to a command says was given up. */
export function givenUp(answer: unknown): unknown[] {
  if (typeof answer === 'object' && answer !== null && 'givenUp' in answer && Array.isArray(answer.givenUp)) {
    return answer.givenUp;
  }
  throw new Error(`no givenUp in ${JSON.stringify(answer)}`);
}

/** A write that some test makes by itself, told apart from those of the load by its run. */
export function ownBlock(block: number, sequence = 1): Buffer {
  return writeStamp({ run: 99, block, sequence });
}

export function isConnection(state: string): (status: ResourceStatus) => boolean {
  return (status) => onlyPeer(status).connection === state;
}
