/** Answers of the API other than the status, and the bodies of its commands. */
import { Type, type Static } from 'typebox';
import { closed, Count, QueryFlag, SizeInput } from './common.ts';
import { DecisionRecord, ResourceStatus } from './status.ts';

export const NodeInfo = Type.Object(
  {
    name: Type.String(),
    version: Type.String(),
    uptimeSeconds: Type.Number({ minimum: 0 }),
    pid: Count,
    resources: Count,
  },
  closed,
);

export const CommandAnswer = Type.Object(
  {
    message: Type.String({ description: 'what was done, or would be for a dry run' }),
    givenUp: Type.Array(Type.String(), { description: 'what was given up by forcing' }),
    status: ResourceStatus,
  },
  closed,
);
export type CommandAnswer = Static<typeof CommandAnswer>;

export const RemoveAnswer = Type.Object(
  { message: Type.String(), givenUp: Type.Array(Type.String()) },
  closed,
);

export const DecisionsAnswer = Type.Array(DecisionRecord);

/** RFC 9457, with the stable `code` that clients match on. */
export const Problem = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String({ description: 'stable; match on this' }),
    detail: Type.String({ description: 'the reason, and the next step' }),
    nextStep: Type.Optional(Type.String()),
    instance: Type.Optional(Type.String()),
    errors: Type.Optional(
      Type.Array(Type.Object({ path: Type.String(), message: Type.String() }, closed), {
        description: 'for invalid-request: one entry per mistake',
      }),
    ),
  },
  { ...closed, description: 'RFC 9457 problem details' },
);
export type Problem = Static<typeof Problem>;

export const ForceBody = Type.Object(
  { force: Type.Optional(Type.Boolean({ description: 'true or false' })) },
  { ...closed, description: 'an object' },
);
export const ConnectBody = Type.Object(
  { discardMyData: Type.Optional(Type.Boolean({ description: 'true or false' })) },
  { ...closed, description: 'an object' },
);
export const EmptyBody = Type.Object({}, { ...closed, description: 'an empty object' });
export const ResyncBody = Type.Object(
  {
    action: Type.Enum(['pause', 'resume', 'invalidate', 'invalidate-peer'], {
      description: '"pause", "resume", "invalidate" or "invalidate-peer"',
    }),
  },
  { ...closed, description: 'an object' },
);
export const VerifyBody = Type.Object(
  {
    action: Type.Enum(['start', 'stop'], { description: '"start" or "stop"' }),
    repair: Type.Optional(
      Type.Boolean({
        description: 'true (what differs is copied again in the end, the default) or false (only reported)',
      }),
    ),
  },
  { ...closed, description: 'an object' },
);
export const ResizeBody = Type.Object({ size: SizeInput }, { ...closed, description: 'an object' });

export const DryRunQuery = Type.Object({ dryRun: QueryFlag }, closed);
export const NoQuery = Type.Object({}, closed);
export const RemoveQuery = Type.Object({ wipe: QueryFlag, force: QueryFlag }, closed);
