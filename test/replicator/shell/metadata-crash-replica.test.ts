/**
 * A replica that is killed right before or right after any one of its metadata commits, in a life that has every kind of
 * them, on real files and over a real link: it comes back, the pair is whole again, and every acknowledged write is there.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { startChild } from '../../support/child.ts';
import type { TestChild } from '../../support/child.ts';
import { compareFiles } from '../../support/files-equal.ts';
import { contentOf as recordedIn } from '../../support/metadata.ts';
import { freePort } from '../../support/ports.ts';
import {
  blocksPerExtent,
  contentOf,
  isMirrored,
  replicaArguments,
  startReplica,
} from '../../support/replica.ts';
import type { Replica, ReplicaPlace } from '../../support/replica.ts';
import type { ReplicaOrder } from '../../support/replica-process.ts';
import { temporaryDirectory, temporaryRoots } from '../../support/temporary.ts';

const program = new URL('../../support/replica-process.ts', import.meta.url);

/** The life below has some thirty commits, of which timing adds or joins a few. */
const commitsMin = 20;
const commitsMax = 60;

test('killed before or after any of its commits, a replica comes back, and every acknowledged write is there', async (t) => {
  t.timeout(240_000);
  // What the first compiles serves all the others: most of the time goes into starting them.
  const compiled = temporaryDirectory(t);
  t.true(await liveAndComeBack(t, compiled, '1000000:before'));
  let commits = 0;
  // `t.timeout` begins anew with each assertion: a life that is never lived to its end has to be found here.
  while (commits <= commitsMax) {
    const point = commits + 1;
    if (await liveAndComeBack(t, compiled, `${point}:before`)) break;
    await liveAndComeBack(t, compiled, `${point}:after`);
    commits = point;
  }
  t.log(`${commits} commits`);
  t.true(commits >= commitsMin, `only ${commits} commits: not every kind was among them`);
  t.true(commits <= commitsMax, `killed at more than ${commitsMax} commits, and never lived to the end`);
});

/** Whether the life went on to its end. */
async function liveAndComeBack(t: ExecutionContext, compiled: string, crashPoint: string): Promise<boolean> {
  const env = { NODE_COMPILE_CACHE: compiled, LOCKSTEP_TEST: '1', LOCKSTEP_TEST_CRASH_COMMIT: crashPoint };
  const life = await Life.begin(t, env);
  const wentOn = await life.play();
  await life.comeBack(`killed at commit ${crashPoint}`);
  return wentOn;
}

class Gone extends Error {}

/** alpha is the one that is killed: a process of its own. beta lives in this one. */
class Life {
  readonly #t: ExecutionContext;
  readonly #places: { readonly alpha: ReplicaPlace; readonly beta: ReplicaPlace };
  readonly #alpha: TestChild;
  readonly #alphaGone: Promise<never>;
  #beta: Replica | null = null;
  /** Versions that a block may show, the acknowledged one first. */
  readonly #blocks = new Map<number, number[]>();
  #version = 0;

  static async begin(t: ExecutionContext, env: Readonly<Record<string, string>>): Promise<Life> {
    const root = temporaryDirectory(t, temporaryRoots.at(-1));
    const place = async (name: string, peerName: string): Promise<ReplicaPlace> => {
      const directory = join(root, name);
      mkdirSync(directory);
      return { name, peerName, directory, port: await freePort(), peerPort: 0 };
    };
    const alpha = await place('alpha', 'beta');
    const beta = await place('beta', 'alpha');
    return new Life(t, { ...alpha, peerPort: beta.port }, { ...beta, peerPort: alpha.port }, env);
  }

  private constructor(
    t: ExecutionContext,
    alpha: ReplicaPlace,
    beta: ReplicaPlace,
    env: Readonly<Record<string, string>>,
  ) {
    this.#t = t;
    this.#places = { alpha, beta };
    this.#alpha = startChild(t, program, replicaArguments(alpha), env);
    this.#alphaGone = this.#alpha.exited.then(() => Promise.reject(new Gone()));
    this.#alphaGone.catch(() => undefined);
  }

  /** Until alpha is killed (false), or to the end (true). */
  async play(): Promise<boolean> {
    try {
      await this.#story();
      return true;
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      // One that ended for another reason was not killed at its commit, and proves nothing.
      this.#t.is(await this.#alpha.exited, 'SIGKILL');
      return false;
    }
  }

  async #story(): Promise<void> {
    this.#beta = await this.#start(this.#places.beta);
    await this.#heard('started');
    await this.#untilMirrored();
    await this.#order('promote');
    // One extent more than can be active: the first is evicted.
    for (let extent = 0; extent < 8; extent++) await this.#write(extent * blocksPerExtent);
    await this.#order('flush');

    await this.#beta.node.stop();
    this.#beta = null;
    // Alone, in active extents and then in others: two with marked blocks are evicted.
    for (let extent = 1; extent < 10; extent++) await this.#write(extent * blocksPerExtent + 1);
    await this.#order('flush');
    this.#beta = await this.#start(this.#places.beta);
    await this.#untilMirrored();

    await this.#order('detach');
    await this.#write(blocksPerExtent + 2);
    await this.#order('attach');
    await this.#untilMirrored();
    await this.#write(blocksPerExtent + 3);

    await this.#order('demote');
    await promote(this.#beta);
    const beta = this.#beta;
    await this.#acknowledged(3, (version) => beta.write(3, version));
    await beta.flush();
    await this.#order('stop');
  }

  /** alpha starts again, in this process, and whoever finds it without its disk attaches that. */
  async comeBack(what: string): Promise<void> {
    const t = this.#t;
    const { alpha: place } = this.#places;
    await this.#alpha.exited;
    const database = join(place.directory, 'metadata.db');
    if (existsSync(database)) t.notThrows(() => recordedIn(database), what);
    const beta = this.#beta ?? (await this.#start(this.#places.beta));
    const alpha = await this.#start(place);
    if (alpha.node.status().diskState === 'Diskless') {
      const result = await alpha.node.command({ kind: 'attach' });
      if (!result.ok) throw new Error(`${what}: attach: ${result.refusal.reason}`);
    }
    await Promise.all([alpha, beta].map((replica) => replica.until(`mirroring, ${what}`, isMirrored)));
    const both = [alpha, beta];
    const primary = both.find(({ node }) => node.status().role === 'Primary') ?? alpha;
    if (primary.node.status().role !== 'Primary') await promote(primary);
    for (const [block, versions] of this.#blocks) {
      const found = await primary.read(block);
      const isThere = versions.some((version) => found.equals(contentOf(block, version)));
      if (!isThere) t.fail(`${what}: block ${block} shows none of versions ${versions.join(', ')}`);
    }
    await primary.flush();
    t.deepEqual(compareFiles(alpha.backingPath, beta.backingPath), { equal: true }, what);
    await Promise.all([alpha.node.stop(), beta.node.stop()]);
  }

  async #start(place: ReplicaPlace): Promise<Replica> {
    const replica = await startReplica(place);
    this.#t.teardown(() => replica.node.stop());
    return replica;
  }

  async #untilMirrored(): Promise<void> {
    await this.#order('mirrored');
    await this.#beta?.until('mirroring', isMirrored, this.#alphaGone);
  }

  async #write(block: number): Promise<void> {
    await this.#acknowledged(block, (version) => this.#order(`write ${block} ${version}`));
  }

  async #acknowledged(block: number, write: (version: number) => Promise<void>): Promise<void> {
    const version = ++this.#version;
    const possible = this.#blocks.get(block) ?? [0];
    possible.push(version);
    this.#blocks.set(block, possible);
    await write(version);
    this.#blocks.set(block, [version]);
  }

  async #order(order: ReplicaOrder): Promise<void> {
    this.#alpha.say(order);
    await this.#heard('done');
  }

  async #heard(expected: string): Promise<void> {
    const line = await this.#alpha.lines.next();
    if (line.done === true) throw new Gone();
    if (line.value !== expected) throw new Error(`alpha said "${line.value}"`);
  }
}

async function promote({ node }: Replica): Promise<void> {
  const result = await node.command({ kind: 'promote', force: false, dryRun: false });
  if (!result.ok) throw new Error(result.refusal.reason);
}
