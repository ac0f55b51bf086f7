/** A thread that owns the metadata databases of some resources, so that a commit never holds up the data plane. */
import { flushCompileCache } from 'node:module';
import { parentPort } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import type { Refusal } from '../core/refusal.ts';
import { countedCommit } from './crash-commit.ts';
import { openMetadataDatabase } from './metadata-database.ts';
import type {
  MetadataChange,
  MetadataContent,
  MetadataDatabase,
  MetadataLocation,
} from './metadata-database.ts';

/** To the thread. What concerns one database goes over its port. */
export type MetadataThreadOrder =
  | { readonly kind: 'open'; readonly location: MetadataLocation; readonly port: MessagePort }
  /** No database is open any more. */
  | { readonly kind: 'end' };

export type MetadataOrder =
  { readonly kind: 'commit'; readonly changes: readonly MetadataChange[] } | { readonly kind: 'close' };

export type MetadataAnswer =
  | { readonly kind: 'opened'; readonly content: MetadataContent }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** The changes of the last order are durable. */
  | { readonly kind: 'committed' }
  /** They are not; nothing is committed any more, and the database is closed. */
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'closed' };

if (parentPort !== null) {
  const thread = parentPort;
  thread.on('message', (order: MetadataThreadOrder) => {
    if (order.kind === 'open') serve(order.port, order.location);
    else thread.close();
  });
}

function serve(port: MessagePort, location: MetadataLocation): void {
  const opened = countedCommit(() => openMetadataDatabase(location));
  if (!opened.ok) {
    answer(port, { kind: 'refused', refusal: opened.refusal });
    port.close();
    return;
  }
  const { database } = opened;
  port.on('message', (order: MetadataOrder) => {
    const done = order.kind === 'commit' ? commit(database, order.changes) : close(database);
    answer(port, done);
    if (done.kind !== 'committed') port.close();
  });
  answer(port, { kind: 'opened', content: opened.content }, imageBuffers(opened.content));
  // All is loaded by now. A thread that ends with its process, killed, would leave nothing for the next start.
  flushCompileCache();
}

function close(database: MetadataDatabase): MetadataAnswer {
  database.close();
  return { kind: 'closed' };
}

function commit(database: MetadataDatabase, changes: readonly MetadataChange[]): MetadataAnswer {
  try {
    countedCommit(() => database.commit(changes));
    return { kind: 'committed' };
  } catch (error) {
    database.close();
    return { kind: 'failed', message: error instanceof Error ? error.message : String(error) };
  }
}

function answer(port: MessagePort, message: MetadataAnswer, transfer: readonly ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

/** Up to 512 MiB of images are handed over rather than copied; SQLite's reader gave each its own memory. */
function imageBuffers(content: MetadataContent): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const { image } of content.recorded?.image.chunks ?? []) {
    if (image.buffer instanceof ArrayBuffer && image.byteLength === image.buffer.byteLength) {
      buffers.add(image.buffer);
    }
  }
  return [...buffers];
}
