/** The meeting point of the server with the replicator and the NBD front: the real parts of a resource host. */
import type { HostParts } from './host-parts.ts';

export const parts: HostParts = {
  openResourceNode: () =>
    Promise.resolve({
      ok: false,
      refusal: {
        code: 'not-supported',
        reason: 'this build has no replication engine linked in',
        nextStep: 'Link replicator/shell/driver.ts and nbd/server.ts in server/data-plane/parts.ts.',
      },
    }),
  createNbdServer: () => ({
    listenTcp: (host, port) => Promise.resolve({ host, port }),
    listenUnix: () => Promise.resolve(),
    disconnectClients: () => Promise.resolve(),
    close: () => Promise.resolve(),
  }),
};
