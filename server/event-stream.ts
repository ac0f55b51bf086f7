/**
 * One client of GET /v1/events. What it is sent is the newest status of each resource: while the client does not
 * read, later changes replace earlier ones, so it can hold up to one status per resource and no more.
 */
import type { Writable } from 'node:stream';
import type { ResourceStatus } from './schemas/status.ts';

/** How often a silent stream says it is alive, in milliseconds. */
export const heartbeatIntervalMs = 15_000;

export class EventStream {
  readonly #out: Writable;
  readonly #nextId: () => number;
  /** Changes that wait for the client to read; null: the resource is gone. */
  readonly #waiting = new Map<string, ResourceStatus | null>();
  #blocked = false;
  /** Blocked for the whole of the last heartbeat interval. */
  #stalled = false;

  constructor(out: Writable, nextId: () => number) {
    this.#out = out;
    this.#nextId = nextId;
    out.on('drain', () => this.#drained());
  }

  push(resource: string, status: ResourceStatus | null): void {
    if (this.#blocked) this.#waiting.set(resource, status);
    else this.#send(resource, status);
  }

  /** Called once per interval. A client that read nothing in a whole one is disconnected. */
  heartbeat(): void {
    if (this.#stalled) {
      this.#out.destroy();
      return;
    }
    this.#stalled = this.#blocked;
    if (!this.#blocked) this.#write(': alive\n\n');
  }

  end(): void {
    this.#out.end();
  }

  #send(resource: string, status: ResourceStatus | null): void {
    const event = status === null ? 'removed' : 'status';
    const data = status === null ? { resource } : { resource, status };
    this.#write(`event: ${event}\nid: ${this.#nextId()}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  #write(text: string): void {
    if (this.#out.writableEnded || this.#out.destroyed) return;
    if (!this.#out.write(text)) this.#blocked = true;
  }

  #drained(): void {
    this.#blocked = false;
    this.#stalled = false;
    for (const [resource, status] of this.#waiting) {
      if (this.#blocked) return;
      this.#waiting.delete(resource);
      this.#send(resource, status);
    }
  }
}
