/** GET /v1/events: Server-Sent Events, first a snapshot of all resources, then every change as it happens. */
import { Type } from 'typebox';
import { ApiError } from '../errors.ts';
import { EventStream, heartbeatIntervalMs } from '../event-stream.ts';
import { NoQuery } from '../schemas/answers.ts';
import { problemAnswer, type RouteOptions, type Router } from './common.ts';

/** Streams at once; each costs a socket and a little memory. */
const streamsMax = 256;

export function eventRoutes(app: Router, { catalog }: RouteOptions, done: () => void): void {
  const streams = new Set<EventStream>();
  let lastId = 0;
  const nextId = () => ++lastId;

  const unsubscribe = catalog.plane.onStatus((name, status) => {
    for (const stream of streams) stream.push(name, status);
  });
  const heartbeat = setInterval(() => {
    for (const stream of streams) stream.heartbeat();
  }, heartbeatIntervalMs);
  heartbeat.unref();
  // Before the server closes: it waits for its connections, and these would never end by themselves.
  app.addHook('preClose', (closed) => {
    clearInterval(heartbeat);
    unsubscribe();
    for (const stream of streams) stream.end();
    closed();
  });

  app.get(
    '/v1/events',
    {
      schema: {
        tags: ['resources'],
        operationId: 'streamEvents',
        summary: 'Server-Sent Events: "status" with {resource, status}, "removed" with {resource}',
        querystring: NoQuery,
        response: {
          200: {
            description: 'a stream that does not end',
            content: { 'text/event-stream': { schema: Type.String() } },
          },
          default: problemAnswer,
        },
      },
    },
    (request, reply) => {
      if (streams.size >= streamsMax) {
        throw new ApiError(
          'not-ready',
          `${streamsMax} clients follow the events already`,
          'Close some of them.',
        );
      }
      reply.hijack();
      const out = reply.raw;
      out.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      });
      out.flushHeaders();
      // Errors of a client that vanished; 'close' follows.
      out.on('error', (error) => request.log.debug({ err: error }, 'an event stream broke'));
      const stream = new EventStream(out, nextId);
      streams.add(stream);
      out.on('close', () => streams.delete(stream));
      for (const status of catalog.known()) stream.push(status.name, status);
    },
  );
  done();
}
