/** STARTTLS, the server's side ("TLS support" in the NBD document), over node:tls. TLS 1.2 at least. */
import type { Socket } from 'node:net';
import { createSecureContext, createServer } from 'node:tls';
import type { TLSSocket, TlsOptions } from 'node:tls';

export interface NbdTlsOptions {
  readonly certPem: string;
  /** Never logged. */
  readonly keyPem: string;
  /** Authorities that clients' certificates are checked against. */
  readonly caPem?: string;
  /** Refuse clients without a certificate signed by `caPem`. */
  readonly requireClientCert?: boolean;
  /** Refuse clients that do not start TLS (the document's FORCEDTLS). */
  readonly required: boolean;
}

/** Runs the TLS handshake on a socket; `secured` is called on success, else the socket is destroyed. */
export type StartTls = (socket: Socket, secured: (secure: TLSSocket) => void) => void;

/** Throws when key, certificate and authorities do not fit, or a client certificate could never be checked. */
export function createStartTls(options: NbdTlsOptions): StartTls {
  const requireClientCert = options.requireClientCert ?? false;
  if (requireClientCert && options.caPem === undefined)
    throw new Error('TLS with client certificates needs the authority (caPem) to check them against');
  const serverOptions: TlsOptions = {
    cert: options.certPem,
    key: options.keyPem,
    ...(options.caPem === undefined ? {} : { ca: options.caPem }),
    requestCert: requireClientCert,
    rejectUnauthorized: requireClientCert,
    minVersion: 'TLSv1.2',
  };
  createSecureContext(serverOptions);
  return (socket, secured) => {
    // A server of its own, never listening, per connection: node:tls checks client certificates in the server only,
    // and tells for a secured socket which server it belongs to, but not which connection.
    const server = createServer(serverOptions, secured);
    server.on('tlsClientError', () => {
      socket.destroy();
    });
    server.emit('connection', socket);
  };
}
