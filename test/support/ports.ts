/**
 * Ports for processes that have to be told theirs. They are taken from below the range from which the system serves
 * outgoing connections and port 0, so nothing but another listener with a fixed port can get in between.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

const given = new Set<number>();

/** A port of the loopback address that nobody listens on, never the same twice in a process. */
export async function freePort(): Promise<number> {
  const below = firstEphemeralPort();
  for (let attempt = 0; attempt < 1000; attempt++) {
    // Drawn at random: several test processes draw at once.
    const port = lowestPort + Math.floor(Math.random() * (below - lowestPort));
    if (given.has(port) || !(await canListen(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port found between ${lowestPort} and ${below}`);
}

const lowestPort = 10_000;

function firstEphemeralPort(): number {
  try {
    const first = Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s/)[0]);
    return first > lowestPort + 1000 ? first : 32_768;
  } catch {
    return 32_768;
  }
}

async function canListen(port: number): Promise<boolean> {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
