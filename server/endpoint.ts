/** HOST:PORT texts, IPv6 hosts in brackets, to values and back. */
import type { Endpoint } from '../replicator/shell/resource-node.ts';

/** For schemas: a name, an IPv4 address or a bracketed IPv6 address, then a port. The range of the port is checked by `parseEndpoint`. */
export const endpointPattern = '^(\\[[0-9A-Fa-f:.%a-z]{2,64}\\]|[A-Za-z0-9_.-]{1,253}):[0-9]{1,5}$';
const endpointText = /^(?:\[([^\]]+)\]|([^:[\]]+)):([0-9]{1,5})$/;

/** Null when the text is not HOST:PORT with a port of 0 to 65535. */
export function parseEndpoint(text: string): Endpoint | null {
  const match = endpointText.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65535)) return null;
  return { host, port };
}

export function formatEndpoint(endpoint: Endpoint): string {
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host;
  return `${host}:${endpoint.port}`;
}

/** Whether only this machine can reach a listener on this host. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
