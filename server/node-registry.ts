/**
 * Which nodes run for this user on this machine, so that the CLI finds their address and token by itself. An
 * entry names the file with the token, never the token. Entries of processes that are gone are passed over.
 */
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Type, type Static } from 'typebox';
import { closed } from './schemas/common.ts';
import { checker } from './validation.ts';

const NodeEntry = Type.Object(
  {
    name: Type.String(),
    api: Type.String(),
    pid: Type.Integer(),
    tokenFile: Type.String(),
    dataDirectory: Type.String(),
  },
  closed,
);
export type NodeEntry = Static<typeof NodeEntry>;
const checkEntry = checker(NodeEntry);

type Environment = Readonly<Record<string, string | undefined>>;

/** Records a running node; the returned function takes it back. */
export function registerNode(entry: NodeEntry, environment: Environment = process.env): () => void {
  const [directory] = registryDirectories(environment);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  chmodSync(directory, 0o700);
  removeStale(directory, entry);
  const path = join(directory, `${entry.pid}.json`);
  const aside = `${path}.new`;
  writeFileSync(aside, JSON.stringify(entry), { mode: 0o600 });
  renameSync(aside, path);
  return () => rmSync(path, { force: true });
}

/** The nodes that run, by name. */
export function runningNodes(environment: Environment = process.env): readonly NodeEntry[] {
  return registryDirectories(environment)
    .flatMap(filesIn)
    .map(readEntry)
    .filter((entry): entry is NodeEntry => entry !== null && isRunning(entry.pid))
    .sort((a, b) => a.name.localeCompare(b.name));
}

function filesIn(directory: string): readonly string[] {
  try {
    const files = readdirSync(directory).filter((file) => file.endsWith('.json'));
    return files.map((file) => join(directory, file));
  } catch {
    return [];
  }
}

/**
 * The first is where a node is recorded. A service has no runtime directory where a login has one, and the other way
 * round after sudo or in cron: they find each other's nodes nevertheless.
 */
function registryDirectories(environment: Environment): readonly [string, ...string[]] {
  const runtime = environment['XDG_RUNTIME_DIR'];
  const state = environment['XDG_STATE_HOME'] ?? join(environment['HOME'] ?? homedir(), '.local', 'state');
  const nodesIn = (directory: string) => join(directory, 'lockstep', 'nodes');
  return runtime === undefined || runtime === ''
    ? [nodesIn(state), nodesIn(`/run/user/${process.getuid?.() ?? 0}`)]
    : [nodesIn(runtime), nodesIn(state)];
}

/** Killed nodes leave their entries; so does, under a process id used again, what this node replaces. */
function removeStale(directory: string, entry: NodeEntry): void {
  for (const file of readdirSync(directory)) {
    const path = join(directory, file);
    const known = file.endsWith('.json') ? readEntry(path) : null;
    const replaced = known?.api === entry.api || known?.dataDirectory === entry.dataDirectory;
    if (known && (replaced || !isRunning(known.pid))) rmSync(path, { force: true });
  }
}

function readEntry(path: string): NodeEntry | null {
  try {
    const checked = checkEntry(JSON.parse(readFileSync(path, 'utf8')));
    return checked.ok ? checked.value : null;
  } catch {
    return null;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
