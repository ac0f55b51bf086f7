/**
 * An accepted socket that receives into memory of ours. Node offers that (`onread`) to sockets it dials or is given, not
 * to those a server accepts; so the accepted one hands its connection over to one that was made with `onread`.
 */
import { Socket } from 'node:net';
import type { SocketConstructorOpts } from 'node:net';

export interface Receiver {
  /** Where the next bytes go: not empty. Asked for before each read. */
  nextBuffer(): Buffer;
  /** That many bytes were put at the beginning of the last `nextBuffer`. */
  received(byteCount: number): void;
}

/**
 * `accepted` was accepted with `pauseOnConnect` and nothing was done to it yet; it is used up. The result emits no
 * 'data'. Null when this Node keeps the connection elsewhere: then `accepted` is as it was.
 */
export function receiveInto(
  accepted: Socket,
  options: SocketConstructorOpts,
  receiver: Receiver,
): Socket | null {
  const handle: unknown = Reflect.get(accepted, '_handle');
  if (typeof handle !== 'object' || handle === null) return null;
  Reflect.set(accepted, '_handle', null);
  // Without its connection there is nothing to close; the listener only stops counting it.
  accepted.on('error', () => undefined);
  accepted.destroy();
  const withHandle = {
    ...options,
    handle,
    readable: true,
    writable: true,
    onread: {
      buffer: () => receiver.nextBuffer(),
      callback: (byteCount: number) => {
        receiver.received(byteCount);
        return true;
      },
    },
  };
  const socket: unknown = Reflect.construct(Socket, [withHandle]);
  return socket instanceof Socket ? socket : null;
}
