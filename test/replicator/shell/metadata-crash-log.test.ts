/** Power lost during a commit: whatever part of it has reached the write-ahead log, the state is that before it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { Transaction } from '../../../replicator/core/metadata.ts';
import type { MetadataChange } from '../../../replicator/shell/metadata-database.ts';
import { attributeBinding, contentOf, opened, someSuperblock } from '../../support/metadata.ts';
import { comparable, imageAfter, metadataHistory } from '../../support/metadata-history.ts';
import { temporaryDirectory, temporaryRoots } from '../../support/temporary.ts';

const sectorBytes = 512;

for (const [index, { what }] of metadataHistory.entries()) {
  test(`the log cut off, or a sector of it missing, anywhere in the last commit: as before it (${what})`, (t) => {
    const directory = temporaryDirectory(t, temporaryRoots.at(-1));
    const path = join(directory, 'r0.sqlite');
    const { database } = opened(path);
    database.commit([{ transaction: { superblock: someSuperblock }, binding: attributeBinding }]);
    for (const { commit } of metadataHistory.slice(0, index)) database.commit(changes(commit));
    const before = readFileSync(`${path}-wal`);
    database.commit(changes(metadataHistory[index]?.commit ?? []));
    const after = readFileSync(`${path}-wal`);
    const main = readFileSync(path);
    database.close();
    t.true(after.length > before.length, 'the commit is at the end of the log');
    t.deepEqual(after.subarray(0, before.length), before);

    const imageWith = (log: Buffer): unknown => {
      const copy = join(directory, 'copy.sqlite');
      writeFileSync(copy, main);
      writeFileSync(`${copy}-wal`, log);
      return comparable(contentOf(copy).recorded?.image ?? null);
    };
    const old = comparable(imageAfter(index));
    t.notDeepEqual(comparable(imageAfter(index + 1)), old);
    t.deepEqual(imageWith(after), comparable(imageAfter(index + 1)));
    for (let at = before.length; at < after.length; at += sectorBytes) {
      t.deepEqual(imageWith(after.subarray(0, at)), old, `cut off after ${at - before.length} bytes`);
      const missing = Buffer.from(after);
      missing.fill(0, at, Math.min(at + sectorBytes, after.length));
      // A sector of zeroes is not missed.
      if (!missing.equals(after))
        t.deepEqual(imageWith(missing), old, `the sector at ${at - before.length} missing`);
    }
  });
}

function changes(transactions: readonly Transaction[]): MetadataChange[] {
  return transactions.map((transaction) => ({ transaction, binding: null }));
}
