/**
 * A `serve` process of the pair: started, watched and started again when it dies. It runs in a session of its
 * own, so that Ctrl-C reaches it once, through us; its standard input is a pipe from us, so that it stops when
 * we are killed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Type, type Static } from 'typebox';
import { StartError } from '../start-error.ts';
import { checker } from '../validation.ts';

const ReadyLine = Type.Object({
  ready: Type.Literal(true),
  api: Type.String(),
  pid: Type.Integer(),
  tokenFile: Type.String(),
});
export type ReadyLine = Static<typeof ReadyLine>;
const checkReady = checker(ReadyLine);

/** Pauses between restarts, milliseconds: the last one repeats. A node up for longer than a minute starts anew. */
const restartPausesMs = [250, 500, 1_000, 2_000, 5_000];
const stableAfterMs = 60_000;

export interface ChildNodeOptions {
  readonly name: string;
  readonly dataDirectory: string;
  /** HOST:PORT of its control API. */
  readonly api: string;
  readonly say: (text: string) => void;
  /** It is back after a death. */
  readonly restarted: () => void;
}

export class ChildNode {
  readonly name: string;
  readonly logFile: string;
  readonly #options: ChildNodeOptions;
  #child: ChildProcess | null = null;
  #exited: Promise<void> = Promise.resolve();
  #restartTimer: NodeJS.Timeout | undefined;
  #deaths = 0;
  #stopping = false;

  constructor(options: ChildNodeOptions) {
    this.name = options.name;
    this.#options = options;
    this.logFile = join(options.dataDirectory, 'node.log');
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the node is ready; rejects with what it said when it ends before. */
  start(): Promise<ReadyLine> {
    const { dataDirectory, name, api } = this.#options;
    mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
    const log = openSync(this.logFile, 'a', 0o600);
    const child = spawn(
      process.execPath,
      [
        ...process.execArgv,
        fileURLToPath(new URL(mainFile(), import.meta.url)),
        'serve',
        ...['--name', name],
        ...['--data-dir', dataDirectory],
        ...['--api', api],
        '--stop-on-stdin-end',
      ],
      { stdio: ['pipe', 'pipe', log], detached: true },
    );
    closeSync(log);
    this.#child = child;
    child.stdin?.on('error', () => undefined);
    const startedAt = process.uptime();
    return new Promise((resolve, reject) => {
      let ready = false;
      const lines = child.stdout ? createInterface({ input: child.stdout }) : null;
      lines?.on('line', (line) => {
        const checked = checkReady(parseJson(line));
        if (!checked.ok) return;
        ready = true;
        resolve(checked.value);
      });
      this.#exited = new Promise((exited) => {
        const ended = (how: string) => {
          exited();
          if (this.#child === child) this.#child = null;
          if (!ready) reject(new StartError(`${name} did not start (${how}): ${this.#lastWords()}`));
          else if (!this.#stopping) this.#restart(how, process.uptime() - startedAt);
        };
        child.once('error', (error) => ended(error.message));
        child.once('exit', (code, signal) => ended(signal ?? `exit status ${code}`));
      });
    });
  }

  /** SIGTERM, and the end of the process awaited. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
    this.#child?.kill('SIGTERM');
    await this.#exited;
  }

  kill(): void {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
    this.#child?.kill('SIGKILL');
  }

  #restart(how: string, upSeconds: number): void {
    this.#deaths = upSeconds * 1000 > stableAfterMs ? 0 : this.#deaths;
    const pauseMs = restartPausesMs[Math.min(this.#deaths, restartPausesMs.length - 1)] ?? 0;
    this.#deaths += 1;
    this.#options.say(`${this.name} ended (${how}); starting it again`);
    this.#restartTimer = setTimeout(() => {
      this.start().then(
        () => {
          this.#options.say(`${this.name} is back`);
          this.#options.restarted();
        },
        (error: unknown) => {
          if (!this.#stopping) this.#restart(error instanceof Error ? error.message : String(error), 0);
        },
      );
    }, pauseMs);
  }

  /** What the process said on its way out: the lines of its log that are no log records. */
  #lastWords(): string {
    const lines = readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-20);
    const said = lines.filter((line) => line.startsWith('lockstep')).at(-1);
    return said?.replace(/^lockstep( serve)?: /, '') ?? `see ${this.logFile}`;
  }
}

function mainFile(): string {
  return import.meta.url.endsWith('.ts') ? '../lockstep.js' : '../main.js';
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
