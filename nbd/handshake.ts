/**
 * Option haggling, the server's side ("Fixed newstyle negotiation", "TLS support" and "Option types" in the NBD
 * document), as a pure state machine: an option in; the next state, the replies and what happens next out.
 * Bytes are handshake-codec.ts, sockets and timers session.ts.
 */
import * as nbd from './constants.ts';
import type { ExportSource, NbdExport } from './export.ts';
import {
  encodeExportNameReply,
  encodeInformation,
  encodeMetaContextReply,
  encodeServerReply,
} from './handshake-codec.ts';
import type { ClientOption, OptionReply } from './handshake-codec.ts';
import type { ReplyMode } from './transmission-codec.ts';

/** 'off' is the document's NOTLS, 'required' its FORCEDTLS, 'optional' SELECTIVETLS without a TLS-only export. */
export type TlsMode = 'off' | 'optional' | 'required';

export interface HandshakeEnvironment {
  readonly source: ExportSource;
  readonly tls: TlsMode;
}

export interface HandshakeState {
  /** The client sent NBD_FLAG_C_FIXED_NEWSTYLE; without it EXPORT_NAME is its only option. */
  readonly fixedNewstyle: boolean;
  /** The client sent NBD_FLAG_C_NO_ZEROES. */
  readonly noZeroes: boolean;
  /** TLS is running. */
  readonly secure: boolean;
  readonly mode: ReplyMode;
  /** Canonical name of the export for which the last SET_META_CONTEXT selected base:allocation. */
  readonly allocationOf: string | null;
}

/** What was agreed when transmission begins. */
export interface Negotiated {
  readonly export: NbdExport;
  readonly mode: ReplyMode;
  /** base:allocation was selected for this export, so BLOCK_STATUS is allowed. */
  readonly allocation: boolean;
}

export type HandshakeNext =
  | { readonly kind: 'continue' }
  | { readonly kind: 'startTls' }
  /** Close once the replies are out. */
  | { readonly kind: 'close'; readonly reason: string }
  /** `preamble` follows the replies: the answer to EXPORT_NAME has no option reply header. */
  | { readonly kind: 'transmission'; readonly negotiated: Negotiated; readonly preamble: Buffer | null };

export interface HandshakeStep {
  readonly state: HandshakeState;
  readonly replies: readonly OptionReply[];
  readonly next: HandshakeNext;
}

/** Id of base:allocation in block status replies; any value is allowed. */
export const ALLOCATION_CONTEXT_ID = 1;

export function beginHandshake(flags: { fixedNewstyle: boolean; noZeroes: boolean }): HandshakeState {
  return { ...flags, secure: false, mode: 'simple', allocationOf: null };
}

/** TLS is up: "the server MUST NOT preserve any negotiation state" from before. */
export function secureHandshake(state: HandshakeState): HandshakeState {
  return { ...state, secure: true, mode: 'simple', allocationOf: null };
}

/** `optionNumber` is repeated in every reply, also where `option` no longer tells it. */
export function stepHandshake(
  state: HandshakeState,
  optionNumber: number,
  option: ClientOption,
  environment: HandshakeEnvironment,
): HandshakeStep {
  const isExportName = optionNumber === nbd.NBD_OPT_EXPORT_NAME;
  if (!state.fixedNewstyle && !isExportName)
    return close(state, 'an option other than EXPORT_NAME from a client without fixed newstyle');
  if (environment.tls === 'required' && !state.secure && option.kind !== 'abort') {
    if (isExportName) return close(state, 'EXPORT_NAME without TLS');
    if (optionNumber !== nbd.NBD_OPT_STARTTLS)
      return answer(state, optionNumber, nbd.NBD_REP_ERR_TLS_REQD, 'this server requires TLS');
  }
  // Whatever comes of it, SET_META_CONTEXT ends the previous selection.
  const settled = optionNumber === nbd.NBD_OPT_SET_META_CONTEXT ? { ...state, allocationOf: null } : state;

  switch (option.kind) {
    case 'abort':
      return { ...answer(settled, optionNumber, nbd.NBD_REP_ACK), next: closing('the client aborted') };
    case 'startTls':
      return startTls(settled, environment.tls);
    case 'list':
      return list(settled, environment.source);
    case 'structuredReply':
      if (settled.mode === 'extended')
        return answer(
          settled,
          optionNumber,
          nbd.NBD_REP_ERR_EXT_HEADER_REQD,
          'extended headers are in use already',
        );
      return answer({ ...settled, mode: 'structured' }, optionNumber, nbd.NBD_REP_ACK);
    case 'extendedHeaders':
      return answer({ ...settled, mode: 'extended' }, optionNumber, nbd.NBD_REP_ACK);
    case 'info':
    case 'go':
      return infoOrGo(settled, option, environment.source);
    case 'exportName':
      return exportName(settled, option.exportName, environment.source);
    case 'listMetaContext':
    case 'setMetaContext':
      return metaContext(settled, option, environment.source);
    case 'malformed':
      if (isExportName) return close(settled, `EXPORT_NAME: ${option.reason}`);
      return answer(settled, optionNumber, nbd.NBD_REP_ERR_INVALID, option.reason);
    case 'tooBig':
      return answer(settled, optionNumber, nbd.NBD_REP_ERR_TOO_BIG, 'the option is too long');
    case 'unknown':
      return answer(settled, optionNumber, nbd.NBD_REP_ERR_UNSUP, `unknown option ${optionNumber}`);
    default:
      return option satisfies never;
  }
}

/** "Transmission flags". SEND_DF only once structured replies (or extended headers) were negotiated. */
export function transmissionFlags(nbdExport: NbdExport, mode: ReplyMode, allocation: boolean): number {
  let flags =
    nbd.NBD_FLAG_HAS_FLAGS |
    nbd.NBD_FLAG_SEND_FLUSH |
    nbd.NBD_FLAG_SEND_FUA |
    nbd.NBD_FLAG_CAN_MULTI_CONN |
    nbd.NBD_FLAG_SEND_CACHE;
  if (nbdExport.readOnly) flags |= nbd.NBD_FLAG_READ_ONLY;
  else flags |= nbd.NBD_FLAG_SEND_TRIM | nbd.NBD_FLAG_SEND_WRITE_ZEROES | nbd.NBD_FLAG_SEND_FAST_ZERO;
  if (mode !== 'simple') flags |= nbd.NBD_FLAG_SEND_DF;
  if (mode === 'extended' && allocation) flags |= nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  return flags;
}

const goOn: HandshakeNext = { kind: 'continue' };
const noData = Buffer.alloc(0);

function closing(reason: string): HandshakeNext {
  return { kind: 'close', reason };
}

function close(state: HandshakeState, reason: string): HandshakeStep {
  return { state, replies: [], next: closing(reason) };
}

function answer(state: HandshakeState, option: number, type: number, message?: string): HandshakeStep {
  const data = message === undefined ? noData : Buffer.from(message).subarray(0, nbd.NBD_MAX_STRING);
  return { state, replies: [{ option, type, data }], next: goOn };
}

function startTls(state: HandshakeState, tls: TlsMode): HandshakeStep {
  const option = nbd.NBD_OPT_STARTTLS;
  if (state.secure) return answer(state, option, nbd.NBD_REP_ERR_INVALID, 'TLS is running already');
  if (tls === 'off')
    return answer(state, option, nbd.NBD_REP_ERR_POLICY, 'this server has no TLS configured');
  return { ...answer(state, option, nbd.NBD_REP_ACK), next: { kind: 'startTls' } };
}

function list(state: HandshakeState, source: ExportSource): HandshakeStep {
  const option = nbd.NBD_OPT_LIST;
  const servers = source.list().map(({ name, description }) => ({
    option,
    type: nbd.NBD_REP_SERVER,
    data: encodeServerReply(name, description),
  }));
  return { state, replies: [...servers, { option, type: nbd.NBD_REP_ACK, data: noData }], next: goOn };
}

/** The export, or the step that says why not. */
function open(
  state: HandshakeState,
  option: number,
  name: string,
  source: ExportSource,
): { readonly export: NbdExport } | { readonly refusal: HandshakeStep } {
  const opened = source.open(name);
  switch (opened.kind) {
    case 'export':
      return { export: opened.export };
    case 'unknown':
      return { refusal: answer(state, option, nbd.NBD_REP_ERR_UNKNOWN, 'there is no export of this name') };
    case 'refused':
      return { refusal: answer(state, option, nbd.NBD_REP_ERR_POLICY, opened.message) };
    default:
      return opened satisfies never;
  }
}

function negotiate(state: HandshakeState, nbdExport: NbdExport): Negotiated {
  return { export: nbdExport, mode: state.mode, allocation: state.allocationOf === nbdExport.name };
}

function infoOrGo(
  state: HandshakeState,
  request: Extract<ClientOption, { kind: 'info' | 'go' }>,
  source: ExportSource,
): HandshakeStep {
  const option = request.kind === 'go' ? nbd.NBD_OPT_GO : nbd.NBD_OPT_INFO;
  const opened = open(state, option, request.exportName, source);
  if ('refusal' in opened) return opened.refusal;
  const negotiated = negotiate(state, opened.export);
  const info = (data: Buffer): OptionReply => ({ option, type: nbd.NBD_REP_INFO, data });

  const replies = [
    info(
      encodeInformation({
        info: 'export',
        sizeBytes: opened.export.device.sizeBytes,
        transmissionFlags: transmissionFlags(opened.export, negotiated.mode, negotiated.allocation),
      }),
    ),
  ];
  // Requests we do not know are ignored, and one asked for twice is told once.
  const asked = new Set(request.infoRequests);
  if (asked.has(nbd.NBD_INFO_NAME))
    replies.push(info(encodeInformation({ info: 'name', text: opened.export.name })));
  if (asked.has(nbd.NBD_INFO_DESCRIPTION) && opened.export.description !== '')
    replies.push(info(encodeInformation({ info: 'description', text: opened.export.description })));
  if (asked.has(nbd.NBD_INFO_BLOCK_SIZE))
    replies.push(
      info(
        encodeInformation({
          info: 'blockSize',
          minimumBytes: nbd.MINIMUM_BLOCK_SIZE,
          preferredBytes: nbd.PREFERRED_BLOCK_SIZE,
          maximumPayloadBytes: nbd.MAXIMUM_PAYLOAD_SIZE,
        }),
      ),
    );
  replies.push({ option, type: nbd.NBD_REP_ACK, data: noData });
  return {
    state,
    replies,
    next: request.kind === 'go' ? { kind: 'transmission', negotiated, preamble: null } : goOn,
  };
}

/** EXPORT_NAME cannot carry an error: whatever is wrong ends the session. */
function exportName(state: HandshakeState, name: string, source: ExportSource): HandshakeStep {
  if (state.mode === 'extended') return close(state, 'EXPORT_NAME after extended headers');
  const opened = open(state, nbd.NBD_OPT_EXPORT_NAME, name, source);
  if ('refusal' in opened) return close(state, 'EXPORT_NAME of an export that is not available');
  const negotiated = negotiate(state, opened.export);
  const flags = transmissionFlags(opened.export, negotiated.mode, negotiated.allocation);
  return {
    state,
    replies: [],
    next: {
      kind: 'transmission',
      negotiated,
      preamble: encodeExportNameReply(opened.export.device.sizeBytes, flags, !state.noZeroes),
    },
  };
}

function metaContext(
  state: HandshakeState,
  request: Extract<ClientOption, { kind: 'listMetaContext' | 'setMetaContext' }>,
  source: ExportSource,
): HandshakeStep {
  const isSet = request.kind === 'setMetaContext';
  const option = isSet ? nbd.NBD_OPT_SET_META_CONTEXT : nbd.NBD_OPT_LIST_META_CONTEXT;
  if (state.mode === 'simple')
    return answer(state, option, nbd.NBD_REP_ERR_INVALID, 'structured replies were not negotiated');
  const opened = open(state, option, request.exportName, source);
  if ('refusal' in opened) return opened.refusal;

  // LIST knows the wildcard "base:" and lists everything when asked nothing; SET takes exact names only.
  const selected =
    request.queries.includes(nbd.BASE_ALLOCATION) ||
    (!isSet && (request.queries.length === 0 || request.queries.includes('base:')));
  const ack = { option, type: nbd.NBD_REP_ACK, data: noData };
  if (!selected) return { state, replies: [ack], next: goOn };
  // The id in a LIST reply is reserved and should be zero.
  const data = encodeMetaContextReply(isSet ? ALLOCATION_CONTEXT_ID : 0, nbd.BASE_ALLOCATION);
  return {
    state: isSet ? { ...state, allocationOf: opened.export.name } : state,
    replies: [{ option, type: nbd.NBD_REP_META_CONTEXT, data }, ack],
    next: goOn,
  };
}
