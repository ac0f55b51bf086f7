/**
 * The network between two nodes, as TCP makes it: a session delivers in order or ends, on each side at a time of its own. A
 * cut stalls what is under way (and lets it go on after a short one), breaks it on both sides, or silences one
 * direction. What a process had sent before it died may still arrive, or not.
 */
import type { LinkDownReason, ProbeOutcome } from '../../replicator/core/event.ts';
import type { Packet, Payload, PeerState } from '../../replicator/core/packet.ts';
import type { Prng } from './prng.ts';
import type { World } from './world.ts';

/** One node as the network sees it. */
export interface Host {
  readonly name: string;
  readonly isUp: boolean;
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
  | { readonly kind: 'down'; readonly why: LinkDownReason; readonly detail: string };

/** One side of a session. */
interface End {
  readonly session: number;
  readonly host: Host;
  peer: End | null;
  /** The host takes part: it has been, or will be, told of it, and has neither left it nor been told of its end. */
  open: boolean;
  /** `linkUp` was called. */
  told: boolean;
  /** On the way to this side. */
  readonly inbox: { readonly atMs: number; readonly delivery: Delivery }[];
}

export interface NetworkOptions {
  readonly delayMs: number;
  readonly connectIntervalMs: number;
  readonly probeTimeoutMs: number;
}

export class SimNetwork {
  readonly #world: World;
  readonly #prng: Prng;
  readonly #options: NetworkOptions;
  #hosts: readonly Host[] = [];
  readonly #wants = new Set<Host>();
  /** The session of each host that is open on its side. */
  readonly #ends = new Map<Host, End>();
  /** Hosts that nothing reaches just now. */
  readonly #deaf = new Set<Host>();
  #sessions = 0;

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

  wantLink(host: Host, want: boolean): void {
    if (want) this.#wants.add(host);
    else this.#wants.delete(host);
  }

  send(host: Host, session: number, packet: Packet, payload: Payload | null): void {
    const end = this.#ends.get(host);
    if (end?.session === session && end.peer !== null)
      this.#post(end.peer, { kind: 'packet', packet, payload });
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
      const state = peer.isUp && this.#isOpen() ? peer.published : null;
      const refusedMs = peer.isUp || this.#prng.chance(0.5) ? timeoutMs - (this.#world.nowMs - startMs) : 0;
      this.#world.after(state === null ? refusedMs : this.#delay(), () => {
        if (state !== null && this.#isOpen()) done({ kind: 'answered', state });
        else done({ kind: 'unreachable', detail: state === null ? 'no answer' : 'the answer was lost' });
      });
    });
  }

  /** `silent`: the machine is gone, and nobody tells the peer. */
  hostDied(host: Host, silent: boolean): void {
    this.#wants.delete(host);
    const end = this.#ends.get(host);
    if (end === undefined) return;
    this.#leave(end);
    if (end.peer === null) return;
    this.#loseTail(end.peer);
    if (!silent) this.#post(end.peer, { kind: 'down', why: 'BrokenPipe', detail: 'the peer died' });
  }

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

  heal(): void {
    this.#deaf.clear();
    for (const end of [...this.#ends.values()]) this.#deliver(end);
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
    if (wanting.length < 2 || !a.isUp || !b.isUp || !this.#isOpen()) {
      for (const host of wanting) if (!this.#ends.has(host)) host.linkRefused('no connection');
      return;
    }
    const session = ++this.#sessions;
    const ends = [a, b].map(
      (host) => ({ session, host, peer: null, open: true, told: false, inbox: [] }) satisfies End,
    );
    const [endA, endB]: End[] = ends;
    if (endA === undefined || endB === undefined) return;
    [endA.peer, endB.peer] = [endB, endA];
    for (const end of [endA, endB]) {
      const old = this.#ends.get(end.host);
      if (old !== undefined) this.#end(old, 'BrokenPipe', 'the peer has connected anew');
      this.#ends.set(end.host, end);
      this.#post(end, { kind: 'up' });
    }
  }

  #post(end: End, delivery: Delivery): void {
    if (!end.open) return;
    const last = end.inbox.at(-1)?.atMs ?? 0;
    const atMs = Math.max(last, this.#world.nowMs + this.#delay());
    end.inbox.push({ atMs, delivery });
    this.#world.after(atMs - this.#world.nowMs, () => this.#deliver(end));
  }

  #deliver(end: End): void {
    while (end.open && !this.#deaf.has(end.host)) {
      const next = end.inbox[0];
      if (next === undefined || next.atMs > this.#world.nowMs) return;
      end.inbox.shift();
      const { delivery } = next;
      if (delivery.kind === 'up') {
        end.told = true;
        end.host.linkUp(end.session);
      } else if (delivery.kind === 'packet') {
        end.host.packet(end.session, delivery.packet, delivery.payload);
      } else {
        this.#end(end, delivery.why, delivery.detail);
      }
    }
  }

  #end(end: End, why: LinkDownReason, detail: string): void {
    this.#leave(end);
    if (end.told) end.host.linkDown(end.session, why, detail);
  }

  #leave(end: End): void {
    end.open = false;
    end.inbox.length = 0;
    if (this.#ends.get(end.host) === end) this.#ends.delete(end.host);
  }

  /** Some of what is on the way to this side never arrives. */
  #loseTail(end: End): void {
    const kept = this.#prng.int(end.inbox.length + 1);
    const isUpKept = end.inbox[0]?.delivery.kind === 'up';
    end.inbox.length = Math.max(kept, isUpKept ? 1 : 0);
  }

  #isOpen(): boolean {
    return this.#deaf.size === 0;
  }

  #delay(): number {
    const usual = (this.#prng.int(1000) / 1000) * this.#options.delayMs;
    return this.#prng.chance(0.01) ? usual * 20 : usual;
  }

  #otherOf(host: Host): Host {
    const other = this.#hosts.find((one) => one !== host);
    if (other === undefined) throw new Error('the network has not started');
    return other;
  }
}
