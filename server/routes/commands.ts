/** One POST per verb. Each checks its body and hands a command to the data plane of the resource. */
import type { TSchema } from 'typebox';
import type { Command } from '../../replicator/core/command.ts';
import { invalid } from '../errors.ts';
import {
  CommandAnswer,
  ConnectBody,
  DryRunQuery,
  EmptyBody,
  ForceBody,
  NoQuery,
  ResizeBody,
  ResyncBody,
  VerifyBody,
} from '../schemas/answers.ts';
import { ResourceParams } from '../schemas/common.ts';
import { parseSize } from '../size.ts';
import { problemAnswer, type RouteOptions, type Router } from './common.ts';

export function commandRoutes(app: Router, { catalog }: RouteOptions, done: () => void): void {
  app.post(
    path('promote'),
    { schema: verb('promote', 'Become Primary', ForceBody, DryRunQuery) },
    ({ params, body, query }) =>
      catalog.command(params.resource, { kind: 'promote', ...forced(body), ...dry(query) }),
  );
  app.post(
    path('demote'),
    { schema: verb('demote', 'Become Secondary', ForceBody, DryRunQuery) },
    ({ params, body, query }) =>
      catalog.command(params.resource, { kind: 'demote', ...forced(body), ...dry(query) }),
  );
  app.post(
    path('failover'),
    {
      schema: verb(
        'failover',
        'Take over: by hand-over if the Primary answers, else as promote',
        ForceBody,
        DryRunQuery,
      ),
    },
    ({ params, body, query }) =>
      catalog.command(params.resource, { kind: 'failover', ...forced(body), ...dry(query) }),
  );
  app.post(
    path('connect'),
    {
      schema: verb(
        'connect',
        'Connect to the peer; discardMyData settles a split brain against this node',
        ConnectBody,
        DryRunQuery,
      ),
    },
    ({ params, body: { discardMyData = false }, query }) =>
      catalog.command(params.resource, { kind: 'connect', discardMyData, ...dry(query) }),
  );
  app.post(
    path('disconnect'),
    { schema: verb('disconnect', 'Disconnect from the peer (StandAlone)', EmptyBody, NoQuery) },
    ({ params }) => catalog.command(params.resource, { kind: 'disconnect' }),
  );
  app.post(
    path('attach'),
    {
      schema: verb(
        'attach',
        'Take the backing device into use again, or start a resource that could not be',
        EmptyBody,
        NoQuery,
      ),
    },
    ({ params }) => catalog.command(params.resource, { kind: 'attach' }),
  );
  app.post(
    path('detach'),
    { schema: verb('detach', 'Go on without the backing device, through the peer', ForceBody, NoQuery) },
    ({ params, body }) => catalog.command(params.resource, { kind: 'detach', ...forced(body) }),
  );
  app.post(
    path('resync'),
    { schema: verb('resync', 'Pause or resume a resync, or begin a full one', ResyncBody, NoQuery) },
    ({ params, body: { action } }) => catalog.command(params.resource, { kind: 'resync', action }),
  );
  app.post(
    path('verify'),
    { schema: verb('verify', 'Compare both copies while in use', VerifyBody, NoQuery) },
    ({ params, body: { action, repair = true } }) =>
      catalog.command(params.resource, { kind: 'verify', action, repair }),
  );
  app.post(
    path('resize'),
    { schema: verb('resize', 'Grow the device', ResizeBody, NoQuery) },
    ({ params, body }) => {
      const size = parseSize(body.size);
      if (!size.ok) throw invalid([{ path: 'size', message: `"size": ${size.problem}` }]);
      return catalog.command(params.resource, { kind: 'resize', sizeBytes: size.sizeBytes });
    },
  );
  done();
}

function path(kind: Command['kind']): string {
  return `/v1/resources/:resource/${kind}`;
}

function verb<B extends TSchema, Q extends TSchema>(
  kind: Command['kind'],
  summary: string,
  body: B,
  querystring: Q,
) {
  return {
    tags: ['commands'],
    operationId: kind,
    summary,
    params: ResourceParams,
    querystring,
    body,
    response: { 200: CommandAnswer, default: problemAnswer },
  };
}

function forced(body: { force?: boolean }): { force: boolean } {
  return { force: body.force ?? false };
}

function dry(query: { dryRun?: boolean }): { dryRun: boolean } {
  return { dryRun: query.dryRun ?? false };
}
