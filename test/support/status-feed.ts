/**
 * Follows GET /v1/events of a node and lets a test wait for a status. Nothing polls: a wait ends with the event that
 * satisfies it, with the end of the stream, or at its deadline, which says what was seen last.
 */
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { describeStatus, parseStatus } from './status.ts';
import type { ResourceStatus } from './status.ts';

/** `null`: the node says that the resource is gone. */
export type StatusListener = (resource: string, status: ResourceStatus | null) => void;

export class StatusFeed {
  readonly #listeners = new Set<StatusListener>();
  readonly #endListeners = new Set<(why: Error) => void>();
  readonly #last = new Map<string, ResourceStatus>();
  readonly #close: () => void;
  #ended: Error | null = null;

  private constructor(response: IncomingMessage) {
    this.#close = () => response.destroy();
    const parser = new EventStreamParser((event, data) => this.#received(event, data));
    response.setEncoding('utf8');
    response.on('data', (text: string) => {
      try {
        parser.feed(text);
      } catch (error) {
        this.#end(new Error('the event stream is malformed', { cause: error }));
        response.destroy();
      }
    });
    response.on('error', (error) => this.#end(error));
    response.on('close', () => this.#end(new Error('the event stream has ended')));
  }

  /** Resolves once the node has answered; what follows comes to the listeners. */
  static open(api: string, token: string): Promise<StatusFeed> {
    return new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}`, accept: 'text/event-stream' };
      const outgoing = request(`${api}/v1/events`, { headers, agent: false });
      outgoing.once('error', reject);
      outgoing.once('response', (response) => {
        if (response.statusCode === 200) {
          resolve(new StatusFeed(response));
        } else {
          response.destroy();
          reject(new Error(`GET /v1/events answered ${response.statusCode}`));
        }
      });
      outgoing.end();
    });
  }

  /** The last status seen of a resource. */
  last(resource: string): ResourceStatus | null {
    return this.#last.get(resource) ?? null;
  }

  /** Calls back on every event until the returned function is called. */
  listen(listener: StatusListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Resolves with the next status that satisfies the predicate, or with `fresh`, if that resolves to one that does:
   * a status asked for after the wait began, so that nothing falls between the two.
   */
  waitFor(
    resource: string,
    predicate: (status: ResourceStatus) => boolean,
    what: string,
    fresh: Promise<ResourceStatus | null>,
    limitMs: number,
  ): Promise<ResourceStatus> {
    return new Promise((resolve, reject) => {
      let seen = this.#last.get(resource) ?? null;
      const finish = (): void => {
        clearTimeout(timer);
        stopListening();
        this.#endListeners.delete(fail);
      };
      const fail = (why: Error): void => {
        finish();
        const last = seen === null ? 'no status was seen' : `last seen: ${describeStatus(seen)}`;
        reject(new Error(`waiting for ${what}: ${why.message}; ${last}`, { cause: why }));
      };
      const consider = (status: ResourceStatus): void => {
        seen = status;
        try {
          if (!predicate(status)) return;
        } catch (error) {
          fail(error instanceof Error ? error : new Error(String(error)));
          return;
        }
        finish();
        resolve(status);
      };
      const timer = setTimeout(() => fail(new Error(`not within ${limitMs} ms`)), limitMs);
      const stopListening = this.listen((name, status) => {
        if (name === resource && status !== null) consider(status);
      });
      this.#endListeners.add(fail);
      fresh.then((status) => {
        if (status !== null) consider(status);
      }, fail);
      if (this.#ended !== null) fail(this.#ended);
    });
  }

  close(): void {
    this.#close();
  }

  #received(event: string, data: string): void {
    const value: unknown = JSON.parse(data);
    if (typeof value !== 'object' || value === null || !('resource' in value)) return;
    const { resource } = value;
    if (typeof resource !== 'string') return;
    if (event === 'status' && 'status' in value) {
      const status = parseStatus(value.status);
      this.#last.set(resource, status);
      for (const listener of [...this.#listeners]) listener(resource, status);
    } else if (event === 'removed') {
      this.#last.delete(resource);
      for (const listener of [...this.#listeners]) listener(resource, null);
    }
  }

  #end(why: Error): void {
    if (this.#ended !== null) return;
    this.#ended = why;
    for (const fail of [...this.#endListeners]) fail(why);
  }
}

/** The stream format of Server-Sent Events (HTML standard, section 9.2.6), as far as event and data go. */
class EventStreamParser {
  readonly #onEvent: (event: string, data: string) => void;
  #rest = '';
  #event = '';
  #data: string[] = [];

  constructor(onEvent: (event: string, data: string) => void) {
    this.#onEvent = onEvent;
  }

  feed(text: string): void {
    const lines = (this.#rest + text).split(/\r?\n/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line);
  }

  #line(line: string): void {
    if (line === '') {
      if (this.#data.length > 0) this.#onEvent(this.#event, this.#data.join('\n'));
      this.#event = '';
      this.#data = [];
      return;
    }
    const match = /^([^:]+)(?:: ?(.*))?$/.exec(line);
    if (match?.[1] === 'event') this.#event = match[2] ?? '';
    else if (match?.[1] === 'data') this.#data.push(match[2] ?? '');
  }
}
