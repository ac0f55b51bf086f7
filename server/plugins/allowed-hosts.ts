/**
 * Keeps web pages from reaching a node through a browser on its machine (DNS rebinding): their Host header is
 * a name of theirs, while those who mean this node use an address, "localhost" or the name it is bound to.
 */
import { isIP } from 'node:net';
import fastifyPlugin from 'fastify-plugin';
import type { FastifyInstance } from 'fastify';
import { ApiError } from '../errors.ts';

export const allowedHosts = fastifyPlugin(
  (app: FastifyInstance, options: { host: string }, done: () => void) => {
    app.addHook('onRequest', (request, _reply, next) => {
      const host = request.hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase();
      if (isIP(host) !== 0 || host === 'localhost' || host === options.host.toLowerCase()) {
        next();
        return;
      }
      next(
        new ApiError(
          'host-not-allowed',
          `the Host header is "${host}"`,
          'Address the node by its IP address, as localhost, or by the name given to --api.',
        ),
      );
    });
    done();
  },
);
