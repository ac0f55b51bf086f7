/** Calls off the thread: so many at a time, in order, and never one too many. */
import { closeSync, openSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { BoundedCalls } from '../../../replicator/shell/bounded-calls.ts';
import { seek } from '../../../replicator/shell/libc.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('no more calls run at a time than may, and those that wait run in order', (t) => {
  const calls = new BoundedCalls(2);
  const ends: (() => void)[] = [];
  const started: number[] = [];
  for (let call = 0; call < 5; call++) {
    calls.run((ended) => {
      started.push(call);
      ends.push(ended);
    });
  }
  t.deepEqual(started, [0, 1]);
  ends[1]?.();
  t.deepEqual(started, [0, 1, 2]);
  ends[0]?.();
  ends[2]?.();
  t.deepEqual(started, [0, 1, 2, 3, 4]);
  ends[3]?.();
  ends[4]?.();
  calls.run(() => started.push(5));
  t.deepEqual(started, [0, 1, 2, 3, 4, 5]);
});

test('a call that ends while it is being started makes room at once', (t) => {
  const calls = new BoundedCalls(1);
  let ran = 0;
  for (let call = 0; call < 3; call++) {
    calls.run((ended) => {
      ran++;
      ended();
    });
  }
  t.is(ran, 3);
});

test('calls that have ended are not held on to, however long there is always one that waits', async (t) => {
  const calls = new BoundedCalls(1);
  const data: WeakRef<Uint8Array>[] = [];
  const ends: (() => void)[] = [];
  const begin = (bytes: Uint8Array): void => {
    data.push(new WeakRef(bytes));
    calls.run((ended) => {
      bytes.fill(1);
      ends.push(ended);
    });
  };
  begin(new Uint8Array(4096));
  begin(new Uint8Array(4096));
  for (let call = 0; call < 1000; call++) {
    begin(new Uint8Array(4096));
    ends.shift()?.();
  }
  t.is(ends.length, 1);
  // What a weak reference was made to stays until the turn is over.
  await nextTurn();
  collectGarbage();
  const held = data.filter((reference) => reference.deref() !== undefined).length;
  t.true(held < 100, `the data of ${held} calls of 1002 is held on to`);
});

test('a thousand seeks at once are all answered', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, Buffer.alloc(4096, 1));
  truncateSync(path, 1024 * 1024);
  const fd = openSync(path, 'r');
  const answers = await Promise.all(
    Array.from(
      { length: 1000 },
      () => new Promise((resolve) => seek(fd, 0, 'data', (error, found) => resolve(error ?? found))),
    ),
  );
  closeSync(fd);
  t.deepEqual(new Set(answers), new Set([0]));
});

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc()');
}
