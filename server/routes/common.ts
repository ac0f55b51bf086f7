/** What the routes share: their options and the answers they document. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { ResourceCatalog } from '../resource-catalog.ts';
import { Problem } from '../schemas/answers.ts';

export type Router = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

export interface RouteOptions {
  readonly catalog: ResourceCatalog;
}

/** Documents every answer that is not a success. */
export const problemAnswer = {
  description: 'RFC 9457 problem details; match on `code`',
  content: { 'application/problem+json': { schema: Problem } },
} as const;
