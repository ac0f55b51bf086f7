/** What the peer sent makes no sense: the connection it came on is closed, and nothing else changes. */
export class ProtocolError extends Error {
  /** The offending field: of the header (`bodyLength`), or of a packet (`write.offset`). */
  readonly field: string;

  constructor(field: string, problem: string) {
    super(`${field}: ${problem}`);
    this.name = 'ProtocolError';
    this.field = field;
  }
}
