/**
 * One resource on this node, as the data plane uses it: the core with the real disk, metadata, link and clock.
 * This file is the contract between replicator/ and server/; the driver itself is driver.ts.
 */
import type { BlockDevice } from '../../nbd/block-device.ts';
import type { Command } from '../core/command.ts';
import type { Decision } from '../core/decision.ts';
import type { CoreOptions, CorePolicies } from '../core/options.ts';
import type { CommandResult, Refusal } from '../core/refusal.ts';
import type { CoreStatus } from '../core/status.ts';
import type { ReceiveInto } from './link-connection.ts';

export interface Endpoint {
  readonly host: string;
  /** 0 to 65535; 0 lets the system choose when listening. */
  readonly port: number;
}

export interface ResourceNodeOptions {
  readonly resourceName: string;
  readonly core: CoreOptions;
  readonly backing: {
    readonly path: string;
    /** Create a sparse file when nothing is there and the metadata is new as well (default paths only). */
    readonly create: boolean;
  };
  /** The SQLite file of this resource. */
  readonly metadataPath: string;
  /** Null exactly when `core.peerName` is null. */
  readonly replication: {
    readonly listen: Endpoint;
    readonly peerAddress: Endpoint;
    /** Shared secret, 1 to 1024 bytes of UTF-8; never logged. */
    readonly secret: string;
    readonly connectIntervalMs: number;
    readonly probeTimeoutMs: number;
  } | null;
  /** How accepted connections of the peer are received from; left out: as Node does it. */
  readonly receiveInto?: ReceiveInto | undefined;
}

export interface ResourceNodeHooks {
  /** The status changed; ask for it when convenient (coalesce). */
  statusChanged(): void;
  /** NBD clients may (or may no longer) be served. On false the owner disconnects those attached. */
  serveClients(serve: boolean): void;
  decided(decision: Decision): void;
  log(level: 'info' | 'warn' | 'error', message: string): void;
  /** A promise can no longer be kept: the owner must end the process without acknowledging anything more. */
  panic(message: string): void;
}

export type OpenResult =
  { readonly ok: true; readonly node: ResourceNode } | { readonly ok: false; readonly refusal: Refusal };

export interface ResourceNode {
  /** What the NBD server exports; requests fail with ESHUTDOWN while this node may not serve clients. */
  readonly device: BlockDevice;
  status(): CoreStatus;
  /** Resolves when the command is done or refused; every command has a deadline of its own. */
  command(command: Command): Promise<CommandResult>;
  /** The last decisions, oldest first, at most 100. */
  decisions(): readonly Decision[];
  /** New limits and policies, in force at once. */
  configure(policies: CorePolicies): void;
  /** Tell how many NBD clients are attached, on every change. */
  setClientCount(count: number): void;
  /** Port the replication listener got (0 when unmirrored). */
  readonly replicationPort: number;
  /** Demote, flush, say goodbye, record a clean stop, close everything. */
  stop(): Promise<void>;
}
