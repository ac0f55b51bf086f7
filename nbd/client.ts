/** The NBD client: connect, choose the options, get an export. What it can do then is client-session.ts. */
import { NbdOptionError } from './client-errors.ts';
import { NbdHaggling } from './client-haggling.ts';
import type { NbdAddress, NbdClientTlsOptions } from './client-haggling.ts';
import type { NbdClient } from './client-session.ts';
import { BASE_ALLOCATION } from './constants.ts';
import type { ReplyMode } from './transmission-codec.ts';

export { NbdClosedError, NbdOptionError, NbdRequestError } from './client-errors.ts';
export { NbdHaggling } from './client-haggling.ts';
export type { NbdAddress, NbdClientTlsOptions } from './client-haggling.ts';
export type { NbdClient, NbdExportInfo } from './client-session.ts';

export interface NbdConnectOptions {
  readonly address: NbdAddress;
  /** Default: '', the default export. */
  readonly exportName?: string;
  /** Start TLS, and go no further without. */
  readonly tls?: NbdClientTlsOptions;
  /** The most to ask for; a server that knows less is content. Default: 'extended'. */
  readonly mode?: ReplyMode;
  /** Default: base:allocation, unless mode is 'simple'. */
  readonly metaContexts?: readonly string[];
  /** For connecting and haggling together. Default: 10 s. */
  readonly timeoutMs?: number;
}

/** Rejects with NbdOptionError when the server refuses, NbdClosedError or NbdProtocolError otherwise. */
export async function connectNbd(options: NbdConnectOptions): Promise<NbdClient> {
  const { exportName = '', mode = 'extended', timeoutMs = 10_000 } = options;
  const haggling = await NbdHaggling.connect(options.address, { timeoutMs });
  try {
    if (options.tls !== undefined) await haggling.startTls(options.tls);
    if (mode === 'extended') await optional(haggling.extendedHeaders());
    if (mode !== 'simple' && haggling.mode === 'simple') await optional(haggling.structuredReply());
    if (haggling.mode !== 'simple')
      await optional(haggling.setMetaContexts(exportName, options.metaContexts ?? [BASE_ALLOCATION]));
    return await haggling.go(exportName);
  } catch (error) {
    haggling.destroy();
    throw error;
  }
}

/** What the server does not know or want is done without. */
async function optional(step: Promise<unknown>): Promise<void> {
  try {
    await step;
  } catch (error) {
    if (!(error instanceof NbdOptionError)) throw error;
  }
}
