/** The data directory of a node: private to its user, with the API's token and one directory per resource. */
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { openNodeStore, type NodeStore } from './node-store.ts';
import { StartError } from './start-error.ts';

export interface DataDirectory {
  readonly path: string;
  /** Bearer token of the control API: 43 characters of base64url, 256 random bits. */
  readonly token: string;
  readonly tokenFile: string;
  readonly store: NodeStore;
}

/** Creates what is missing; throws StartError, NodeStoreError or a system error when it cannot be used. */
export function openDataDirectory(directory: string, nodeName: string): DataDirectory {
  const path = resolve(directory);
  try {
    // The outer one by itself: of a file system that is read-only, the recursive call says that it does not exist.
    mkdirSync(path, { recursive: true, mode: 0o700 });
    chmodSync(path, 0o700);
    mkdirSync(join(path, 'resources'), { recursive: true, mode: 0o700 });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new StartError(
      `the data directory ${path} cannot be made or used: ${why}. Correct its path or permissions, or choose another --data-dir.`,
      { cause: error },
    );
  }
  // The store first: its lock keeps a second process from replacing the token of the one that runs.
  const store = openNodeStore(join(path, 'node.db'), nodeName);
  try {
    const tokenFile = join(path, 'api-token');
    return { path, token: readOrCreateToken(tokenFile), tokenFile, store };
  } catch (error) {
    store.close();
    throw error;
  }
}

/** The token in a file; null when there is no file. Throws when it holds none. */
export function readToken(tokenFile: string): string | null {
  let text: string;
  try {
    text = readFileSync(tokenFile, 'utf8').trim();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
  if (!/^[\x21-\x7e]{16,512}$/.test(text)) {
    throw new Error(
      `${tokenFile} holds no token (16 to 512 printable characters); remove it to have one made`,
    );
  }
  return text;
}

function readOrCreateToken(tokenFile: string): string {
  const existing = readToken(tokenFile);
  if (existing !== null) {
    chmodSync(tokenFile, 0o600);
    return existing;
  }
  const token = randomBytes(32).toString('base64url');
  // Written aside and renamed: a crash leaves no file, or a whole one.
  const aside = `${tokenFile}.new`;
  const file = openSync(aside, 'w', 0o600);
  try {
    writeSync(file, `${token}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(aside, tokenFile);
  return token;
}
