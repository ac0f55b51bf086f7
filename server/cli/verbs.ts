/** The verbs that ask a running node: each is one call of the control API. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../config.ts';
import { commonFlags, type Arguments, type FlagSpec } from './arguments.ts';
import type { Method } from './api-client.ts';

export interface Call {
  readonly method: Method;
  readonly path: string;
  readonly body?: unknown;
}

export interface Verb {
  readonly summary: string;
  /** Positional words; those in brackets may be left out. */
  readonly words: readonly string[];
  readonly flags: Readonly<Record<string, FlagSpec>>;
  /** `resource` is the first word, empty where it may be left out and was. */
  readonly call: (resource: string, args: Arguments) => Call;
  /** Makes sense on every node that runs here. */
  readonly everyNode?: true;
}

const force: FlagSpec = {
  type: 'switch',
  help: 'do it although something is given up; the answer says what',
};
const dryRun: FlagSpec = { type: 'switch', help: 'say what would happen and why, and change nothing' };

export const verbs: Readonly<Record<string, Verb>> = {
  create: {
    summary: 'Define a resource',
    words: ['NAME'],
    flags: {
      size: { type: 'text', help: 'SIZE  such as 10GiB' },
      backing: {
        type: 'text',
        help: 'PATH  a file or block device (default: a sparse file in the data directory)',
      },
      nbd: { type: 'text', help: 'HOST:PORT  where clients attach' },
      'nbd-unix': { type: 'text', help: 'PATH  a Unix socket where clients attach' },
      replication: { type: 'text', help: 'HOST:PORT  where this node listens for its peer' },
      peer: { type: 'text', help: 'NAME=HOST:PORT  the other node and its replication address' },
      'secret-file': { type: 'text', help: 'FILE  the secret shared with the peer (also LOCKSTEP_SECRET)' },
      protocol: { type: 'text', help: 'A, B or C (default C)' },
      policy: { type: 'list', help: 'KEY=VALUE  such as onPeerLoss=suspend; may be repeated' },
      file: { type: 'text', help: 'FILE  the whole definition as JSON, "-" for standard input' },
    },
    call: (name, args) => ({ method: 'PUT', path: resourcePath(name), body: definitionBody(args) }),
  },
  status: {
    summary: 'Show one resource, or all',
    words: ['[NAME]'],
    flags: {},
    call: (name) => ({ method: 'GET', path: name === '' ? '/v1/resources' : resourcePath(name) }),
    everyNode: true,
  },
  promote: command('promote', 'Become Primary', { force, 'dry-run': dryRun }),
  demote: command('demote', 'Become Secondary', { force, 'dry-run': dryRun }),
  failover: command('failover', 'Take over from the other node; run it on the one to take over', {
    force,
    'dry-run': dryRun,
  }),
  connect: command('connect', 'Connect to the peer', {
    'discard-my-data': { type: 'switch', help: 'settle a split brain: this node throws its changes away' },
    'dry-run': dryRun,
  }),
  disconnect: command('disconnect', 'Disconnect from the peer', {}),
  attach: command(
    'attach',
    'Take the backing device into use again, or start a resource that could not be',
    {},
  ),
  detach: command('detach', 'Go on without the backing device, through the peer', { force }),
  resync: action(
    'resync',
    'Pause or resume a resync, or begin a full one',
    'pause|resume|invalidate|invalidate-peer',
  ),
  verify: {
    summary: 'Compare both copies while in use, and copy again what differs',
    words: ['NAME', 'start|stop'],
    flags: { 'no-repair': { type: 'switch', help: 'only report what differs' } },
    call: (resource, args) => ({
      method: 'POST',
      path: `${resourcePath(resource)}/verify`,
      body: { action: args.words[1], ...(args.has('no-repair') ? { repair: false } : {}) },
    }),
  },
  resize: {
    summary: 'Grow a resource',
    words: ['NAME', 'SIZE'],
    flags: {},
    call: (name, args) => ({
      method: 'POST',
      path: `${resourcePath(name)}/resize`,
      body: { size: sizeWord(args.words[1] ?? '') },
    }),
  },
  delete: {
    summary: 'Stop a resource and forget its definition; its data is kept',
    words: ['NAME'],
    flags: { wipe: { type: 'switch', help: 'remove its data and metadata as well' }, force },
    call: (name, args) => ({
      method: 'DELETE',
      path: `${resourcePath(name)}${query({ wipe: args.has('wipe'), force: args.has('force') })}`,
    }),
  },
  decisions: {
    summary: 'Show the last decisions on handshakes, promotions and resyncs',
    words: ['NAME'],
    flags: {},
    call: (name) => ({ method: 'GET', path: `${resourcePath(name)}/decisions` }),
  },
  events: {
    summary: 'Follow every change',
    words: ['[NAME]'],
    flags: {},
    call: () => ({ method: 'GET', path: '/v1/events' }),
  },
};

/** The flags of a verb with those that all have. */
export function flagsOf(verb: Verb): Readonly<Record<string, FlagSpec>> {
  return { ...verb.flags, ...commonFlags };
}

export function resourcePath(name: string): string {
  return `/v1/resources/${encodeURIComponent(name)}`;
}

function command(name: string, summary: string, flags: Verb['flags']): Verb {
  return {
    summary,
    words: ['NAME'],
    flags,
    call: (resource, args) => ({
      method: 'POST',
      path: `${resourcePath(resource)}/${name}${query({ dryRun: args.has('dry-run') })}`,
      ...(args.has('force') ? { body: { force: true } } : {}),
      ...(args.has('discard-my-data') ? { body: { discardMyData: true } } : {}),
    }),
  };
}

function action(name: string, summary: string, actions: string): Verb {
  return {
    summary,
    words: ['NAME', actions],
    flags: {},
    call: (resource, args) => ({
      method: 'POST',
      path: `${resourcePath(resource)}/${name}`,
      body: { action: args.words[1] },
    }),
  };
}

function query(flags: Readonly<Record<string, boolean>>): string {
  const set = Object.entries(flags).filter(([, value]) => value);
  return set.length === 0 ? '' : `?${set.map(([key]) => `${key}=true`).join('&')}`;
}

function definitionBody(args: Arguments): unknown {
  const file = args.text('file');
  if (file !== undefined) {
    try {
      return JSON.parse(readFileSync(file === '-' ? 0 : file, 'utf8')) as unknown;
    } catch (error) {
      const why =
        error instanceof SyntaxError
          ? 'it is not valid JSON'
          : error instanceof Error
            ? error.message
            : String(error);
      throw new UsageError(`create: --file ${file}: ${why}`);
    }
  }
  const size = args.text('size');
  if (size === undefined) throw new UsageError('create: --size is missing');
  const listen = args.text('nbd');
  const unix = args.text('nbd-unix');
  const backing = args.text('backing');
  const policies = args.list('policy').map(policyWord);
  return {
    size: sizeWord(size),
    ...(backing === undefined ? {} : { backing: { path: backing } }),
    nbd: { ...(listen === undefined ? {} : { listen }), ...(unix === undefined ? {} : { unix }) },
    ...mirrorBody(args),
    ...(policies.length === 0 ? {} : { policies: Object.fromEntries(policies) }),
  };
}

function mirrorBody(args: Arguments): object {
  const listen = args.text('replication');
  const peer = args.text('peer');
  if (listen === undefined && peer === undefined) return {};
  if (listen === undefined || peer === undefined) {
    throw new UsageError('create: --replication and --peer go together');
  }
  const [, name, address] = /^([^=]+)=(.+)$/.exec(peer) ?? [];
  if (name === undefined || address === undefined)
    throw new UsageError(`create: --peer "${peer}" is not NAME=HOST:PORT`);
  const protocol = args.text('protocol');
  return {
    replication: { listen, secret: readSecret(args), ...(protocol === undefined ? {} : { protocol }) },
    peers: [{ name, address }],
  };
}

/** Never an argument: arguments are visible to every user of the machine. */
function readSecret(args: Arguments): string {
  const file = args.text('secret-file');
  const secret = file === undefined ? process.env['LOCKSTEP_SECRET'] : readFileSync(file, 'utf8').trim();
  if (secret !== undefined && secret !== '') return secret;
  throw new UsageError('create: a mirrored resource needs --secret-file (or LOCKSTEP_SECRET)');
}

function policyWord(text: string): [string, string | number] {
  const [, key, value] = /^([^=]+)=(.*)$/.exec(text) ?? [];
  if (key === undefined || value === undefined)
    throw new UsageError(`create: --policy "${text}" is not KEY=VALUE`);
  return [key, /^[0-9]{1,15}$/.test(value) ? Number(value) : value];
}

function sizeWord(text: string): string | number {
  return /^[0-9]{1,15}$/.test(text) ? Number(text) : text;
}
