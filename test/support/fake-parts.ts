/** A resource node and an NBD front without data, driven by a test. */
import type { BlockDevice } from '../../nbd/block-device.ts';
import type { Command } from '../../replicator/core/command.ts';
import type { CorePolicies } from '../../replicator/core/options.ts';
import { done, type CommandResult, type Refusal } from '../../replicator/core/refusal.ts';
import type { CoreStatus } from '../../replicator/core/status.ts';
import type { ResourceNodeHooks, ResourceNodeOptions } from '../../replicator/shell/resource-node.ts';
import type { FrontOptions, HostParts } from '../../server/data-plane/host-parts.ts';

export class FakeParts implements HostParts {
  readonly opened: ResourceNodeOptions[] = [];
  readonly fronts: FrontOptions[] = [];
  readonly commands: Command[] = [];
  /** What happened, in order. */
  readonly events: string[] = [];
  refusal: Refusal | null = null;
  listenError: Error | null = null;
  /** `openResourceNode` waits for this. */
  gate: Promise<void> = Promise.resolve();
  status: CoreStatus = secondary;
  readonly configured: CorePolicies[] = [];
  clientCount = 0;
  hooks: ResourceNodeHooks | null = null;
  answer: (command: Command) => CommandResult = (command) => done(`Did ${command.kind}.`);

  async openResourceNode(
    options: ResourceNodeOptions,
    hooks: ResourceNodeHooks,
  ): ReturnType<HostParts['openResourceNode']> {
    await this.gate;
    this.opened.push(options);
    this.events.push('node opened');
    if (this.refusal) return { ok: false, refusal: this.refusal };
    this.hooks = hooks;
    return {
      ok: true,
      node: {
        device,
        status: () => this.status,
        command: (command) => {
          this.commands.push(command);
          return Promise.resolve(this.answer(command));
        },
        decisions: () => [
          { kind: 'handshake', atMs: 1, rule: 'reconnected', result: 'no sync', inputs: { bits: 0 } },
        ],
        configure: (policies) => {
          this.configured.push(policies);
        },
        setClientCount: (count) => {
          this.clientCount = count;
        },
        replicationPort: 0,
        stop: () => {
          this.events.push('node stopped');
          return Promise.resolve();
        },
      },
    };
  }

  createNbdServer(options: FrontOptions): ReturnType<HostParts['createNbdServer']> {
    this.fronts.push(options);
    const listening = (what: string) => {
      if (this.listenError) throw this.listenError;
      this.events.push(`listening on ${what}`);
    };
    return {
      listenTcp: async (host, port) => {
        await Promise.resolve();
        listening(`${host}:${port}`);
        return { host, port: port === 0 ? 4711 : port };
      },
      listenUnix: async (path) => {
        await Promise.resolve();
        listening(path);
      },
      disconnectClients: () => {
        this.events.push('clients disconnected');
        return Promise.resolve();
      },
      close: () => {
        this.events.push('front closed');
        return Promise.resolve();
      },
    };
  }
}

export const secondary: CoreStatus = {
  sizeBytes: 8192,
  role: 'Secondary',
  diskState: 'UpToDate',
  suspended: [],
  peer: null,
  generation: { current: 0xabcn, bitmap: 0n, history: [1n] },
  splitBrain: false,
  io: { reads: 0, writes: 0, readBytes: 0, writtenBytes: 0, flushes: 0, repairedReads: 0 },
};

/** Never asked: it is only handed on. */
const device: BlockDevice = {
  sizeBytes: 8192,
  read: (_offset, _length, answered) => answered('EIO', null),
  write: (_offset, _data, _options, answered) => answered('EIO'),
  flush: (answered) => answered('EIO'),
  trim: (_offset, _length, _options, answered) => answered('EIO'),
  writeZeroes: (_offset, _length, _options, answered) => answered('EIO'),
  cache: (_offset, _length, answered) => answered('EIO'),
  blockStatus: (_offset, _length, _max, answered) => answered('EIO', []),
};
