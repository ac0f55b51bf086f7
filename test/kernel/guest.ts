/**
 * A Linux kernel in an emulator, driven step by step: `run` executes a shell script in it and returns its exit
 * status and output. The guest reaches servers on this machine's loopback as 10.0.2.2. What is inside is
 * initramfs.ts's; processor emulation only (no KVM), so it is slow and its timing means nothing.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { ExecutionContext } from 'ava';
import { findKernel, toolPath } from '../support/needs.ts';
import { buildInitramfs } from './initramfs.ts';

/** Where a guest finds this machine's loopback. */
export const hostAddress = '10.0.2.2';
/** What a test needs for `testWith` to boot a guest. */
export const guestNeeds = [
  'kernel',
  'qemu-system-x86_64',
  'busybox',
  'nbd-client',
  'mkfs.ext4',
  'fstrim',
] as const;

export interface GuestResult {
  /** Exit status of the script. */
  readonly status: number;
  /** Standard output and standard error, as they came. */
  readonly output: string;
}

/** Boots a guest that ends with the test. Its console goes to the test's log if the test fails. */
export async function bootGuest(t: ExecutionContext): Promise<Guest> {
  const kernel = findKernel();
  if (kernel === null) throw new Error('there is no kernel to boot; see scripts/install-test-tools.sh');
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-guest-'));
  const consoleFile = join(folder, 'console');
  const child = spawn(
    toolPath('qemu-system-x86_64'),
    [
      ...['-no-user-config', '-nodefaults', '-no-reboot', '-display', 'none', '-monitor', 'none'],
      ...['-accel', 'tcg', '-smp', '1', '-m', '512'],
      ...['-kernel', kernel.image, '-initrd', buildInitramfs(kernel)],
      ...['-append', 'console=ttyS0 panic=-1 quiet random.trust_bootloader=on mitigations=off'],
      ...['-serial', `file:${consoleFile}`],
      // Unlike a second serial line, a virtio port loses nothing when its reader is slow.
      ...['-chardev', 'stdio,id=agent,signal=off', '-device', 'virtio-serial-pci'],
      ...['-device', 'virtserialport,chardev=agent,name=agent'],
      ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
    ],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  const guest = new Guest(child, () => readOrEmpty(consoleFile));
  t.teardown(async () => {
    await guest.close();
    if (!t.passed) t.log(`guest console:\n${guest.console()}`);
    rmSync(folder, { recursive: true, force: true });
  });
  await guest.ready();
  return guest;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

export class Guest {
  readonly #child: Child;
  readonly #console: () => string;
  readonly #exited: Promise<void>;
  #received = Buffer.alloc(0);
  #wake: (() => void) | null = null;
  #ended: string | null = null;
  #emulatorErrors = '';
  /** Scripts run one at a time, in the order of the calls. */
  #last: Promise<unknown> = Promise.resolve();
  #nextId = 1;

  constructor(child: Child, console: () => string) {
    this.#child = child;
    this.#console = console;
    child.stdout.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      this.#emulatorErrors += chunk.toString();
    });
    // A guest that is gone is noticed by its exit, not by a failing write.
    child.stdin.on('error', () => undefined);
    this.#exited = new Promise((resolve) => {
      const ended = (why: string): void => {
        this.#ended ??= why;
        this.#wake?.();
        resolve();
      };
      child.once('error', (error) => ended(`the emulator did not start: ${error.message}`));
      child.once('close', (code, signal) => ended(`the emulator ended with ${code ?? signal}`));
    });
  }

  /** Runs a shell script. Rejects when the guest is gone or the script takes longer than `limitMs`. */
  run(script: string, limitMs = 180_000): Promise<GuestResult> {
    const result = this.#last.then(async () => {
      const id = String(this.#nextId++);
      this.#child.stdin.write(`${id} ${Buffer.from(script).toString('base64')}\n`);
      return this.#withLimit(limitMs, script, () => this.#reply(id));
    });
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Runs a shell script that has to succeed and returns its output. */
  async mustRun(script: string, limitMs?: number): Promise<string> {
    const { status, output } = await this.run(script, limitMs);
    if (status !== 0) {
      throw new Error(
        `in the guest: status ${status} of\n${script}\n${output}\nconsole:\n${this.#console()}`,
      );
    }
    return output;
  }

  /** What the kernel and the agent printed so far. */
  console(): string {
    return this.#console() + this.#emulatorErrors;
  }

  /** Power off, without any warning to the guest. */
  async close(): Promise<void> {
    if (this.#ended === null) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** Resolves when the guest takes scripts. A busy machine may need a minute for what usually takes seconds. */
  async ready(limitMs = 240_000): Promise<void> {
    const line = await this.#withLimit(limitMs, 'booting', () => this.#line());
    if (line !== 'ready') throw new Error(`the guest said ${JSON.stringify(line)} instead of being ready`);
  }

  async #reply(id: string): Promise<GuestResult> {
    const line = await this.#line();
    const [echoed, status, length] = line.split(' ').map(Number);
    if (String(echoed) !== id || status === undefined || length === undefined) {
      throw new Error(`the guest answered ${JSON.stringify(line)} to script ${id}`);
    }
    const output = await this.#bytes(length);
    return { status, output: output.toString() };
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#received.indexOf('\n');
      if (end >= 0) {
        const line = this.#received.toString('utf8', 0, end);
        this.#received = this.#received.subarray(end + 1);
        return line;
      }
      await this.#more();
    }
  }

  async #bytes(length: number): Promise<Buffer> {
    while (this.#received.length < length) await this.#more();
    const bytes = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  async #more(): Promise<void> {
    if (this.#ended !== null) throw new Error(`${this.#ended}; its console:\n${this.console()}`);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** After its limit a guest is of no further use: what is still running in it cannot be told from later replies. */
  async #withLimit<T>(limitMs: number, what: string, work: () => Promise<T>): Promise<T> {
    const timer = setTimeout(() => {
      this.#ended = `not done after ${limitMs} ms: ${what}`;
      this.#child.kill('SIGKILL');
      this.#wake?.();
    }, limitMs);
    try {
      return await work();
    } finally {
      clearTimeout(timer);
    }
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
