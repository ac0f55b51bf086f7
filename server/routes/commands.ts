/** One POST per verb. Each checks its body and hands a command to the data plane of the resource. */
import type { Static, TSchema } from 'typebox';
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
  const route = <B extends TSchema, Q extends TSchema>(
    verb: Command['kind'],
    summary: string,
    body: B,
    query: Q,
    toCommand: (body: Static<B>, query: Static<Q>) => Command,
  ) => {
    app.post<{ Params: Static<typeof ResourceParams>; Body: Static<B>; Querystring: Static<Q> }>(
      `/v1/resources/:resource/${verb}`,
      {
        schema: {
          tags: ['commands'],
          operationId: verb,
          summary,
          params: ResourceParams,
          querystring: query,
          body,
          response: { 200: CommandAnswer, default: problemAnswer },
        },
      },
      async (request, reply) =>
        reply.send(
          await catalog.command(request.params.resource, toCommand(request.body, request.query)),
        ),
    );
  };

  route('promote', 'Become Primary', ForceBody, DryRunQuery, ({ force = false }, { dryRun = false }) => ({
    kind: 'promote',
    force,
    dryRun,
  }));
  route('demote', 'Become Secondary', ForceBody, DryRunQuery, ({ force = false }, { dryRun = false }) => ({
    kind: 'demote',
    force,
    dryRun,
  }));
  route(
    'failover',
    'Take over: by hand-over if the Primary answers, else as promote',
    ForceBody,
    DryRunQuery,
    ({ force = false }, { dryRun = false }) => ({ kind: 'failover', force, dryRun }),
  );
  route(
    'connect',
    'Connect to the peer; discardMyData settles a split brain against this node',
    ConnectBody,
    DryRunQuery,
    ({ discardMyData = false }, { dryRun = false }) => ({ kind: 'connect', discardMyData, dryRun }),
  );
  route('disconnect', 'Disconnect from the peer (StandAlone)', EmptyBody, NoQuery, () => ({
    kind: 'disconnect',
  }));
  route('attach', 'Take the backing device into use again, or start a resource that could not be', EmptyBody, NoQuery, () => ({
    kind: 'attach',
  }));
  route('detach', 'Go on without the backing device, through the peer', ForceBody, NoQuery, ({ force = false }) => ({
    kind: 'detach',
    force,
  }));
  route('resync', 'Pause or resume a resync, or begin a full one', ResyncBody, NoQuery, ({ action }) => ({
    kind: 'resync',
    action,
  }));
  route('verify', 'Compare both copies while in use', VerifyBody, NoQuery, ({ action }) => ({
    kind: 'verify',
    action,
  }));
  route('resize', 'Grow the device', ResizeBody, NoQuery, (body) => {
    const size = parseSize(body.size);
    if (!size.ok) throw invalid([{ path: 'size', message: `"size": ${size.problem}` }]);
    return { kind: 'resize', sizeBytes: size.sizeBytes };
  });
  done();
}
