/**
 * The other side sent what the protocol does not allow and the stream cannot be trusted any more: the
 * connection it came from is closed, and nothing else happens.
 */
export class NbdProtocolError extends Error {
  override readonly name = 'NbdProtocolError';
}
