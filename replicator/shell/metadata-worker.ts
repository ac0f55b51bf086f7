/** The thread that owns one resource's metadata database, so that a commit never holds up the data plane. */
import { parentPort, workerData } from 'node:worker_threads';
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

export type MetadataOrder =
  { readonly kind: 'commit'; readonly changes: readonly MetadataChange[] } | { readonly kind: 'close' };

export type MetadataAnswer =
  | { readonly kind: 'opened'; readonly content: MetadataContent }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** The changes of the last order are durable. */
  | { readonly kind: 'committed' }
  /** They are not, and nothing is committed any more. */
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'closed' };

if (parentPort !== null) {
  serve(parentPort, parseLocation(workerData));
}

function serve(port: MessagePort, location: MetadataLocation): void {
  const opened = countedCommit(() => openMetadataDatabase(location));
  if (!opened.ok) {
    answer(port, { kind: 'refused', refusal: opened.refusal });
    return;
  }
  port.on('message', (order: MetadataOrder) => {
    switch (order.kind) {
      case 'commit':
        answer(port, commit(opened.database, order.changes));
        return;
      case 'close':
        opened.database.close();
        answer(port, { kind: 'closed' });
        port.close();
        return;
    }
  });
  answer(port, { kind: 'opened', content: opened.content }, imageBuffers(opened.content));
}

function parseLocation(value: unknown): MetadataLocation {
  const fields = new Map<string, unknown>(Object.entries(value ?? {}));
  const text = (name: keyof MetadataLocation): string => {
    const field = fields.get(name);
    if (typeof field !== 'string') throw new TypeError(`the metadata thread was started without ${name}`);
    return field;
  };
  return { path: text('path'), resourceName: text('resourceName'), nodeName: text('nodeName') };
}

function commit(database: MetadataDatabase, changes: readonly MetadataChange[]): MetadataAnswer {
  try {
    countedCommit(() => database.commit(changes));
    return { kind: 'committed' };
  } catch (error) {
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
