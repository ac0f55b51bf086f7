/** A stop leaves nothing behind: every request of a client is answered, and the backing is let go of. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import test, { type ExecutionContext } from 'ava';
import { freePort } from '../../support/ports.ts';
import { startReplica } from '../../support/replica.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** Calls of the thread pool hang until they are let go. */
function hang(
  t: ExecutionContext,
  call: 'write' | 'close',
): { readonly begun: Promise<void>; readonly letGo: () => void } {
  const original = fs[call];
  const waiting: (() => void)[] = [];
  let begin = (): void => undefined;
  const begun = new Promise<void>((resolve) => (begin = resolve));
  const hanging = (...parts: readonly unknown[]): void => {
    waiting.push(() => void Reflect.apply(original, fs, parts));
    begin();
  };
  Reflect.set(fs, call, hanging);
  syncBuiltinESMExports();
  const letGo = (): void => {
    Reflect.set(fs, call, original);
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

    const { begun, letGo } = hang(t, 'write');
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

test.serial('a disk that was being attached when the node stopped is let go of', async (t) => {
  const place = {
    name: 'alpha',
    peerName: 'beta',
    directory: temporaryDirectory(t),
    port: 0,
    peerPort: await freePort(),
  };
  const { node } = await startReplica(place);
  t.teardown(() => node.stop());
  const { begun, letGo } = hang(t, 'close');
  t.like(await node.command({ kind: 'detach', force: true }), { ok: true });
  await begun;
  const attached = node.command({ kind: 'attach' });
  const stopped = node.stop();
  t.like(await attached, { ok: false, refusal: { code: 'shutting-down' } });
  // Nothing is answered between the end of the core and the closing of the disk.
  await new Promise((resolve) => node.device.flush(resolve));
  letGo();
  await stopped;
  const again = await startReplica(place);
  await again.node.stop();
});
