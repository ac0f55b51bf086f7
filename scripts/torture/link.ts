/**
 * The network between the two nodes: everything that one says to the other goes through here, and can be cut, swallowed
 * or garbled. alpha dials for the session (its name sorts first), and each of them to ask whether the other took over.
 */
import { TcpProxy } from '../../test/support/tcp-proxy.ts';

/** Who is not heard any more. */
export type Silenced = 'alpha' | 'beta' | 'both';

export class TortureLink {
  readonly #toAlpha: TcpProxy;
  readonly #toBeta: TcpProxy;

  private constructor(toAlpha: TcpProxy, toBeta: TcpProxy) {
    this.#toAlpha = toAlpha;
    this.#toBeta = toBeta;
  }

  /** `alphaPort`, `betaPort`: where the nodes listen for each other. */
  static async start(alphaPort: number, betaPort: number): Promise<TortureLink> {
    return new TortureLink(await TcpProxy.start(alphaPort), await TcpProxy.start(betaPort));
  }

  /** Where the other node reaches this one. */
  portOf(node: 'alpha' | 'beta'): number {
    return (node === 'alpha' ? this.#toAlpha : this.#toBeta).port;
  }

  /** Connections are reset, new ones too, until `heal`. */
  cut(): void {
    this.#toAlpha.cut();
    this.#toBeta.cut();
  }

  /**
   * Connections stay open, and what these nodes say on them is lost. `newToo`: so it is on those that are made from now
   * on, until `heal`.
   */
  silence(who: Silenced, newToo: boolean): void {
    if (who !== 'beta') {
      this.#toBeta.freeze({ direction: 'toTarget', includeNew: newToo });
      this.#toAlpha.freeze({ direction: 'toClient', includeNew: newToo });
    }
    if (who !== 'alpha') {
      this.#toBeta.freeze({ direction: 'toClient', includeNew: newToo });
      this.#toAlpha.freeze({ direction: 'toTarget', includeNew: newToo });
    }
  }

  /** New connections go through. What was opened while nothing could be heard is reset: nobody waits for it in vain. */
  heal(): void {
    for (const proxy of [this.#toAlpha, this.#toBeta]) {
      proxy.cut();
      proxy.heal();
    }
  }

  /** One bit is flipped, so many bytes further on, in what this node says in the session. */
  garble(speaker: 'alpha' | 'beta', skipBytes: number): void {
    this.#toBeta.corrupt(speaker === 'alpha' ? 'toTarget' : 'toClient', skipBytes);
  }

  /** Resolves when this node has said so many more bytes in sessions. */
  async said(speaker: 'alpha' | 'beta', bytes: number): Promise<void> {
    const direction = speaker === 'alpha' ? 'toTarget' : 'toClient';
    await this.#toBeta.forwarded(direction, this.#toBeta.bytes(direction) + bytes);
  }

  /** Resolves when alpha has dialled beta again, after this was called. */
  async dialled(): Promise<void> {
    await this.#toBeta.connected(this.#toBeta.accepted + 1);
  }

  async stop(): Promise<void> {
    await Promise.all([this.#toAlpha.stop(), this.#toBeta.stop()]);
  }
}
