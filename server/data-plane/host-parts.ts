/** What a resource host is made of, as it needs it: the replicator's node of a resource and the NBD server. */
import type { BlockDevice } from '../../nbd/block-device.ts';
import type {
  OpenResult,
  ResourceNodeHooks,
  ResourceNodeOptions,
} from '../../replicator/shell/resource-node.ts';

export interface HostParts {
  openResourceNode(options: ResourceNodeOptions, hooks: ResourceNodeHooks): Promise<OpenResult>;
  /** Throws when the TLS files do not fit together. */
  createNbdServer(options: FrontOptions): NbdFront;
}

/** Structurally the options of nbd/server.ts. */
export interface FrontOptions {
  readonly source: {
    list(): readonly { readonly name: string; readonly description: string }[];
    open(name: string): OpenedExport;
  };
  readonly tls?: {
    readonly certPem: string;
    readonly keyPem: string;
    readonly caPem?: string;
    readonly requireClientCert?: boolean;
    readonly required: boolean;
  };
  readonly log: (level: 'debug' | 'info' | 'warn' | 'error', message: string) => void;
  readonly onClientCount: (count: number) => void;
}

export type OpenedExport =
  | {
      readonly kind: 'export';
      readonly export: {
        readonly name: string;
        readonly description: string;
        readonly device: BlockDevice;
        readonly readOnly: boolean;
      };
    }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'refused'; readonly message: string };

export interface NbdFront {
  listenTcp(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  listenUnix(path: string): Promise<void>;
  disconnectClients(exportName?: string): Promise<void>;
  close(): Promise<void>;
}
