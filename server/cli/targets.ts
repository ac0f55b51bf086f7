/** Which node a command is for, and its token: as told, from its data directory, or from those that run here. */
import { join, resolve } from 'node:path';
import { UsageError } from '../config.ts';
import { readToken } from '../data-directory.ts';
import { runningNodes, type NodeEntry } from '../node-registry.ts';
import type { Target } from './api-client.ts';

export interface TargetOptions {
  /** --api or LOCKSTEP_API: a URL, or HOST:PORT. */
  readonly api: string | undefined;
  /** --token or LOCKSTEP_TOKEN. */
  readonly token: string | undefined;
  /** --data-dir or LOCKSTEP_DATA_DIR. */
  readonly dataDirectory: string | undefined;
}

const defaultApi = 'http://127.0.0.1:7780';

/** At least one. Throws UsageError when nothing tells which node or with which token. */
export function findTargets(
  options: TargetOptions,
  running: readonly NodeEntry[] = runningNodes(),
): readonly [Target, ...Target[]] {
  const directory = options.dataDirectory === undefined ? null : resolve(options.dataDirectory);
  const wanted = options.api === undefined ? null : baseUrl(options.api);
  const here = running.filter(
    (entry) =>
      (wanted === null || entry.api === wanted) && (directory === null || entry.dataDirectory === directory),
  );
  if (wanted === null && here.length > 0) {
    const [first, ...rest] = here.map((entry) => targetOf(entry, options));
    if (first) return [first, ...rest];
  }
  const api = wanted ?? defaultApi;
  const known = here[0] ?? running.find((entry) => entry.api === api);
  const token =
    options.token ??
    (directory === null ? null : readToken(join(directory, 'api-token'))) ??
    (known ? readToken(known.tokenFile) : null);
  if (token === null || token === '') {
    throw new UsageError(
      wanted === null && directory === null
        ? 'no node of this user is running here; name one with --api and --token, or with --data-dir'
        : `no token for ${api}: give --token, LOCKSTEP_TOKEN or the --data-dir of the node`,
    );
  }
  return [{ name: known?.name ?? null, api, token }];
}

function targetOf(entry: NodeEntry, options: TargetOptions): Target {
  const token = options.token ?? readToken(entry.tokenFile);
  if (token === null) throw new UsageError(`the token of ${entry.name} is not in ${entry.tokenFile}`);
  return { name: entry.name, api: entry.api, token };
}

function baseUrl(api: string): string {
  const url = URL.parse(/^https?:\/\//.test(api) ? api : `http://${api}`);
  if (!url || (url.pathname !== '/' && url.pathname !== '')) {
    throw new UsageError(`--api: "${api}" is neither http://HOST:PORT nor HOST:PORT`);
  }
  return url.origin;
}
