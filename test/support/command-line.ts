/** Runs the command line as a process of its own, apart from the nodes of whoever runs the tests. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export const mainFile = fileURLToPath(new URL('../../server/main.ts', import.meta.url));

/** An environment in which no node of the user is found; `directory` keeps the records of running nodes. */
export function cleanEnvironment(directory: string): NodeJS.ProcessEnv {
  const rest = Object.entries(process.env).filter(([key]) => !key.startsWith('LOCKSTEP_'));
  return {
    ...Object.fromEntries(rest),
    XDG_RUNTIME_DIR: directory,
    XDG_STATE_HOME: join(directory, 'state'),
  };
}

export function lockstep(
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  input = '',
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [mainFile, ...args], {
      env: environment,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, stdout, stderr }));
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}
