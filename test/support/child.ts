/** Child processes of tests: started with this Node, read line by line, ended by their pid when the test ends. */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { ExecutionContext } from 'ava';

export interface TestChild {
  readonly pid: number;
  readonly lines: AsyncIterator<string>;
  /** One line to its standard input; lost when the process is gone. */
  say(line: string): void;
  /** Resolves when the process is gone, with the signal that ended it; null when it ended by itself. */
  readonly exited: Promise<NodeJS.Signals | null>;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

export function startChild(
  t: ExecutionContext,
  script: URL,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): TestChild {
  const child: ChildProcessByStdio<Writable, Readable, null> = spawn(
    process.execPath,
    [script.pathname, ...args],
    { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } },
  );
  if (child.pid === undefined) throw new Error(`cannot start ${script.pathname}`);
  const exited = once(child, 'exit').then(() => child.signalCode);
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  t.teardown(kill);
  child.stdin.on('error', () => undefined);
  return {
    pid: child.pid,
    exited,
    lines: createInterface({ input: child.stdout })[Symbol.asyncIterator](),
    say: (line) => child.stdin.write(`${line}\n`),
    kill,
  };
}
