/**
 * What histories have reached: rules of the handshake, states of the core, faults by kind. Said with every run, so that a
 * simulator that no longer gets somewhere is noticed.
 */
import type { Phase } from '../../replicator/core/connection.ts';
import { replicationState } from '../../replicator/core/connection.ts';
import { Core } from '../../replicator/core/core.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import { handshakeRules } from '../../replicator/core/handshake-rules.ts';
import type { SimulatedCore } from './sim-node.ts';

const ruleNames: ReadonlySet<string> = new Set(handshakeRules);

/** The core's own words, without those of things that the simulator has no part in. */
export const coreStates: readonly string[] = [
  ...named('phase', [
    ...(['settling', 'negotiating', 'bitmapSource', 'bitmapTarget', 'confirming'] as const),
    ...(['established', 'syncSource', 'syncTarget', 'idle'] as const),
  ] satisfies readonly Phase['kind'][]),
  ...named('connection', ['Connecting', 'StandAlone admin', 'StandAlone split-brain']),
  ...named('connection', ['StandAlone unrelated-data', 'StandAlone mismatch', 'StandAlone stopped']),
  ...named('replication', ['Off', 'Established', 'StartingSyncS', 'StartingSyncT', 'WFBitMapS', 'WFBitMapT']),
  ...named('replication', ['SyncSource', 'SyncTarget', 'PausedSyncS', 'PausedSyncT', 'VerifyS', 'VerifyT']),
  ...named('disk', ['Diskless', 'Failed', 'Inconsistent', 'Outdated', 'Consistent', 'UpToDate']),
  ...named('role', ['Primary', 'Secondary']),
  ...named('held', ['negotiating', 'peer-lost', 'generation', 'no-data', 'policy', 'demoting']),
  ...named('solo', ['probing', 'handing-off', 'shared-generation', 'single-copy', 'fenced']),
];

/** As it travels between processes. */
export interface CoverageReport {
  readonly rules: readonly string[];
  readonly states: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
}

export class Coverage {
  readonly rules = new Set<string>();
  readonly states = new Set<string>();
  readonly #faults = new Map<string, number>();
  // Of the last sample: what is the same again needs no word.
  #lastConnection: string | null = null;
  #lastReplication: string | null = null;
  #lastDisk: string | null = null;
  #lastRole: string | null = null;
  #lastHeld: string | null = null;

  fault(kind: string): void {
    this.#faults.set(kind, (this.#faults.get(kind) ?? 0) + 1);
  }

  onEffect(core: SimulatedCore, effect: Effect): void {
    switch (effect.kind) {
      case 'statusChanged':
        return this.#sample(core);
      case 'probe':
        this.states.add('solo probing');
        return;
      case 'send':
        if (effect.packet.kind === 'peerDiskGone') this.states.add('solo handing-off');
        if (effect.packet.kind === 'newGeneration') this.states.add('solo shared-generation');
        return;
      case 'decided': {
        const { kind, rule } = effect.decision;
        if (kind === 'handshake' && ruleNames.has(rule)) this.rules.add(rule);
        if (kind === 'peer-loss' && (rule === 'single-copy' || rule === 'fenced'))
          this.states.add(`solo ${rule}`);
        return;
      }
      default:
        return;
    }
  }

  #sample(core: SimulatedCore): void {
    // Another core than the real one shows what it is by its status only, which is not worth the time.
    if (!(core instanceof Core)) return;
    const { connection, role, diskState } = core;
    const { conn } = connection;
    const connectionWord =
      conn === 'Connected' ? connection.phase.kind : conn === 'StandAlone' ? connection.because : '';
    if (connectionWord !== this.#lastConnection) {
      this.#lastConnection = connectionWord;
      if (conn === 'Connected') this.states.add(`phase ${connectionWord}`);
      else
        this.states.add(
          conn === 'StandAlone' ? `connection StandAlone ${connectionWord}` : 'connection Connecting',
        );
    }
    const replication = replicationState(connection, core.verify.part);
    if (replication !== this.#lastReplication) this.states.add(`replication ${replication}`);
    this.#lastReplication = replication;
    if (diskState !== this.#lastDisk) this.states.add(`disk ${diskState}`);
    this.#lastDisk = diskState;
    const held = role === 'Primary' ? core.holdReason() : null;
    if (role !== this.#lastRole) this.states.add(`role ${role}`);
    this.#lastRole = role;
    if (held !== null && held !== this.#lastHeld) this.states.add(`held ${held}`);
    this.#lastHeld = held;
  }

  report(): CoverageReport {
    return {
      rules: [...this.rules].sort(),
      states: [...this.states].sort(),
      faults: Object.fromEntries([...this.#faults].sort(([a], [b]) => (a < b ? -1 : 1))),
    };
  }

  add(report: CoverageReport): void {
    for (const rule of report.rules) this.rules.add(rule);
    for (const state of report.states) this.states.add(state);
    for (const [kind, count] of Object.entries(report.faults))
      this.#faults.set(kind, (this.#faults.get(kind) ?? 0) + count);
  }

  get missingRules(): readonly string[] {
    return handshakeRules.filter((rule) => !this.rules.has(rule));
  }

  get missingStates(): readonly string[] {
    return coreStates.filter((state) => !this.states.has(state));
  }
}

function named(what: string, states: readonly string[]): readonly string[] {
  return states.map((state) => `${what} ${state}`);
}
