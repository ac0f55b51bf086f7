/**
 * Packets of the present session, in stream order. While something that later packets rely on is being recorded (a new
 * generation, say), they wait here; their number is bounded by what the peer keeps in flight.
 */
import type { Core } from './core.ts';
import type { Packet, Payload } from './packet.ts';

export class Inbound {
  readonly #core: Core;
  #blocked = false;
  #queue: { readonly packet: Packet; readonly payload: Payload | null }[] = [];

  constructor(core: Core) {
    this.#core = core;
  }

  onPacket(session: number, packet: Packet, payload: Payload | null): void {
    const { connection, out } = this.#core;
    if (connection.conn !== 'Connected' || connection.session !== session) return;
    connection.lastHeardMs = out.nowMs;
    if (this.#blocked) this.#queue.push({ packet, payload });
    else this.#handle(packet, payload);
  }

  /** Holds back what follows until the returned function is called; it does nothing after the session has ended. */
  block(): () => void {
    this.#blocked = true;
    const { connection } = this.#core;
    const session = connection.conn === 'Connected' ? connection.session : 0;
    return () => {
      const now = this.#core.connection;
      if (now.conn !== 'Connected' || now.session !== session) return;
      this.#blocked = false;
      while (!this.#blocked) {
        const next = this.#queue.shift();
        if (next === undefined) return;
        this.#handle(next.packet, next.payload);
      }
    };
  }

  onSessionEnded(): void {
    this.#blocked = false;
    this.#queue = [];
  }

  get size(): number {
    return this.#queue.length;
  }

  #handle(packet: Packet, payload: Payload | null): void {
    const core = this.#core;
    switch (packet.kind) {
      case 'write':
        return core.peerWrites.onWrite(packet, payload);
      case 'written':
      case 'received':
        return core.writes.onPeerDone(packet.seq);
      case 'writeFailed':
        return core.writes.onPeerFailed(packet.seq);
      case 'flush':
        return core.peerWrites.onFlush(packet.epoch);
      case 'flushed':
        return core.flushes.onPeerFlushed(packet.epoch);
      case 'flushFailed':
        // The peer's disk is gone, which its diskState says next; what it has not proven stays unproven.
        return;
      case 'read':
        return core.reads.servePeer(packet.id, packet.offset, packet.length);
      case 'readData':
        return core.reads.onReadData(packet.id, payload);
      case 'readFailed':
        return core.reads.onReadFailed(packet.id);
      case 'ping':
        return core.send({ kind: 'pong' });
      case 'pong':
        return core.liveness.onPong();
      case 'promoteRequest':
      case 'promoteReply':
      case 'handoverRequest':
      case 'handoverReply':
        return core.roles.onPacket(packet);
      case 'giveUpRequest':
      case 'giveUpReply':
      case 'giveUpEnded':
        return core.givingUp.onPacket(packet);
      case 'grow':
      case 'grown':
        return core.resize.onPacket(packet);
      case 'state':
      case 'bitmap':
      case 'syncStart':
      case 'syncReady':
      case 'resyncRequest':
      case 'resyncData':
      case 'scatteredRequest':
      case 'scatteredData':
      case 'resyncFailed':
      case 'digestRequest':
      case 'resyncSame':
      case 'resyncStable':
      case 'syncFinished':
      case 'newGeneration':
      case 'newGenerationDone':
      case 'peerDiskGone':
      case 'peerDiskGoneDone':
      case 'diskState':
      case 'goodbye':
      case 'refused':
      case 'resyncPause':
      case 'resyncLimit':
      case 'invalidate':
        return core.session.onPacket(packet, payload);
      case 'verifyStart':
      case 'verifyRequest':
      case 'verifyPoint':
      case 'verifyDigests':
      case 'verifyFailed':
      case 'verifyFound':
      case 'verifyStop':
      case 'verifyEnd':
        return core.verify.onPacket(packet, payload);
      default:
        return packet satisfies never;
    }
  }
}
