/**
 * Settings of `lockstep serve`: each is a flag, a LOCKSTEP_* variable and a key of the configuration file (JSON),
 * in this order of precedence, then a default. What is not known is an error, with the nearest known name.
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { Type } from 'typebox';
import { parseEndpoint } from './endpoint.ts';
import { didYouMean } from './nearest.ts';
import { closed, EndpointText, Name, namePattern } from './schemas/common.ts';
import { ResourceBody } from './schemas/resource-definition.ts';
import { checker } from './validation.ts';
import type { Endpoint } from '../replicator/shell/resource-node.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface Config {
  readonly name: string;
  readonly dataDirectory: string;
  readonly api: Endpoint;
  readonly logLevel: LogLevel;
  /** Worker threads at most. */
  readonly dataPlanesMax: number;
  /** Stop when standard input ends: a supervisor that dies takes the node along. */
  readonly stopOnStdinEnd: boolean;
  /** Resources to define at start, unless they exist. */
  readonly resources: Readonly<Record<string, ResourceBody>>;
}

/** Bad usage: a message for the user, exit status 2. */
export class UsageError extends Error {}

const defaultApi = '127.0.0.1:7780';
const defaultDataPlanes = 4;
const dataPlanesLimit = 64;

/** One row per setting; texts of flags and variables go through `parse`, values of the file through the schema. */
const settings = {
  name: {
    env: 'LOCKSTEP_NAME',
    key: 'name',
    help: 'NAME  of this node, as its peer knows it (default: the host name)',
  },
  'data-dir': {
    env: 'LOCKSTEP_DATA_DIR',
    key: 'dataDir',
    help: 'DIR  definitions, metadata, token, default backing files',
  },
  api: { env: 'LOCKSTEP_API', key: 'api', help: `HOST:PORT  of the control API (default ${defaultApi})` },
  config: { env: 'LOCKSTEP_CONFIG', key: null, help: 'FILE  JSON with these settings and "resources"' },
  'log-level': {
    env: 'LOCKSTEP_LOG_LEVEL',
    key: 'logLevel',
    help: `LEVEL  ${logLevels.join(', ')} (default info)`,
  },
  'data-planes': {
    env: 'LOCKSTEP_DATA_PLANES',
    key: 'dataPlanes',
    help: `N  worker threads at most (default ${defaultDataPlanes})`,
  },
  'stop-on-stdin-end': {
    env: 'LOCKSTEP_STOP_ON_STDIN_END',
    key: 'stopOnStdinEnd',
    help: '  stop when standard input ends',
  },
} as const;
type Flag = keyof typeof settings;

const ConfigFile = Type.Object(
  {
    name: Type.Optional(Name),
    dataDir: Type.Optional(Type.String({ minLength: 1, description: 'the path of a directory' })),
    api: Type.Optional(EndpointText),
    logLevel: Type.Optional(Type.Enum([...logLevels], { description: `one of ${logLevels.join(', ')}` })),
    dataPlanes: Type.Optional(
      Type.Integer({ minimum: 1, maximum: dataPlanesLimit, description: `1 to ${dataPlanesLimit}` }),
    ),
    stopOnStdinEnd: Type.Optional(Type.Boolean({ description: 'true or false' })),
    resources: Type.Optional(
      Type.Record(Type.String({ pattern: namePattern }), ResourceBody, {
        ...closed,
        description: 'an object of resource definitions by name',
      }),
    ),
  },
  { ...closed, description: 'an object' },
);
const checkFile = checker(ConfigFile);

/** Lines of `lockstep serve --help`. */
export function settingsHelp(): readonly string[] {
  return Object.entries(settings).map(([flag, { env, help }]) => `  --${flag} ${help}\n        also ${env}`);
}

/** Throws UsageError. `environment` and `readFile` are handed in for tests. */
export function readConfig(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  readFile: (path: string) => string = (path) => readFileSync(path, 'utf8'),
): Config {
  const flags = readFlags(args);
  checkEnvironment(environment);
  const given = (flag: Flag): { text: string; source: string } | null => {
    const { env } = settings[flag];
    const text = flags.get(flag);
    if (text !== undefined) return { text, source: `--${flag}` };
    const variable = environment[env];
    return variable === undefined || variable === '' ? null : { text: variable, source: env };
  };

  const path = given('config')?.text;
  const file = path === undefined ? {} : readConfigFile(path, readFile);
  const value = <T>(
    flag: Flag,
    parse: (text: string, source: string) => T,
    fromFile: T | undefined,
  ): T | undefined => {
    const found = given(flag);
    return found ? parse(found.text, found.source) : fromFile;
  };

  const dataDirectory = value('data-dir', (text) => text, file.dataDir);
  if (dataDirectory === undefined) {
    throw new UsageError(
      '--data-dir is missing: the directory where this node keeps its data (also LOCKSTEP_DATA_DIR)',
    );
  }
  const name = value('name', parseName, file.name) ?? parseName(hostname(), 'the host name (give --name)');
  const api = value('api', parseApi, file.api === undefined ? undefined : parseApi(file.api, '"api"'));
  return {
    name,
    dataDirectory,
    api: api ?? parseApi(defaultApi, 'the default'),
    logLevel: value('log-level', parseLogLevel, file.logLevel) ?? 'info',
    dataPlanesMax: value('data-planes', parseDataPlanes, file.dataPlanes) ?? defaultDataPlanes,
    stopOnStdinEnd: value('stop-on-stdin-end', parseSwitch, file.stopOnStdinEnd) ?? false,
    resources: file.resources ?? {},
  };
}

function readFlags(args: readonly string[]): ReadonlyMap<Flag, string> {
  const known = Object.keys(settings);
  const { tokens } = parseArgs({
    args: [...args],
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      known.map((flag) => [
        flag,
        { type: flag === 'stop-on-stdin-end' ? ('boolean' as const) : ('string' as const) },
      ]),
    ),
  });
  const flags = new Map<Flag, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') throw new UsageError(`serve takes no argument "${token.value}"`);
    if (token.kind !== 'option') continue;
    if (!isFlag(token.name))
      throw new UsageError(`unknown flag ${token.rawName}${didYouMean(token.name, known)}`);
    if (token.name === 'stop-on-stdin-end') {
      flags.set(token.name, token.value ?? 'true');
    } else if (!token.value || (!token.inlineValue && token.value.startsWith('--'))) {
      // An empty one as well: a variable of the shell that is not set would make its directory the data directory.
      throw new UsageError(`${token.rawName} needs a value`);
    } else {
      flags.set(token.name, token.value);
    }
  }
  return flags;
}

/** Variables of other parts: the CLI's own, and those of tests. */
const otherVariables = [
  ...['LOCKSTEP_TOKEN', 'LOCKSTEP_SECRET'],
  ...['LOCKSTEP_TEST', 'LOCKSTEP_TEST_FAULT_FILE', 'LOCKSTEP_TEST_CRASH_COMMIT'],
];

/** A misspelt variable would leave its setting at the default without a word. */
function checkEnvironment(environment: Readonly<Record<string, string | undefined>>): void {
  const known = [...Object.values(settings).map(({ env }) => env), ...otherVariables];
  for (const name of Object.keys(environment)) {
    if (!name.startsWith('LOCKSTEP_') || known.includes(name)) continue;
    throw new UsageError(`unknown environment variable ${name}${didYouMean(name, known)}`);
  }
}

function readConfigFile(path: string, readFile: (path: string) => string) {
  let value: unknown;
  try {
    value = JSON.parse(readFile(path));
  } catch (error) {
    // The text may hold a secret, and the message of JSON.parse quotes it.
    const why =
      error instanceof SyntaxError
        ? 'it is not valid JSON'
        : error instanceof Error
          ? error.message
          : String(error);
    throw new UsageError(`the configuration file ${path} cannot be read: ${why}`);
  }
  const checked = checkFile(value);
  if (checked.ok) return checked.value;
  throw new UsageError(`${path}: ${checked.mistakes.map((mistake) => mistake.message).join('; ')}`);
}

function isFlag(name: string): name is Flag {
  return Object.hasOwn(settings, name);
}

function parseName(text: string, source: string): string {
  if (new RegExp(namePattern).test(text)) return text;
  throw new UsageError(`${source}: "${text}" is no name (1 to 63 letters, digits, ".", "_" or "-")`);
}

function parseApi(text: string, source: string): Endpoint {
  const endpoint = parseEndpoint(text);
  if (endpoint) return endpoint;
  throw new UsageError(`${source}: "${text}" is not HOST:PORT, as in ${defaultApi}`);
}

function parseLogLevel(text: string, source: string): LogLevel {
  const level = logLevels.find((known) => known === text);
  if (level) return level;
  throw new UsageError(
    `${source}: "${text}" is none of ${logLevels.join(', ')}${didYouMean(text, logLevels)}`,
  );
}

function parseDataPlanes(text: string, source: string): number {
  const count = Number(text);
  if (/^[0-9]+$/.test(text) && count >= 1 && count <= dataPlanesLimit) return count;
  throw new UsageError(`${source}: "${text}" is not 1 to ${dataPlanesLimit}`);
}

function parseSwitch(text: string, source: string): boolean {
  if (text === 'true' || text === '1') return true;
  if (text === 'false' || text === '0') return false;
  throw new UsageError(`${source}: "${text}" is neither true nor false`);
}
