/** The meeting point of the server with the replicator and the NBD front: the real parts of a resource host. */
import { receiveInto } from '../../nbd/receive-socket.ts';
import { createNbdServer } from '../../nbd/server.ts';
import { openResourceNode } from '../../replicator/shell/driver.ts';
import type { HostParts } from './host-parts.ts';

export const parts: HostParts = {
  openResourceNode: (options, hooks) => openResourceNode({ ...options, receiveInto }, hooks),
  createNbdServer,
};
