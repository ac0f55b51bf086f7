/** How requests of the NBD client fail. */
import * as nbd from './constants.ts';

/** The server answered a request with an error; the connection goes on. */
export class NbdRequestError extends Error {
  override readonly name = 'NbdRequestError';
  /** As in "Error values" of the NBD document, without NBD_; an unexpected value counts as EINVAL. */
  readonly code: string;

  constructor(value: number, message: string) {
    const code = codes.get(value) ?? 'EINVAL';
    super(message === '' ? code : `${code}: ${message}`);
    this.code = code;
  }
}

/** The server answered an option with an error; the haggling goes on. */
export class NbdOptionError extends Error {
  override readonly name = 'NbdOptionError';
  readonly option: number;
  /** One of the NBD_REP_ERR values. */
  readonly replyType: number;

  constructor(option: number, replyType: number, message: string) {
    super(message === '' ? `option ${option} was refused with 0x${replyType.toString(16)}` : message);
    this.option = option;
    this.replyType = replyType;
  }
}

/** The connection ended, or was ended, before the answer came. Whether a write was done is unknown. */
export class NbdClosedError extends Error {
  override readonly name = 'NbdClosedError';
}

const codes = new Map<number, string>([
  [nbd.NBD_EPERM, 'EPERM'],
  [nbd.NBD_EIO, 'EIO'],
  [nbd.NBD_ENOMEM, 'ENOMEM'],
  [nbd.NBD_EINVAL, 'EINVAL'],
  [nbd.NBD_ENOSPC, 'ENOSPC'],
  [nbd.NBD_EOVERFLOW, 'EOVERFLOW'],
  [nbd.NBD_ENOTSUP, 'ENOTSUP'],
  [nbd.NBD_ESHUTDOWN, 'ESHUTDOWN'],
]);
