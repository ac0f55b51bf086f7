/** Two real links over loopback, each behind a proxy: alpha dials for sessions, beta listens. */
import type { ExecutionContext } from 'ava';
import { PeerLink } from '../../replicator/shell/link.ts';
import type { PeerLinkOptions } from '../../replicator/shell/link.ts';
import { LinkRecorder } from './link-recorder.ts';
import { ManualClock } from './manual-clock.ts';
import { TcpProxy } from './tcp-proxy.ts';

export interface LinkSide {
  readonly link: PeerLink;
  readonly clock: ManualClock;
  readonly seen: LinkRecorder;
  readonly port: number;
}

export interface LinkPair {
  readonly alpha: LinkSide;
  readonly beta: LinkSide;
  /** Where alpha dials. */
  readonly toBeta: TcpProxy;
  /** Where beta probes. */
  readonly toAlpha: TcpProxy;
}

export const linkTimes = { connectIntervalMs: 1000, probeTimeoutMs: 300, handshakeTimeoutMs: 700 };

/** Everything is stopped when the test ends. */
export async function startPair(
  t: ExecutionContext,
  change: { readonly alpha?: Partial<PeerLinkOptions>; readonly beta?: Partial<PeerLinkOptions> } = {},
): Promise<LinkPair> {
  const toBeta = await TcpProxy.start();
  const toAlpha = await TcpProxy.start();
  t.teardown(async () => toBeta.stop());
  t.teardown(async () => toAlpha.stop());
  const beta = await startSide(t, 'beta', 'alpha', toAlpha.port, change.beta);
  const alpha = await startSide(t, 'alpha', 'beta', toBeta.port, change.alpha);
  toBeta.setTarget(beta.port);
  toAlpha.setTarget(alpha.port);
  return { alpha, beta, toBeta, toAlpha };
}

export async function startSide(
  t: ExecutionContext,
  nodeName: string,
  peerName: string,
  peerPort: number,
  change: Partial<PeerLinkOptions> = {},
): Promise<LinkSide> {
  const clock = new ManualClock();
  const seen = new LinkRecorder();
  const link = new PeerLink({
    resourceName: 'r0',
    nodeName,
    peerName,
    secret: 'sesame',
    listen: { host: '127.0.0.1', port: 0 },
    peerAddress: { host: '127.0.0.1', port: peerPort },
    ...linkTimes,
    hooks: seen.hooks,
    clock,
    ...change,
  });
  const result = await link.start();
  if (!result.ok) throw new Error(result.detail);
  t.teardown(async () => {
    const stopped = link.stop();
    // A session whose peer does not answer would be waited for.
    clock.advance(60_000);
    await stopped;
  });
  return { link, clock, seen, port: result.port };
}

/** Both want a session and get one; returns its number on either side. */
export async function connectPair(
  pair: LinkPair,
): Promise<{ readonly alpha: number; readonly beta: number }> {
  pair.beta.link.setWanted(true);
  pair.alpha.link.setWanted(true);
  const alpha = await pair.alpha.seen.expect('up');
  const beta = await pair.beta.seen.expect('up');
  return { alpha: alpha.session, beta: beta.session };
}
