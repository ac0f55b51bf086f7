/**
 * How a node recognises the file it keeps its data in: a random id in an extended attribute of the file, kept in
 * the metadata as well. The file itself holds device bytes and nothing else. Where there are no extended attributes
 * the inode must do; a block device, which nothing can be attached to, is known by its path alone.
 */
import type { BigIntStats } from 'node:fs';
import { SystemCallError, getAttribute, setAttribute } from './libc.ts';

export const identityAttribute = 'user.lockstep.resource';

/** What ties the metadata to its backing, as recorded when the backing was first claimed. */
export type Binding =
  | { readonly kind: 'attribute' }
  | { readonly kind: 'inode'; readonly device: string; readonly inode: string }
  | { readonly kind: 'device' };

export function formatBinding(binding: Binding): string {
  return binding.kind === 'inode' ? `inode:${binding.device}:${binding.inode}` : binding.kind;
}

/** Null for text that `formatBinding` cannot have produced. */
export function parseBinding(text: string): Binding | null {
  if (text === 'attribute' || text === 'device') return { kind: text };
  const [, device, inode] = /^inode:(\d{1,20}):(\d{1,20})$/.exec(text) ?? [];
  return device === undefined || inode === undefined ? null : { kind: 'inode', device, inode };
}

export function isIdentity(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}

export type Claim =
  { readonly ok: true; readonly binding: Binding } | { readonly ok: false; readonly why: string };

/** Whether this open file or device is the one that was claimed as `identity` with `binding`. Throws SystemCallError. */
export function checkClaim(fd: number, stats: BigIntStats, identity: string, binding: Binding): Claim {
  const now = bindingNow(fd, stats);
  switch (binding.kind) {
    case 'device':
      return stats.isBlockDevice()
        ? { ok: true, binding }
        : { ok: false, why: 'it is no block device any more' };
    case 'inode': {
      const isSame = stats.isFile() && `${stats.dev}:${stats.ino}` === `${binding.device}:${binding.inode}`;
      return isSame ? { ok: true, binding } : { ok: false, why: 'it is another file than the one recorded' };
    }
    case 'attribute':
      if (now.kind !== 'attribute') return { ok: false, why: 'it has no extended attributes any more' };
      if (now.id === identity) return { ok: true, binding };
      return {
        ok: false,
        why:
          now.id === null
            ? 'it carries no id, unlike the one recorded'
            : `it carries the id ${now.id}, not ${identity}`,
      };
  }
}

/**
 * Claims an unclaimed file or device for new metadata: refused when it carries the id of another one. An id of
 * our own is the trace of an earlier claim that did not get as far as recording it. Throws SystemCallError.
 */
export function claim(fd: number, stats: BigIntStats, identity: string): Claim {
  const now = bindingNow(fd, stats);
  if (now.kind !== 'attribute') return { ok: true, binding: now };
  if (now.id !== null && now.id !== identity) {
    return { ok: false, why: `it carries the id ${now.id} of another resource or node` };
  }
  if (now.id === null) {
    try {
      setAttribute(fd, identityAttribute, identity);
    } catch (error) {
      // Some file systems can list attributes and not keep them.
      if (error instanceof SystemCallError && error.code === 'ENOTSUP')
        return { ok: true, binding: inodeOf(stats) };
      throw error;
    }
  }
  return { ok: true, binding: { kind: 'attribute' } };
}

type BindingNow =
  { readonly kind: 'attribute'; readonly id: string | null } | Exclude<Binding, { kind: 'attribute' }>;

function bindingNow(fd: number, stats: BigIntStats): BindingNow {
  if (stats.isBlockDevice()) return { kind: 'device' };
  try {
    return { kind: 'attribute', id: getAttribute(fd, identityAttribute) };
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'ENOTSUP') return inodeOf(stats);
    throw error;
  }
}

function inodeOf(stats: BigIntStats): Extract<Binding, { kind: 'inode' }> {
  return { kind: 'inode', device: String(stats.dev), inode: String(stats.ino) };
}
