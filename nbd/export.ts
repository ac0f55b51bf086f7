/** What a server exports: a device under a name, and where exports come from. */
import type { BlockDevice } from './block-device.ts';

export interface NbdExport {
  /** The canonical name, UTF-8, at most 4096 bytes. */
  readonly name: string;
  /** For humans, at most 4096 bytes; may be empty. */
  readonly description: string;
  readonly device: BlockDevice;
  readonly readOnly: boolean;
}

export type OpenedExport =
  | { readonly kind: 'export'; readonly export: NbdExport }
  /** NBD_REP_ERR_UNKNOWN. */
  | { readonly kind: 'unknown' }
  /** NBD_REP_ERR_POLICY with this message, at most 4096 bytes: a Secondary, which names the Primary. */
  | { readonly kind: 'refused'; readonly message: string };

export interface ExportSource {
  /** Names as `open` accepts them, whether or not they would be refused now. */
  list(): readonly { readonly name: string; readonly description: string }[];
  /** `name` comes from a client, checked to be UTF-8 without NUL; '' asks for the default export. */
  open(name: string): OpenedExport;
}
