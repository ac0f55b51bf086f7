/** Whether the process lives, and whether it is ready: for supervisors and load balancers, without a token. */
import { Type } from 'typebox';
import { ApiError } from '../errors.ts';
import { closed } from '../schemas/common.ts';
import { problemAnswer, type RouteOptions, type Router } from './common.ts';

const Healthy = Type.Object({ status: Type.Literal('ok') }, closed);
const Ready = Type.Object({ status: Type.Literal('ready') }, closed);

export function healthRoutes(app: Router, { catalog }: RouteOptions, done: () => void): void {
  app.get(
    '/healthz',
    {
      schema: {
        tags: ['node'],
        operationId: 'getHealth',
        summary: 'Whether the process answers',
        response: { 200: Healthy },
      },
    },
    () => ({ status: 'ok' as const }),
  );
  app.get(
    '/readyz',
    {
      schema: {
        tags: ['node'],
        operationId: 'getReadiness',
        summary: 'Whether every resource has been started, or has said why it cannot be',
        response: { 200: Ready, default: problemAnswer },
      },
    },
    () => {
      if (catalog.ready) return { status: 'ready' as const };
      throw new ApiError('not-ready', 'resources are still being started', 'Ask again in a moment.');
    },
  );
  done();
}
