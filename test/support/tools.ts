/** Programs we did not write, for interop tests; and running them without blocking the event loop. */
import { spawn } from 'node:child_process';
import type { ExecutionContext } from 'ava';
import { findTool } from './find-tool.ts';

/**
 * Whether all these programs are installed. If one is not, the test is logged as not run, and fails where tests are
 * meant to be complete (CI=true). Use: `if (!requireTool(t, ['fio'])) return;`
 */
export function requireTool(t: ExecutionContext, names: readonly string[]): boolean {
  const missing = names.filter((name) => findTool(name) === null);
  if (missing.length === 0) return true;
  report(t, `not installed: ${missing.join(', ')}`);
  return false;
}

/** As requireTool, for something other than a program in the path; `missing` names it. */
export function requirePresent(t: ExecutionContext, present: boolean, missing: string): boolean {
  if (!present) report(t, `not installed: ${missing}`);
  return present;
}

function report(t: ExecutionContext, why: string): void {
  t.log(`NOT RUN (${why})`);
  if (process.env['CI'] === 'true') t.fail(why);
  else t.pass();
}

export interface ToolResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that has not ended by then never will: what it talks to has left it without an answer. */
const patienceMs = 200_000;

/** Runs a program to its end. Asynchronous: the server it talks to may live in this process. */
export function runTool(
  name: string,
  args: readonly string[],
  options: { readonly input?: string; readonly cwd?: string } = {},
): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(findTool(name) ?? name, args, { cwd: options.cwd, stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.stdin.on('error', () => undefined);
    child.on('error', reject);
    const limit = setTimeout(() => {
      child.kill('SIGKILL');
      reject(
        new Error(
          `${name} ${args.join(' ')} did not end; so far: ${Buffer.concat([...out, ...err]).toString()}`,
        ),
      );
    }, patienceMs);
    child.on('close', (status) => {
      clearTimeout(limit);
      resolve({ status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    });
    child.stdin.end(options.input ?? '');
  });
}
