/** Processes that the bench starts: ended with it whatever happens, and asked what processor time they have used. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { findTool } from '../../test/support/find-tool.ts';

export interface Server {
  readonly pid: number;
  readonly command: string;
  stop(): Promise<void>;
}

/** Nothing that is measured takes that long, unless a server hangs. */
const runLimitMs = 600_000;

/** Runs to its end; resolves with standard output, rejects with what it said when it failed, or took too long. */
export async function run(command: string, options: readonly string[]): Promise<string> {
  const child = spawnBound(command, options);
  const limit = setTimeout(() => child.kill('SIGKILL'), runLimitMs);
  const output = collect(child.stdout);
  const complaints = collect(child.stderr);
  const status = await ended(child, command).finally(() => clearTimeout(limit));
  if (status === 0) return output.text;
  const said = complaints.text === '' ? output.text : complaints.text;
  throw new Error(`${shellWords([command, ...options])}\nended with ${status}: ${said.trim().slice(-2000)}`);
}

/** Resolves when `ready` matches what it has printed on standard output. With `null`: as soon as it is started. */
export async function startServer(
  command: string,
  options: readonly string[],
  ready: RegExp | null,
): Promise<Server> {
  const child = spawnBound(command, options);
  const output = collect(child.stdout);
  const complaints = collect(child.stderr);
  const exited = ended(child, command);
  await new Promise<void>((resolve, reject) => {
    exited.then(
      (status) => reject(new Error(`${command} ended with ${status}: ${complaints.text}`)),
      (error: unknown) => reject(error instanceof Error ? error : new Error(String(error))),
    );
    if (ready === null) child.once('spawn', resolve);
    else child.stdout?.on('data', () => ready.test(output.text) && resolve());
  });
  return {
    pid: child.pid ?? 0,
    command: shellWords([command, ...options]),
    stop: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** User and system time of these processes with all their threads so far, microseconds; proc(5), fields 14 and 15. */
export function cpuMicroseconds(pids: readonly number[]): number {
  const ticks = pids.map((pid) => statTicks(readFileSync(`/proc/${pid}/stat`, 'utf8')));
  return ticks.reduce((sum, each) => sum + each, 0) * usPerTick;
}

/** The unit of proc(5) as programs see it: the kernel's USER_HZ, 100 on every architecture that Node runs on. */
export const usPerTick = 1_000_000 / 100;

/** The name (field 2) stands in brackets and may hold anything, brackets too. */
export function statTicks(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  if (!Number.isSafeInteger(ticks)) throw new Error(`not a line of /proc/PID/stat: ${stat}`);
  return ticks;
}

/** As one would type it. */
export function shellWords(words: readonly string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`))
    .join(' ');
}

/** The kernel ends it with this process, even if that is killed: setpriv sets that and becomes the command. */
function spawnBound(command: string, options: readonly string[]): ChildProcess {
  const setpriv = findTool('setpriv');
  const path = findTool(command) ?? command;
  const [program, words] =
    setpriv === null ? [path, options] : [setpriv, ['--pdeathsig', 'KILL', path, ...options]];
  return spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'] });
}

/** The end of what it prints. */
function collect(stream: NodeJS.ReadableStream | null): { readonly text: string } {
  const collected = { text: '' };
  stream?.setEncoding('utf8');
  stream?.on('data', (text: string) => (collected.text = (collected.text + text).slice(-outputMax)));
  return collected;
}

const outputMax = 1024 * 1024;

function ended(child: ChildProcess, command: string): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`${command} cannot be run`, { cause: error })));
    child.once('close', (status, signal) => resolve(status ?? signal));
  });
}
