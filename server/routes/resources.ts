/** Definitions and status of resources. */
import { Type } from 'typebox';
import { CommandAnswer, DecisionsAnswer, NoQuery, RemoveAnswer, RemoveQuery } from '../schemas/answers.ts';
import { ResourceParams } from '../schemas/common.ts';
import { ResourceBody, ResourceChange } from '../schemas/resource-definition.ts';
import { ResourceStatus } from '../schemas/status.ts';
import { problemAnswer, type RouteOptions, type Router } from './common.ts';

export function resourceRoutes(app: Router, { catalog }: RouteOptions, done: () => void): void {
  const tags = ['resources'];

  app.get(
    '/v1/resources',
    {
      schema: {
        tags,
        operationId: 'listResources',
        summary: 'The status of every resource, by name',
        querystring: NoQuery,
        response: { 200: Type.Array(ResourceStatus), default: problemAnswer },
      },
    },
    async () => [...(await catalog.list())],
  );

  app.put(
    '/v1/resources/:resource',
    {
      schema: {
        tags,
        operationId: 'defineResource',
        summary: 'Define a resource; the same definition again changes nothing',
        params: ResourceParams,
        querystring: NoQuery,
        body: ResourceBody,
        response: { 200: ResourceStatus, 201: ResourceStatus, default: problemAnswer },
      },
    },
    async (request, reply) => {
      const { created, status } = await catalog.define(request.params.resource, request.body);
      return reply.code(created ? 201 : 200).send(status);
    },
  );

  app.get(
    '/v1/resources/:resource',
    {
      schema: {
        tags,
        operationId: 'getResource',
        summary: 'The status of a resource',
        params: ResourceParams,
        querystring: NoQuery,
        response: { 200: ResourceStatus, default: problemAnswer },
      },
    },
    (request) => catalog.status(request.params.resource),
  );

  app.patch(
    '/v1/resources/:resource',
    {
      schema: {
        tags,
        operationId: 'changeResource',
        summary: 'Change policies; those not named stay as they are',
        params: ResourceParams,
        querystring: NoQuery,
        body: ResourceChange,
        response: { 200: CommandAnswer, default: problemAnswer },
      },
    },
    (request) => catalog.change(request.params.resource, request.body.policies),
  );

  app.delete(
    '/v1/resources/:resource',
    {
      schema: {
        tags,
        operationId: 'removeResource',
        summary: 'Stop a resource and forget its definition; wipe also removes its data and metadata',
        params: ResourceParams,
        querystring: RemoveQuery,
        response: { 200: RemoveAnswer, default: problemAnswer },
      },
    },
    (request) => {
      const { wipe = false, force = false } = request.query;
      return catalog.remove(request.params.resource, { wipe, force });
    },
  );

  app.get(
    '/v1/resources/:resource/decisions',
    {
      schema: {
        tags,
        operationId: 'getDecisions',
        summary: 'The last decisions on handshakes, promotions and resyncs: inputs, rule, result',
        params: ResourceParams,
        querystring: NoQuery,
        response: { 200: DecisionsAnswer, default: problemAnswer },
      },
    },
    async (request) => [...(await catalog.decisions(request.params.resource))],
  );
  done();
}
