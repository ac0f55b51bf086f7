/** Opens backing stores in tests, and turns their callbacks into promises. */
import type { ExecutionContext } from 'ava';
import type { AllocationExtent } from '../../nbd/block-device.ts';
import { openBackingStore } from '../../replicator/shell/backing-opening.ts';
import type { BackingOptions } from '../../replicator/shell/backing-opening.ts';
import type { BackingStore } from '../../replicator/shell/backing-store.ts';

export const someIdentity = '0123456789abcdef0123456789abcdef';
export const otherIdentity = 'fedcba9876543210fedcba9876543210';

export async function openStore(
  t: ExecutionContext,
  options: Partial<BackingOptions> & Pick<BackingOptions, 'path' | 'sizeBytes'>,
): Promise<BackingStore> {
  const opened = await openBackingStore({ create: true, identity: someIdentity, binding: null, ...options });
  if (!opened.ok) throw new Error(opened.refusal.reason);
  t.teardown(() => opened.store.close());
  return opened.store;
}

/** Resolves to the code of the error, or null for success. */
export function outcome(start: (done: (error: Error | null) => void) => void): Promise<string | null> {
  return new Promise((resolve) => start((error) => resolve(error === null ? null : errorCode(error))));
}

export function readBytes(store: BackingStore, offset: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    store.read(offset, length, (error, data) => {
      if (error !== null || data === null) reject(error ?? new Error('neither error nor data'));
      else resolve(Buffer.from(data));
    });
  });
}

export function extentsOf(
  store: BackingStore,
  offset: number,
  length: number,
  max: number,
): Promise<readonly AllocationExtent[]> {
  return new Promise((resolve, reject) => {
    store.blockStatus(offset, length, max, (error, extents) => {
      if (error === null) resolve(extents);
      else reject(error);
    });
  });
}

export function errorCode(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}
