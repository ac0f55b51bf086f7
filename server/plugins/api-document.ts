/** The OpenAPI 3.1 document, made from the schemas of the routes, at /openapi.json, and a page at /docs. */
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import fastifyPlugin from 'fastify-plugin';
import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { isPublicPath } from './bearer-token.ts';

export const apiDocument = fastifyPlugin(async (app: FastifyInstance, options: { version: string }) => {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Lockstep control API',
        description: 'Replicated block devices of one node: roles, connections, resync.',
        version: options.version,
      },
      tags: [
        { name: 'node', description: 'The node itself' },
        { name: 'resources', description: 'Definitions and status' },
        { name: 'commands', description: 'Changes of role, connection and disk' },
      ],
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
    transform: ({ schema, url }) => ({
      schema: isPublicPath(url) ? { ...schema, security: [] } : schema,
      url,
    }),
  });
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: true });
  app.get(
    '/openapi.json',
    {
      schema: {
        tags: ['node'],
        operationId: 'getOpenApiDocument',
        summary: 'This document',
        response: { 200: Type.Object({}, { additionalProperties: true, description: 'OpenAPI 3.1' }) },
      },
    },
    () => app.swagger(),
  );
});
