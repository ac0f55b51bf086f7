/**
 * System calls of running processes, written down by one strace and read back. It holds a thread at the beginning and
 * at the end of every traced call until it has noted it, so of two events of which one caused the other the cause
 * stands first, whichever processes they are in: lines order events, and no clock is compared.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { patienceMs, within } from './node-process.ts';
import { toolPath } from './tools.ts';

export interface Tracer {
  /** Lets the processes go; what was written down. */
  finish(): Promise<SystemCall[]>;
}

export interface SystemCall {
  readonly name: string;
  /** As strace prints them with -yy: descriptors carry their path or addresses. */
  readonly args: string;
  /** Lines of its beginning and of its end; the end is Infinity for a call that had not ended. */
  readonly begin: number;
  readonly end: number;
  /** What it returned; null when it had not ended. */
  readonly result: string | null;
}

/**
 * Follows all threads of these processes from when it resolves; null where the system does not allow that. `output` is
 * a file to be written.
 */
export async function attachTracer(
  t: ExecutionContext,
  pids: readonly number[],
  output: string,
): Promise<Tracer | null> {
  const options = ['-f', '-yy', '-s', '0', '-e', `trace=${traced.join(',')}`, '-o', output];
  const tracer = spawn(
    toolPath('strace') ?? 'strace',
    [...options, ...pids.map((pid) => `--attach=${pid}`)],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  const exited = once(tracer, 'exit');
  t.teardown(async () => {
    tracer.kill('SIGKILL');
    await exited;
  });
  let said = '';
  const attached = new Promise<void>((resolve) => {
    tracer.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (pids.every((pid) => said.includes(`Process ${pid} attached`))) resolve();
    });
  });
  const began = Promise.race([attached.then(() => true), exited.then(() => false)]);
  if (!(await within(patienceMs, 'strace to attach', began))) {
    t.log(said);
    if (/not permitted/.test(said)) return null;
    throw new Error(`strace ended before it had attached: ${said}`);
  }
  return {
    finish: async () => {
      tracer.kill('SIGINT');
      await within(patienceMs, 'strace to let go', exited);
      return parseSystemCalls(readFileSync(output, 'utf8'));
    },
  };
}

/** Reads the output of `strace -f`: a call that others interrupt is on two lines. */
export function parseSystemCalls(text: string): SystemCall[] {
  const calls: SystemCall[] = [];
  const open = new Map<string, number>();
  for (const [line, content] of text.split('\n').entries()) {
    const [, thread = '', rest = ''] = /^([0-9]+) +(.*)$/.exec(content) ?? [];
    const ended = /^<\.\.\. \w+ resumed>(.*)\) += (.*)$/.exec(rest);
    const whole = /^(\w+)\((.*)\) += (.*)$/.exec(rest);
    const begun = /^(\w+)\((.*?)(?: *<(?:unfinished|detached) \.\.\.>)?$/.exec(rest);
    if (ended !== null) {
      const index = open.get(thread);
      const call = index === undefined ? undefined : calls[index];
      open.delete(thread);
      // Without its beginning it is one that ran when the tracer came.
      if (index === undefined || call === undefined) continue;
      calls[index] = { ...call, args: call.args + (ended[1] ?? ''), end: line, result: ended[2] ?? '' };
    } else if (whole !== null) {
      const [, name = '', args = '', result = ''] = whole;
      calls.push({ name, args, begin: line, end: line, result });
    } else if (begun !== null) {
      const [, name = '', args = ''] = begun;
      open.set(thread, calls.push({ name, args, begin: line, end: Infinity, result: null }) - 1);
    }
  }
  return calls;
}

const writes = ['write', 'writev', 'sendto', 'sendmsg'];
const reads = ['read', 'readv', 'recvfrom', 'recvmsg'];
const traced = [...writes, ...reads, 'pwrite64', 'pwritev', 'fdatasync'];

export interface Exchange {
  /** The end of the call that read the request. */
  readonly requestAt: number;
  /** The beginning of the call that wrote the reply. */
  readonly replyAt: number;
}

/**
 * Requests and replies on the connections to this port of the loopback address, for a client that never has more than
 * one request in flight, as seen by the server.
 */
export function exchangesOn(calls: readonly SystemCall[], port: number): Exchange[] {
  const own = calls.filter(({ args }) => args.includes(`<TCP:[127.0.0.1:${port}->`));
  const exchanges: Exchange[] = [];
  let requestAt: number | null = null;
  for (const { name, result, begin, end } of own) {
    if (reads.includes(name) && Number(result) > 0) {
      requestAt ??= end;
    } else if (writes.includes(name) && requestAt !== null) {
      exchanges.push({ requestAt, replyAt: begin });
      requestAt = null;
    }
  }
  return exchanges;
}
