/**
 * The network between two nodes, as TCP makes it: a session delivers in order or ends, on each side at a time of its own. A
 * cut stalls what is under way (and lets it go on after a short one), breaks it on both sides, or silences one
 * direction. What a process had sent before it died may still arrive, or not; what an old session still delivers may
 * come after a new one has begun. In some histories packets travel as the bytes of the production codec, and bits flip.
 */
import type { LinkDownReason, ProbeOutcome } from '../../replicator/core/event.ts';
import type { Packet, Payload, PeerState } from '../../replicator/core/packet.ts';
import type { Prng } from './prng.ts';
import { inPieces, tamper, throughWire, WireEnd } from './sim-wire.ts';
import type { Frame, Tampering } from './sim-wire.ts';
import type { World } from './world.ts';

/** One node as the network sees it. */
export interface Host {
  readonly name: string;
  /** The process exists: its system keeps connections for it. */
  readonly isUp: boolean;
  /** And it runs: it answers what is asked of it. */
  readonly isResponding: boolean;
  /** What probes are answered with; null until there is something. */
  readonly published: PeerState | null;
  linkUp(session: number): void;
  linkDown(session: number, why: LinkDownReason, detail: string): void;
  linkRefused(detail: string): void;
  packet(session: number, packet: Packet, payload: Payload | null): void;
}

export type Cut = 'stall' | 'reset' | 'one-way';

type Delivery =
  | { readonly kind: 'up' }
  | { readonly kind: 'packet'; readonly packet: Packet; readonly payload: Payload | null }
  | { readonly kind: 'frame'; readonly frame: Frame }
  | { readonly kind: 'down'; readonly why: LinkDownReason; readonly detail: string };

/** One side of a session. */
interface End {
  /** This side's number for it. */
  readonly session: number;
  readonly host: Host;
  peer: End | null;
  /** The host takes part: it has been, or will be, told of it, and has neither left it nor been told of its end. */
  open: boolean;
  /** `linkUp` was called. */
  told: boolean;
  /** On the way to this side. */
  readonly inbox: { readonly atMs: number; readonly delivery: Delivery }[];
  wire: WireEnd | null;
}

export interface NetworkOptions {
  readonly delayMs: number;
  readonly connectIntervalMs: number;
  readonly probeTimeoutMs: number;
  /** `bytes`: every packet goes through the production codec. `values`: they are handed over as they are. */
  readonly wire: 'bytes' | 'values';
}

/** What a packet without its payload takes on the line, about. */
const packetBytes = 80;

export class SimNetwork {
  readonly #world: World;
  readonly #prng: Prng;
  readonly #options: NetworkOptions;
  #hosts: readonly Host[] = [];
  readonly #wants = new Set<Host>();
  /** The session of each host that is open on its side. */
  readonly #ends = new Map<Host, End>();
  /** Sessions that a newer one has replaced, while they still deliver. */
  readonly #stale = new Set<End>();
  /** Hosts that nothing reaches just now. */
  readonly #deaf = new Set<Host>();
  /** Each side counts its own. */
  readonly #sessions = new Map<Host, number>();
  #losesProbes = false;
  #isSteady = false;
  /** Null: no limit worth a model. */
  #bytesPerMs: number | null = null;
  /** When the line towards a host is free again. */
  readonly #lineFreeMs = new Map<Host, number>();
  #tampering: Tampering | null = null;

  constructor(world: World, options: NetworkOptions) {
    this.#world = world;
    this.#prng = world.prng.fork();
    this.#options = options;
  }

  start(hosts: readonly [Host, Host]): void {
    this.#hosts = hosts;
    this.#tryToConnect();
  }

  get isCut(): boolean {
    return this.#deaf.size > 0;
  }

  /** Something keeps the nodes from reaching each other, in time or at all. */
  get isImpaired(): boolean {
    return this.isCut || this.#losesProbes || this.#bytesPerMs !== null;
  }

  /** Ends of sessions that have begun so far. */
  get begun(): number {
    return [...this.#sessions.values()].reduce((sum, count) => sum + count, 0);
  }

  /** A session is open on both sides. */
  get isConnected(): boolean {
    return this.#ends.size === 2;
  }

  wantLink(host: Host, want: boolean): void {
    if (want) this.#wants.add(host);
    else this.#wants.delete(host);
  }

  send(host: Host, session: number, packet: Packet, payload: Payload | null): void {
    const end = this.#ends.get(host);
    if (end?.session !== session || end.peer === null) return;
    if (end.wire === null) return this.#post(end.peer, { kind: 'packet', packet, payload }, payload);
    let frame = end.wire.encode(packet, payload);
    if (this.#tampering !== null && this.#prng.chance(0.3)) {
      const how = this.#tampering;
      this.#tampering = null;
      this.#world.trace(() => `-- ${how} of ${host.name}'s ${packet.kind}`);
      frame = tamper(frame, how, this.#prng);
    } else if (this.#prng.chance(0.05)) {
      frame = inPieces(frame, this.#prng);
    }
    this.#post(end.peer, { kind: 'frame', frame }, payload);
  }

  close(host: Host, session: number): void {
    const end = this.#ends.get(host);
    if (end?.session !== session) return;
    this.#leave(end);
    if (end.peer !== null)
      this.#post(end.peer, { kind: 'down', why: 'BrokenPipe', detail: 'closed by the peer' });
  }

  probe(host: Host, done: (outcome: ProbeOutcome) => void): void {
    const peer = this.#otherOf(host);
    const timeoutMs = this.#options.probeTimeoutMs;
    const startMs = this.#world.nowMs;
    this.#world.after(this.#delay(), () => {
      const reaches = peer.isResponding && this.#isOpen() && !this.#losesProbes;
      const state = reaches ? peer.published : null;
      const refusedMs = peer.isUp || this.#prng.chance(0.5) ? timeoutMs - (this.#world.nowMs - startMs) : 0;
      this.#world.after(state === null ? refusedMs : this.#delay(), () => {
        if (state !== null && this.#isOpen()) done({ kind: 'answered', state: this.#carried(state) });
        else done({ kind: 'unreachable', detail: state === null ? 'no answer' : 'the answer was lost' });
      });
    });
  }

  /** `silent`: the machine is gone, and nobody tells the peer. */
  hostDied(host: Host, silent: boolean): void {
    this.#wants.delete(host);
    for (const end of this.#stale) if (end.host === host) this.#leave(end);
    const end = this.#ends.get(host);
    if (end === undefined) return;
    this.#leave(end);
    if (end.peer === null) return;
    this.#loseTail(end.peer);
    if (!silent) this.#post(end.peer, { kind: 'down', why: 'BrokenPipe', detail: 'the peer died' });
  }

  // Faults.

  cut(how: Cut): void {
    const hosts = this.#hosts;
    if (how === 'one-way') this.#deaf.add(this.#prng.pick(hosts));
    else for (const host of hosts) this.#deaf.add(host);
    if (how !== 'reset') return;
    for (const end of [...this.#ends.values()]) {
      this.#loseTail(end);
      // Told by the own system, so the cut does not keep it away.
      this.#world.after(this.#prng.int(50), () => {
        if (end.open) this.#end(end, 'NetworkFailure', 'connection reset');
      });
    }
  }

  /** One of the next frames is damaged; nothing happens where packets travel as values. */
  tamperWithNext(how: Tampering): void {
    if (this.#options.wire === 'bytes') this.#tampering = how;
  }

  loseProbes(lose: boolean): void {
    this.#losesProbes = lose;
  }

  /** So many bytes per millisecond in each direction; null for a fast line. */
  limit(bytesPerMs: number | null): void {
    this.#bytesPerMs = bytesPerMs;
  }

  /** From now on nothing takes far longer than usual: long enough, for a fast clock, to be taken for a loss. */
  steady(): void {
    this.#isSteady = true;
  }

  heal(): void {
    this.#deaf.clear();
    this.#losesProbes = false;
    this.#bytesPerMs = null;
    this.#tampering = null;
    for (const end of [...this.#ends.values(), ...this.#stale]) this.#deliver(end);
  }

  healCut(): void {
    this.#deaf.clear();
    for (const end of [...this.#ends.values(), ...this.#stale]) this.#deliver(end);
  }

  #tryToConnect(): void {
    const wait = this.#prng.between(1, this.#options.connectIntervalMs);
    this.#world.after(wait, () => {
      this.#connect();
      this.#tryToConnect();
    });
  }

  #connect(): void {
    const [a, b] = this.#hosts;
    if (a === undefined || b === undefined || (this.#ends.has(a) && this.#ends.has(b))) return;
    const wanting = this.#hosts.filter((host) => this.#wants.has(host));
    if (wanting.length < 2 || !a.isResponding || !b.isResponding || !this.#isOpen()) {
      for (const host of wanting) if (!this.#ends.has(host)) host.linkRefused('no connection');
      return;
    }
    const [endA, endB] = [this.#newEnd(a), this.#newEnd(b)];
    [endA.peer, endB.peer] = [endB, endA];
    for (const end of [endA, endB]) {
      const old = this.#ends.get(end.host);
      if (old !== undefined) this.#replace(old);
      this.#ends.set(end.host, end);
      this.#post(end, { kind: 'up' });
    }
  }

  #newEnd(host: Host): End {
    const session = (this.#sessions.get(host) ?? 0) + 1;
    this.#sessions.set(host, session);
    const end: End = { session, host, peer: null, open: true, told: false, inbox: [], wire: null };
    if (this.#options.wire === 'bytes')
      end.wire = new WireEnd((packet, payload) => {
        if (end.open) host.packet(session, packet, payload);
      });
    return end;
  }

  /** A session that the other side has given up: told of at once, or it still delivers what was on its way. */
  #replace(old: End): void {
    if (!old.told || this.#prng.chance(0.5))
      return this.#end(old, 'BrokenPipe', 'the peer has connected anew');
    this.#ends.delete(old.host);
    this.#stale.add(old);
    this.#world.after(this.#prng.int(300), () => {
      if (old.open) this.#end(old, 'BrokenPipe', 'the peer had connected anew');
    });
  }

  #post(end: End, delivery: Delivery, payload: Payload | null = null): void {
    if (!end.open) return;
    const last = end.inbox.at(-1)?.atMs ?? 0;
    const sentMs = this.#transmitted(end.host, packetBytes + (payload?.byteLength ?? 0));
    const atMs = Math.max(last, sentMs + this.#delay());
    end.inbox.push({ atMs, delivery });
    this.#world.after(atMs - this.#world.nowMs, () => this.#deliver(end));
  }

  /** When the last byte is on the line. */
  #transmitted(to: Host, byteCount: number): number {
    const { nowMs } = this.#world;
    if (this.#bytesPerMs === null) return nowMs;
    const atMs = Math.max(nowMs, this.#lineFreeMs.get(to) ?? 0) + byteCount / this.#bytesPerMs;
    this.#lineFreeMs.set(to, atMs);
    return atMs;
  }

  #deliver(end: End): void {
    while (end.open && !this.#deaf.has(end.host)) {
      const next = end.inbox[0];
      if (next === undefined || next.atMs > this.#world.nowMs) return;
      end.inbox.shift();
      const { delivery } = next;
      switch (delivery.kind) {
        case 'up':
          end.told = true;
          end.host.linkUp(end.session);
          break;
        case 'packet':
          end.host.packet(end.session, delivery.packet, delivery.payload);
          break;
        case 'frame':
          this.#receive(end, delivery.frame);
          break;
        case 'down':
          this.#end(end, delivery.why, delivery.detail);
          break;
        default:
          delivery satisfies never;
      }
    }
  }

  /** A stream that does not parse ends its session, on both sides, and is nothing else (W10). */
  #receive(end: End, frame: Frame): void {
    const wasOpen = end.open;
    const { error, complaint } = end.wire?.receive(frame) ?? { error: null, complaint: null };
    if (complaint !== null && wasOpen && end.open) this.#world.violation('wire', complaint);
    if (error === null || !end.open) return;
    if (end.peer !== null)
      this.#post(end.peer, { kind: 'down', why: 'BrokenPipe', detail: 'closed by the peer' });
    this.#end(end, 'ProtocolError', error);
  }

  #end(end: End, why: LinkDownReason, detail: string): void {
    this.#leave(end);
    if (end.told) end.host.linkDown(end.session, why, detail);
  }

  #leave(end: End): void {
    end.open = false;
    end.wire?.stop();
    end.inbox.length = 0;
    this.#stale.delete(end);
    if (this.#ends.get(end.host) === end) this.#ends.delete(end.host);
  }

  /** Some of what is on the way to this side never arrives. */
  #loseTail(end: End): void {
    const kept = this.#prng.int(end.inbox.length + 1);
    const isUpKept = end.inbox[0]?.delivery.kind === 'up';
    end.inbox.length = Math.max(kept, isUpKept ? 1 : 0);
  }

  #carried(state: PeerState): PeerState {
    return this.#options.wire === 'bytes' ? throughWire(state) : state;
  }

  #isOpen(): boolean {
    return this.#deaf.size === 0;
  }

  #delay(): number {
    const usual = (this.#prng.int(1000) / 1000) * this.#options.delayMs;
    return this.#prng.chance(0.01) && !this.#isSteady ? usual * 20 : usual;
  }

  #otherOf(host: Host): Host {
    const other = this.#hosts.find((one) => one !== host);
    if (other === undefined) throw new Error('the network has not started');
    return other;
  }
}
