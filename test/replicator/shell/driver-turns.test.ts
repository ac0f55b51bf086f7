/** In which order the driver hands out what belongs together: commits of the activity log, and the writes they let go. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { MessagePort } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { extentBytes } from '../../../replicator/core/vocabulary.ts';
import { freePort } from '../../support/ports.ts';
import { blocksPerExtent, startReplica } from '../../support/replica.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** Commits as they set out to the metadata thread, and writes of the backing as they are made, by extent. */
function watch(t: ExecutionContext): {
  readonly steps: string[];
  readonly onStep: (then: () => void) => void;
} {
  const steps: string[] = [];
  let tell = (): void => undefined;
  const add = (step: string): void => {
    steps.push(step);
    tell();
  };
  const { writeSync } = fs;
  fs.writeSync = (...parts: readonly unknown[]): number => {
    const position = parts[4];
    if (typeof position === 'number') add(`write to extent ${Math.floor(position / extentBytes)}`);
    return Number(Reflect.apply(writeSync, fs, parts));
  };
  syncBuiltinESMExports();
  const post = Object.getOwnPropertyDescriptor(MessagePort.prototype, 'postMessage');
  const postMessage: unknown = post?.value;
  if (post === undefined || typeof postMessage !== 'function') throw new Error('no postMessage to watch');
  MessagePort.prototype.postMessage = function (
    this: MessagePort,
    message: unknown,
    ...more: unknown[]
  ): void {
    if (typeof message === 'object' && message !== null && 'changes' in message) add('commit');
    Reflect.apply(postMessage, this, [message, ...more]);
  };
  t.teardown(() => {
    fs.writeSync = writeSync;
    syncBuiltinESMExports();
    Object.defineProperty(MessagePort.prototype, 'postMessage', post);
  });
  return { steps, onStep: (then) => (tell = then) };
}

test.serial(
  'misses that came during a commit share the next one, which sets out before the writes let go',
  async (t) => {
    const place = {
      name: 'alpha',
      peerName: 'beta',
      directory: temporaryDirectory(t),
      port: 0,
      peerPort: await freePort(),
    };
    const replica = await startReplica(place);
    t.teardown(() => replica.node.stop());
    t.like(await replica.node.command({ kind: 'promote', force: true, dryRun: false }), { ok: true });
    await replica.write(0, 1);

    const { steps, onStep } = watch(t);
    const writes: Promise<void>[] = [];
    const begun = new Promise<void>((resolve) => {
      onStep(() => {
        onStep(() => undefined);
        writes.push(replica.write(2 * blocksPerExtent, 1), replica.write(3 * blocksPerExtent, 1));
        resolve();
      });
    });
    writes.push(replica.write(blocksPerExtent, 1));
    await begun;
    await Promise.all(writes);
    t.deepEqual(steps, ['commit', 'commit', 'write to extent 1', 'write to extent 2', 'write to extent 3']);
  },
);
