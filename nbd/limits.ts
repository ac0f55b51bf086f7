/** What one server, and one client of it, may take. Every bound of the server has its name here. */
export interface NbdLimits {
  /**
   * Connections at a time, those included that are gone while the device still works for them; one more takes the place
   * of the oldest in its handshake, or is closed at once when there is none.
   */
  readonly maxConnections: number;
  /**
   * Connections that are still in their handshake; one more costs the oldest of them its place. So connections
   * that never say anything cannot keep out those that do.
   */
  readonly maxHandshaking: number;
  /** From accept to the transmission phase, TLS included. */
  readonly handshakeTimeoutMs: number;
  /** Requests of one connection at the device; beyond, its socket is not read. */
  readonly maxRequestsInFlight: number;
  /**
   * Payload bytes of the requests of one connection at the device; beyond, its socket is not read. The request
   * that reaches the bound is let in, so the true maximum is one payload (32 MiB) more.
   */
  readonly maxBytesInFlight: number;
  /** Bytes of replies a client has not read; beyond, its socket is not read. */
  readonly maxReplyBytes: number;
  /** How long a client may take to close its side after we closed ours. */
  readonly lingerMs: number;
}

export const defaultLimits: NbdLimits = {
  maxConnections: 1024,
  maxHandshaking: 256,
  handshakeTimeoutMs: 10_000,
  maxRequestsInFlight: 256,
  maxBytesInFlight: 64 * 1024 * 1024,
  maxReplyBytes: 8 * 1024 * 1024,
  lingerMs: 1000,
};
