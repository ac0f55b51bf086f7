/** The node store: what it keeps, and what it refuses to open. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import test from 'ava';
import { openDataDirectory, readToken } from '../../server/data-directory.ts';
import { defineResource } from '../../server/definition.ts';
import { NodeStoreError, openNodeStore } from '../../server/node-store.ts';
import { StartError } from '../../server/start-error.ts';
import { mirroredBody, temporaryDirectory } from '../support/test-app.ts';

function definition(name: string) {
  const checked = defineResource(name, mirroredBody, 'alpha');
  if (!checked.ok) throw new Error('the test body is not valid');
  return checked.value;
}

function changed(path: string, sql: string): void {
  const database = new Database(path);
  database.exec(sql);
  database.close();
}

test('definitions survive closing and opening', (t) => {
  const path = join(temporaryDirectory(t), 'node.db');
  const store = openNodeStore(path, 'alpha');
  store.save(definition('r1'));
  store.save(definition('r0'));
  store.save({ ...definition('r1'), sizeBytes: 8192 });
  store.save(definition('gone'));
  store.remove('gone');
  store.close();
  const again = openNodeStore(path, 'alpha');
  t.deepEqual(again.definitions(), [definition('r0'), { ...definition('r1'), sizeBytes: 8192 }]);
  t.is(again.definition('gone'), null);
  again.close();
});

test('journal is WAL and synchronous FULL', (t) => {
  const path = join(temporaryDirectory(t), 'node.db');
  openNodeStore(path, 'alpha').close();
  const database = new Database(path);
  t.is(database.pragma('journal_mode', { simple: true }), 'wal');
  database.close();
});

test('a second process is kept out, until the first is killed', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'node.db');
  const script = `
    import { openNodeStore } from ${JSON.stringify(new URL('../../server/node-store.ts', import.meta.url).href)};
    // Held on to: a store that nothing refers to is collected, and its lock with it.
    globalThis.store = openNodeStore(process.argv[1], 'alpha');
    process.stdout.write('open');
    setInterval(() => {}, 1e9);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  t.throws(() => openNodeStore(path, 'alpha'), {
    instanceOf: NodeStoreError,
    message: /another process has .*node\.db/,
  });
  child.kill('SIGKILL');
  await exited;
  t.notThrows(() => openNodeStore(path, 'alpha').close());
});

test('a newer format is refused', (t) => {
  const path = join(temporaryDirectory(t), 'node.db');
  openNodeStore(path, 'alpha').close();
  changed(path, 'PRAGMA user_version = 99');
  t.throws(() => openNodeStore(path, 'alpha'), {
    instanceOf: NodeStoreError,
    message: /newer Lockstep \(format 99/,
  });
});

test('a directory of another node is refused', (t) => {
  const path = join(temporaryDirectory(t), 'node.db');
  openNodeStore(path, 'alpha').close();
  t.throws(() => openNodeStore(path, 'beta'), {
    instanceOf: NodeStoreError,
    message: /belongs to the node "alpha"/,
  });
});

test('a file that is no database, or one of somebody else, is refused and left as it is', (t) => {
  const directory = temporaryDirectory(t);
  const text = join(directory, 'text.db');
  writeFileSync(text, 'not a database, but long enough to be looked at as one '.repeat(20));
  const before = readFileSync(text);
  t.throws(() => openNodeStore(text, 'alpha'), { instanceOf: NodeStoreError, message: /damaged/ });
  t.deepEqual(readFileSync(text), before);
  const foreign = join(directory, 'foreign.db');
  changed(foreign, 'PRAGMA application_id = 7; CREATE TABLE x (y)');
  t.throws(() => openNodeStore(foreign, 'alpha'), {
    instanceOf: NodeStoreError,
    message: /not one of Lockstep/,
  });
});

test('a damaged definition is named, its secret is not', (t) => {
  const path = join(temporaryDirectory(t), 'node.db');
  const store = openNodeStore(path, 'alpha');
  store.save(definition('r0'));
  store.close();
  changed(path, `UPDATE resource SET definition = replace(definition, 'sizeBytes', 'size')`);
  const error = t.throws(() => openNodeStore(path, 'alpha'), {
    instanceOf: NodeStoreError,
    message: /definition of r0/,
  });
  t.false(error.message.includes('very secret'));
});

test('pages overwritten with garbage are refused', (t) => {
  const path = join(temporaryDirectory(t), 'node.db');
  const store = openNodeStore(path, 'alpha');
  for (let index = 0; index < 50; index++) store.save(definition(`r${index}`));
  store.close();
  const bytes = readFileSync(path);
  bytes.fill(0xa5, 4096);
  writeFileSync(path, bytes);
  t.throws(() => openNodeStore(path, 'alpha'), { instanceOf: NodeStoreError, message: /damaged/ });
});

test('the data directory is private; its token is made once', (t) => {
  const path = join(temporaryDirectory(t), 'data');
  const first = openDataDirectory(path, 'alpha');
  first.store.close();
  t.is(statSync(path).mode & 0o777, 0o700);
  t.is(statSync(first.tokenFile).mode & 0o777, 0o600);
  t.regex(first.token, /^[A-Za-z0-9_-]{43}$/);
  t.is(readToken(first.tokenFile), first.token);
  chmodSync(first.tokenFile, 0o644);
  const second = openDataDirectory(path, 'alpha');
  second.store.close();
  t.is(second.token, first.token);
  t.is(statSync(first.tokenFile).mode & 0o777, 0o600);
});

test('a data directory that cannot be one is refused with its path and what to do', (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, '');
  t.throws(() => openDataDirectory(path, 'alpha'), {
    instanceOf: StartError,
    message: new RegExp(`${path} cannot be made or used: .*choose another --data-dir`),
  });
});

test('an empty token file is refused, not taken for a token', (t) => {
  const path = join(temporaryDirectory(t), 'data');
  openDataDirectory(path, 'alpha').store.close();
  writeFileSync(join(path, 'api-token'), '\n');
  t.throws(() => openDataDirectory(path, 'alpha'), { message: /holds no token/ });
});
