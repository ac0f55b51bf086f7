/**
 * Messages between the main thread and a data-plane worker. The main thread checks what it sends and gets against these
 * schemas: a message that does not fit means two versions of the code in one process, and stops it.
 */
import { Type, type Static, type TSchema } from 'typebox';
import { refusalCodes } from '../../replicator/core/refusal.ts';
import { Name } from '../schemas/common.ts';
import { ResourceDefinition } from '../schemas/resource-definition.ts';
import { DecisionRecord, ResourceStatus } from '../schemas/status.ts';
import { checker } from '../validation.ts';

const message = <K extends string, P extends Record<string, TSchema>>(kind: K, properties: P) =>
  Type.Object({ kind: Type.Literal(kind), ...properties });

const Id = Type.Integer({ minimum: 1 });

const Refusal = Type.Object({
  code: Type.Enum([...refusalCodes]),
  reason: Type.String(),
  nextStep: Type.String(),
});

const CommandResult = Type.Union([
  Type.Object({ ok: Type.Literal(true), message: Type.String(), givenUp: Type.Array(Type.String()) }),
  Type.Object({ ok: Type.Literal(false), refusal: Refusal }),
]);

const force = Type.Boolean();
const dryRun = Type.Boolean();
/** Every command of the core (core/command.ts) but `stop`, which is a message of its own. */
const AnyCommand = Type.Union([
  message('promote', { force, dryRun }),
  message('demote', { force, dryRun }),
  message('failover', { force, dryRun }),
  message('connect', { discardMyData: Type.Boolean(), dryRun }),
  message('disconnect', {}),
  message('detach', { force }),
  message('attach', {}),
  message('resync', { action: Type.Enum(['pause', 'resume', 'invalidate', 'invalidate-peer']) }),
  message('verify', { action: Type.Enum(['start', 'stop']), repair: Type.Boolean() }),
  message('resize', { sizeBytes: Type.Integer({ minimum: 1 }) }),
]);

const ToWorker = Type.Union([
  message('start', { id: Id, definition: ResourceDefinition }),
  message('stop', { id: Id, name: Name }),
  message('command', { id: Id, name: Name, command: AnyCommand }),
  message('configure', { id: Id, definition: ResourceDefinition }),
  message('status', { id: Id, name: Name }),
  message('decisions', { id: Id, name: Name }),
]);
/** Requests; each is answered once, under its id. */
export type ToWorker = Static<typeof ToWorker>;
export const checkToWorker = checker(ToWorker);

const FromWorker = Type.Union([
  message('started', { id: Id, refusal: Type.Union([Refusal, Type.Null()]) }),
  message('stopped', { id: Id }),
  message('commandDone', { id: Id, result: CommandResult }),
  message('configured', { id: Id, applied: Type.Enum(['applied', 'next-start']) }),
  message('statusIs', { id: Id, status: Type.Union([ResourceStatus, Type.Null()]) }),
  message('decisionsAre', { id: Id, decisions: Type.Array(DecisionRecord) }),
  message('statusChanged', { status: ResourceStatus }),
  message('log', { level: Type.Enum(['info', 'warn', 'error']), resource: Name, text: Type.String() }),
  message('panic', { resource: Name, text: Type.String() }),
]);
/** Answers, which carry the id of their request, and news, which do not. */
export type FromWorker = Static<typeof FromWorker>;
export type Answer = Extract<FromWorker, { id: number }>;
export const checkFromWorker = checker(FromWorker);
