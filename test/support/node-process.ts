/**
 * One node as a real process: `server/main.ts serve` with a data directory of its own, spoken to through its control
 * API, and treated the way machines are (killed, frozen, started again). It ends with the test at the latest.
 *
 * Contract with the process: when it is ready it prints one line on standard output,
 * `{"ready":true,"api":"http://127.0.0.1:PORT","pid":N,"tokenFile":PATH}`; other lines are ignored.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ExecutionContext } from 'ava';
import { findTool } from './find-tool.ts';
import { StatusFeed } from './status-feed.ts';
import { parseStatus } from './status.ts';
import type { ResourceStatus } from './status.ts';

export interface NodeOptions {
  readonly name: string;
  /** Data directory; a new one, removed after the test, when absent. */
  readonly dir?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Further arguments of `serve`. */
  readonly args?: readonly string[];
  /** What to run instead of `server/main.ts serve`, for the tests of this file. */
  readonly program?: readonly string[];
}

/** Starts a node and resolves when it is ready. */
export async function startNode(t: ExecutionContext, options: NodeOptions): Promise<NodeProcess> {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), `lockstep-${options.name}-`));
  const node = new NodeProcess(dir, options);
  t.teardown(async () => {
    await node.kill9();
    if (!t.passed) t.log(`output of ${options.name}:\n${node.output}`);
    if (options.dir === undefined) rmSync(dir, { recursive: true, force: true });
  });
  await node.start();
  return node;
}

export interface ApiAnswer {
  readonly status: number;
  /** Parsed JSON; a string when the answer is none; null when it is empty. */
  readonly body: unknown;
}

/** How long anything may take before a test fails: far more than it takes on a slow machine. */
export const patienceMs = 60_000;

type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

interface Running {
  readonly child: ChildProcess;
  readonly exited: Promise<Exit>;
  readonly pid: number;
  readonly api: string;
  readonly token: string;
  /** Opened by the first wait. */
  feed: Promise<StatusFeed> | null;
}

export class NodeProcess {
  readonly name: string;
  readonly dir: string;
  readonly #options: NodeOptions;
  /** From the spawn to the exit; known even while the process is not ready. */
  #child: { readonly child: ChildProcess; readonly exited: Promise<Exit> } | null = null;
  #running: Running | null = null;
  #output = '';
  /** Characters of output that are no longer kept. */
  #forgotten = 0;

  constructor(dir: string, options: NodeOptions) {
    this.name = options.name;
    this.dir = dir;
    this.#options = options;
  }

  /** Standard output and standard error of all runs, the last 256 KiB. */
  get output(): string {
    return this.#output;
  }

  /** A place in the output, for `outputSince`. */
  get outputMark(): number {
    return this.#forgotten + this.#output.length;
  }

  /** What has been said after the mark, as far as it is kept. */
  outputSince(mark: number): string {
    return this.#output.slice(Math.max(0, mark - this.#forgotten));
  }

  get pid(): number {
    return this.#mustRun().pid;
  }

  /** `http://127.0.0.1:PORT`; another port after each start. */
  get apiUrl(): string {
    return this.#mustRun().api;
  }

  get token(): string {
    return this.#mustRun().token;
  }

  /** Starts the process, again after it has ended; resolves when it is ready. */
  async start(): Promise<void> {
    if (this.#child !== null) throw new Error(`${this.name} is running`);
    const { command, args } = this.#commandLine();
    const child = spawn(command, args, {
      cwd: projectRoot,
      // The list of running nodes belongs to the user; those of a test do not.
      env: { ...environment(), XDG_RUNTIME_DIR: this.dir, ...this.#options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const exited = new Promise<Exit>((resolveExit) => {
      child.once('error', (error) => {
        this.#keep(`${error.message}\n`);
        resolveExit({ code: null, signal: null });
      });
      child.once('exit', (code, signal) => {
        this.#keep(`-- ${this.name} ended with ${code ?? signal}\n`);
        resolveExit({ code, signal });
      });
    });
    this.#child = { child, exited };
    void exited.then(() => {
      this.#child = null;
      this.#running = null;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => this.#keep(text));
    const { api, pid, tokenFile } = await this.#untilReady(child, exited);
    const token = readFileSync(tokenFile, 'utf8').trim();
    this.#running = { child, exited, pid, api, token, feed: null };
  }

  /** SIGKILL; resolves when the process is gone. Does nothing when it is gone already. */
  async kill9(): Promise<void> {
    if (this.#child === null) return;
    const { child, exited } = this.#child;
    child.kill('SIGKILL');
    await exited;
  }

  /** SIGTERM; resolves with the exit status. */
  async stop(): Promise<number | null> {
    const { child, exited } = this.#mustRun();
    child.kill('SIGTERM');
    const { code } = await within(patienceMs, `${this.name} to end after SIGTERM`, exited);
    return code;
  }

  /** Freezes the process: its connections stay open and say nothing. */
  sigstop(): void {
    process.kill(this.#mustRun().pid, 'SIGSTOP');
  }

  sigcont(): void {
    process.kill(this.#mustRun().pid, 'SIGCONT');
  }

  /** Kills the process if it runs and starts it with the same data directory. */
  async restart(): Promise<void> {
    await this.kill9();
    await this.start();
  }

  /** Resolves when the process ends, whoever ends it. */
  exited(): Promise<Exit> {
    return this.#mustRun().exited;
  }

  /** A request to the control API, whatever its outcome. */
  async api(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const { api, token } = this.#mustRun();
    const headers: Record<string, string> = { authorization: `Bearer ${token}` };
    if (body !== undefined) headers['content-type'] = 'application/json';
    const response = await fetch(`${api}${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(patienceMs),
    });
    return { status: response.status, body: parseBody(await response.text()) };
  }

  /** A request that has to succeed; returns the body of the answer. */
  async call(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await this.api(method, path, body);
    if (answer.status < 200 || answer.status > 299) {
      throw new Error(
        `${this.name}: ${method} ${path} answered ${answer.status} ${JSON.stringify(answer.body)}`,
      );
    }
    return answer.body;
  }

  async status(resource: string): Promise<ResourceStatus> {
    return parseStatus(await this.call('GET', `/v1/resources/${resource}`));
  }

  /**
   * Resolves with a status that satisfies the predicate: the present one, or else the first to come.
   * `what` completes the message "waiting for ...". Rejects when the node ends or after `limitMs`.
   */
  async waitFor(
    resource: string,
    predicate: (status: ResourceStatus) => boolean,
    what: string,
    limitMs = patienceMs,
  ): Promise<ResourceStatus> {
    const running = this.#mustRun();
    running.feed ??= StatusFeed.open(running.api, running.token);
    const feed = await running.feed;
    const fresh = this.api('GET', `/v1/resources/${resource}`).then((answer) =>
      answer.status === 200 ? parseStatus(answer.body) : null,
    );
    return feed.waitFor(resource, predicate, `${this.name}: ${what}`, fresh, limitMs);
  }

  #mustRun(): Running {
    if (this.#running === null) throw new Error(`${this.name} is not running; its output:\n${this.#output}`);
    return this.#running;
  }

  #commandLine(): { command: string; args: string[] } {
    const program = this.#options.program ?? [join(projectRoot, 'server/main.ts'), 'serve'];
    const own = ['--name', this.name, '--data-dir', this.dir, '--api', '127.0.0.1:0'];
    const args = [...program, ...own, ...(this.#options.args ?? [])];
    const wrapper = findTool('setpriv');
    if (wrapper === null) return { command: process.execPath, args };
    // The kernel ends the node with the test process, even if that is killed. exec keeps the process id.
    return { command: wrapper, args: ['--pdeathsig', 'KILL', process.execPath, ...args] };
  }

  #untilReady(child: ChildProcess, exited: Promise<Exit>): Promise<ReadyLine> {
    const ready = new Promise<ReadyLine>((resolveReady, reject) => {
      let line = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        this.#keep(text);
        const lines = (line + text).split('\n');
        line = lines.pop() ?? '';
        for (const each of lines) {
          const parsed = parseReadyLine(each);
          if (parsed !== null) resolveReady(parsed);
        }
      });
      void exited.then(() => reject(new Error(`${this.name} ended before it was ready:\n${this.#output}`)));
    });
    return within(patienceMs, `${this.name} to be ready`, ready);
  }

  #keep(text: string): void {
    const all = this.#output + text;
    this.#output = all.slice(-outputMax);
    this.#forgotten += all.length - this.#output.length;
  }
}

const projectRoot = resolve(import.meta.dirname, '../..');
const outputMax = 256 * 1024;

/** This process's environment less what would configure a node behind the test's back. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('LOCKSTEP_')));
}

interface ReadyLine {
  readonly api: string;
  readonly pid: number;
  readonly tokenFile: string;
}

function parseReadyLine(line: string): ReadyLine | null {
  if (!line.startsWith('{')) return null;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !('ready' in value) || value.ready !== true) return null;
  if (!('api' in value && 'pid' in value && 'tokenFile' in value)) return null;
  const { api, pid, tokenFile } = value;
  if (typeof api !== 'string' || typeof pid !== 'number' || typeof tokenFile !== 'string') return null;
  return { api, pid, tokenFile };
}

function parseBody(text: string): unknown {
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Rejects when the work takes longer than the limit. The work itself goes on. */
export async function within<T>(limitMs: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waiting for ${what}: not within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
