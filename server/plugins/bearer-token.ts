/** Everything that shows or changes resources needs the bearer token of the node. */
import { createHash, timingSafeEqual } from 'node:crypto';
import fastifyPlugin from 'fastify-plugin';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { ApiError } from '../errors.ts';

/** What a monitor, a browser and a generator of clients need before they have a token. */
const publicPaths = ['/healthz', '/readyz', '/openapi.json', '/docs'];

export const bearerToken = fastifyPlugin(
  (app: FastifyInstance, options: { token: string }, done: () => void) => {
    const expected = digest(options.token);
    app.addHook('onRequest', (request, _reply, next) => {
      if (isPublic(request)) {
        next();
        return;
      }
      const [scheme, given, ...rest] = (request.headers.authorization ?? '').split(' ');
      // Digests have one length, so the comparison takes the same time whatever was given.
      const matches = timingSafeEqual(digest(given ?? ''), expected);
      if (matches && rest.length === 0 && scheme?.toLowerCase() === 'bearer') {
        next();
        return;
      }
      next(
        new ApiError(
          'unauthorized',
          given === undefined
            ? 'the request carries no bearer token'
            : 'the bearer token is not the one of this node',
          'Send "Authorization: Bearer TOKEN" with the contents of the api-token file in the data directory of the node.',
        ),
      );
    });
    done();
  },
);

export function isPublicPath(path: string): boolean {
  return publicPaths.some((open) => path === open || path.startsWith(`${open}/`));
}

function isPublic(request: FastifyRequest): boolean {
  return request.is404 || isPublicPath(request.routeOptions.url ?? '');
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
