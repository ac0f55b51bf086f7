/**
 * Whether the other side of a connection has ended it, though what it sent before has not all been read (poll(2)). A socket
 * that is not read from tells its owner of no end, neither an orderly one nor a reset.
 */
import type { Socket } from 'node:net';
import koffi from 'koffi';
import type { KoffiFunc } from 'koffi';

type Poll = (entries: Uint8Array, count: number, timeoutMs: number) => number;

const pollCall = bindPoll();

const POLLERR = 0x08;
const POLLHUP = 0x10;
const POLLRDHUP = 0x2000;

/** struct pollfd { int fd; short events; short revents; } */
const entry = new DataView(new ArrayBuffer(8));
const entryBytes = new Uint8Array(entry.buffer);
const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** False when it cannot be told. Takes a microsecond or two. */
export function hasOtherSideEnded(socket: Socket): boolean {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : null;
  if (pollCall === null || typeof fd !== 'number' || fd < 0) return false;
  entry.setInt32(0, fd, isLittleEndian);
  entry.setInt16(4, POLLRDHUP, isLittleEndian);
  entry.setInt16(6, 0, isLittleEndian);
  if (pollCall(entryBytes, 1, 0) !== 1) return false;
  return (entry.getInt16(6, isLittleEndian) & (POLLRDHUP | POLLHUP | POLLERR)) !== 0;
}

function bindPoll(): Poll | null {
  try {
    const bound: KoffiFunc<Poll> = koffi.load(null).func('poll', 'int', ['void *', 'unsigned long', 'int']);
    return bound;
  } catch {
    return null;
  }
}
