/**
 * System calls of a running process, written down by strace and read back. It holds a thread at the beginning and at
 * the end of every traced call until it has noted the time, so of two events of which one caused the other the cause
 * has the earlier time, whichever processes they are in: one machine, one clock.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { patienceMs, within } from './node-process.ts';
import { findTool } from './find-tool.ts';

export interface Tracer {
  /** Lets the process go; what was written down. */
  finish(): Promise<SystemCall[]>;
}

export interface SystemCall {
  readonly name: string;
  /** As strace prints them with -yy: descriptors carry their path or addresses. */
  readonly args: string;
  /** Microseconds of the clock; the end is Infinity for a call that had not ended. */
  readonly beginUs: number;
  readonly endUs: number;
  /** What it returned; null when it had not ended. */
  readonly result: string | null;
}

export interface TracerOptions {
  readonly pid: number;
  /** A file to be written. */
  readonly output: string;
  /** Every fdatasync takes this much longer, so that whoever does not wait for it is early. Default 0. */
  readonly flushDelayMs?: number;
}

/** Follows all threads of a process from when it resolves; null where the system does not allow that. */
export async function attachTracer(t: ExecutionContext, options: TracerOptions): Promise<Tracer | null> {
  const { pid, output, flushDelayMs = 0 } = options;
  const args = ['-f', '-yy', '-ttt', '-T', '-s', '0', '-o', output, '-e', `trace=${traced.join(',')}`];
  if (flushDelayMs > 0) args.push('-e', `inject=fdatasync:delay_enter=${flushDelayMs * 1000}`);
  const tracer = spawn(findTool('strace') ?? 'strace', [...args, '-p', String(pid)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(tracer, 'exit');
  t.teardown(async () => {
    tracer.kill('SIGKILL');
    await exited;
  });
  let said = '';
  const attached = new Promise<void>((resolve) => {
    tracer.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes(`Process ${pid} attached`)) resolve();
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

/** Reads the output of `strace -f -ttt -T`: a call that those of other threads interrupt is on two lines. */
export function parseSystemCalls(text: string): SystemCall[] {
  const calls: SystemCall[] = [];
  const open = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [, thread = '', seconds = '', micros = '', rest = ''] =
      /^([0-9]+) +([0-9]+)\.([0-9]{6}) (.*)$/.exec(line) ?? [];
    const atUs = Number(seconds) * 1e6 + Number(micros);
    const resumed = /^<\.\.\. \w+ resumed>(.*)\) += (-?[0-9]+)/.exec(rest);
    const whole = /^(\w+)\((.*)\) += (-?[0-9]+).*<([0-9]+)\.([0-9]{6})>$/.exec(rest);
    const begun = /^(\w+)\((.*?)(?: *<(?:unfinished|detached) \.\.\.>)?$/.exec(rest);
    if (resumed !== null) {
      const index = open.get(thread);
      const call = index === undefined ? undefined : calls[index];
      open.delete(thread);
      // Without its beginning it is one that ran when the tracer came.
      if (index === undefined || call === undefined) continue;
      const [, args = '', result = ''] = resumed;
      calls[index] = { ...call, args: call.args + args, endUs: atUs, result };
    } else if (whole !== null) {
      const [, name = '', args = '', result = '', tookSeconds = '', tookMicros = ''] = whole;
      const endUs = atUs + Number(tookSeconds) * 1e6 + Number(tookMicros);
      calls.push({ name, args, beginUs: atUs, endUs, result });
    } else if (begun !== null) {
      const [, name = '', args = ''] = begun;
      open.set(thread, calls.push({ name, args, beginUs: atUs, endUs: Infinity, result: null }) - 1);
    }
  }
  return calls;
}

const writes = ['write', 'writev', 'sendto', 'sendmsg'];
const reads = ['read', 'readv', 'recvfrom', 'recvmsg'];
const traced = [...writes, ...reads, 'pwrite64', 'pwritev', 'fdatasync'];

export interface Exchange {
  /** The end of the call that read the request. */
  readonly requestUs: number;
  /** The beginning of the call that wrote the reply. */
  readonly replyUs: number;
}

/**
 * Requests and replies on the connections to this port of the loopback address, for a client that never has more than
 * one request in flight, as seen by the server.
 */
export function exchangesOn(calls: readonly SystemCall[], port: number): Exchange[] {
  const own = calls.filter(({ args }) => args.includes(`<TCP:[127.0.0.1:${port}->`));
  const exchanges: Exchange[] = [];
  let requestUs: number | null = null;
  for (const { name, result, beginUs, endUs } of own) {
    if (reads.includes(name) && Number(result) > 0) {
      requestUs ??= endUs;
    } else if (writes.includes(name) && requestUs !== null) {
      exchanges.push({ requestUs, replyUs: beginUs });
      requestUs = null;
    }
  }
  return exchanges;
}
