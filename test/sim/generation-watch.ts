/**
 * Generations as they must be, whatever an operator forces. No two copies may each hold, alone, acknowledged writes of the
 * same generation: then nothing could tell them apart, and one would be taken for the other. And what either node has
 * acknowledged is in the lineage of the data that goes on when they meet, or a split brain is reported first (W7, W13).
 */
import { maxHistory } from '../../replicator/core/metadata.ts';
import type { Superblock } from '../../replicator/core/metadata.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import type { Generation } from '../../replicator/core/vocabulary.ts';
import { formatGeneration } from '../../replicator/core/vocabulary.ts';
import type { SimNode } from './sim-node.ts';
import type { World } from './world.ts';

export class GenerationWatch {
  readonly #world: World;
  readonly #nodes: readonly [SimNode, SimNode];
  /** The copy that alone holds what was acknowledged in a generation. */
  readonly #alone = new Map<Generation, SimNode>();
  /** The generation of each node's latest acknowledged write, as long as nobody has been told that it may be given up. */
  readonly #latest = new Map<SimNode, Generation>();

  constructor(world: World, nodes: readonly [SimNode, SimNode]) {
    this.#world = world;
    this.#nodes = nodes;
  }

  /** A client's write, not a mere trim. */
  onAcknowledged(node: SimNode): void {
    const { core } = node;
    if (core?.exposed === undefined) return;
    const generation = core.exposed;
    if (generation === 0n) {
      // Fenced by the very step that acknowledged: a policy has settled what it was told of a split brain.
      if (node.status()?.role !== 'Primary') return;
      return this.#world.violation(
        'generations',
        `${node.name} acknowledges a write in no generation at all`,
      );
    }
    this.#latest.set(node, generation);
    const [a, b] = this.#nodes;
    const peer = node === a ? b : a;
    const isHere = core.diskState === 'UpToDate';
    if (isHere === core.isPeerUpToDate) return;
    // Just after its disk has gone, what was under way is answered as before; then the peer's copy has a name of its own.
    const { current, peerExcluded } = peer.metadata.superblock;
    if (!isHere && (current !== generation || !peerExcluded)) return;
    const copy = isHere ? node : peer;
    const other = this.#alone.get(generation);
    this.#alone.set(generation, copy);
    if (other === undefined || other === copy) return;
    // One whose record says that it is not whole is taken for nothing: the resync that made the other one whole went before.
    if (other.metadata.superblock.disk === 'Inconsistent') return;
    this.#world.violation(
      'generations',
      `a write in generation ${formatGeneration(generation)} is acknowledged that only ${copy.name} holds, after one that only ${other.name} does`,
    );
  }

  /** The target of a resync has all that the other one held alone until then. */
  onComplete(target: SimNode): void {
    for (const [generation, copy] of this.#alone) if (copy !== target) this.#alone.delete(generation);
  }

  /** What one of them has acknowledged may be given up: an operator has been asked, or has decided. */
  forgive(): void {
    this.#latest.clear();
  }

  /** `isWhole`: what is acknowledged is on both copies, as protocol A does not promise. */
  check(isWhole: boolean): void {
    if (this.#latest.size === 0 && this.#alone.size === 0) return;
    const [a, b] = this.#nodes;
    const [statusA, statusB] = [a.status(), b.status()];
    if (isDecisionDue(statusA) || isDecisionDue(statusB)) return this.forgive();
    // Each of both has to say so: what a broken connection has left behind on one side means nothing yet.
    const replications = `${statusA?.peer?.replication} ${statusB?.peer?.replication}`;
    // While a generation is on its way to the other side, what was under way before may be answered in it.
    const isEqual =
      statusA?.diskState === 'UpToDate' &&
      statusB?.diskState === 'UpToDate' &&
      a.metadata.superblock.current === b.metadata.superblock.current;
    if (replications === 'Established Established' && isEqual) {
      if (isWhole) this.#expectLineage(a);
      // What only one copy held is on both now: from here on either may be the one that goes on.
      this.#alone.clear();
    } else if (isWhole && replications === 'SyncSource SyncTarget') this.#expectLineage(a);
    else if (isWhole && replications === 'SyncTarget SyncSource') this.#expectLineage(b);
  }

  /** The copy that goes on has, or descends from, whatever was acknowledged. */
  #expectLineage(copy: SimNode): void {
    const { superblock } = copy.metadata;
    for (const [node, generation] of this.#latest) {
      if (isInLineage(superblock, generation)) continue;
      return this.#world.violation(
        'generations',
        `the data of ${copy.name} goes on without generation ${formatGeneration(generation)}, in which ${node.name} has acknowledged a write, and nobody was told of a split brain`,
      );
    }
  }
}

/** Split brain, or data that has nothing in common: an operator has to say which copy is to go. */
export function isDecisionDue(status: CoreStatus | null): boolean {
  if (status === null) return false;
  const isUnrelated =
    status.peer?.connection === 'StandAlone' && status.peer.lastError?.includes('unrelated') === true;
  return status.splitBrain || isUnrelated;
}

function isInLineage({ current, bitmap, history }: Superblock, generation: Generation): boolean {
  // A full history has forgotten what came before: whether that was one of its own, nobody can say.
  if (history.length >= maxHistory) return true;
  return current === generation || bitmap.includes(generation) || history.includes(generation);
}
