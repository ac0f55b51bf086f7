/** A stop leaves nothing behind: every request of a client is answered, and the backing is let go of. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import test, { type ExecutionContext } from 'ava';
import { freePort } from '../../support/ports.ts';
import { startReplica } from '../../support/replica.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** Writes in the thread pool hang until they are let go. */
function hangWrites(t: ExecutionContext): { readonly begun: Promise<void>; readonly letGo: () => void } {
  const { write } = fs;
  const waiting: (() => void)[] = [];
  let begin = (): void => undefined;
  const begun = new Promise<void>((resolve) => (begin = resolve));
  const hanging = (...parts: readonly unknown[]): void => {
    waiting.push(() => void Reflect.apply(write, fs, parts));
    begin();
  };
  Reflect.set(fs, 'write', hanging);
  syncBuiltinESMExports();
  const letGo = (): void => {
    fs.write = write;
    syncBuiltinESMExports();
    for (const go of waiting.splice(0)) go();
  };
  t.teardown(letGo);
  return { begun, letGo };
}

test.serial(
  'a write that a disk kept is answered when the node stops, and so is what comes later',
  async (t) => {
    const { node } = await startReplica({
      name: 'alpha',
      peerName: 'beta',
      directory: temporaryDirectory(t),
      port: 0,
      peerPort: await freePort(),
    });
    t.teardown(() => node.stop());
    t.like(await node.command({ kind: 'promote', force: true, dryRun: false }), { ok: true });

    const { begun, letGo } = hangWrites(t);
    const answers: (string | null)[] = [];
    node.device.write(0, Buffer.alloc(2 * 1024 * 1024, 1), { fua: false }, (error) => answers.push(error));
    await begun;
    // It waits for the write; the stop does not wait for it.
    const demoted = node.command({ kind: 'demote', force: true, dryRun: false });
    const stopped = node.stop();
    letGo();
    await stopped;
    t.like(await demoted, { ok: false, refusal: { code: 'shutting-down' } });
    t.deepEqual(answers, ['ESHUTDOWN']);
    node.device.read(0, 4096, (error) => answers.push(error));
    node.device.flush((error) => answers.push(error));
    t.deepEqual(answers, ['ESHUTDOWN', 'ESHUTDOWN', 'ESHUTDOWN']);
  },
);
