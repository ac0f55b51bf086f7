/** GET /v1/node. */
import { NodeInfo, NoQuery } from '../schemas/answers.ts';
import { problemAnswer, type RouteOptions, type Router } from './common.ts';

export interface NodeRouteOptions extends RouteOptions {
  readonly node: { readonly name: string; readonly version: string };
}

export function nodeRoutes(app: Router, { catalog, node }: NodeRouteOptions, done: () => void): void {
  app.get(
    '/v1/node',
    {
      schema: {
        tags: ['node'],
        operationId: 'getNode',
        summary: 'This node',
        querystring: NoQuery,
        response: { 200: NodeInfo, default: problemAnswer },
      },
    },
    () => ({
      name: node.name,
      version: node.version,
      uptimeSeconds: Math.round(process.uptime() * 1000) / 1000,
      pid: process.pid,
      resources: catalog.names().length,
    }),
  );
  done();
}
