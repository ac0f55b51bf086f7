/** Builds the control API. It listens nowhere: main does that, and tests inject requests. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import Fastify, { LogController, type FastifyBaseLogger, type FastifyInstance } from 'fastify';
import { jsonBodies } from './plugins/json-bodies.ts';
import { apiDocument } from './plugins/api-document.ts';
import { allowedHosts } from './plugins/allowed-hosts.ts';
import { bearerToken } from './plugins/bearer-token.ts';
import { answerError, problems } from './plugins/problems.ts';
import { schemaValidation } from './plugins/schema-validation.ts';
import type { ResourceCatalog } from './resource-catalog.ts';
import { commandRoutes } from './routes/commands.ts';
import { eventRoutes } from './routes/events.ts';
import { healthRoutes } from './routes/health.ts';
import { metricsRoutes } from './routes/metrics.ts';
import { nodeRoutes } from './routes/node.ts';
import { resourceRoutes } from './routes/resources.ts';

export interface AppOptions {
  readonly catalog: ResourceCatalog;
  readonly node: { readonly name: string; readonly version: string };
  readonly token: string;
  /** The host the API is bound to, as configured. */
  readonly host: string;
  readonly log: FastifyBaseLogger;
}

/** Requests are definitions and commands; nothing of use is larger. Bytes. */
const bodyBytesMax = 64 * 1024;
/** A request must have arrived whole within this time, milliseconds. */
const requestTimeoutMs = 30_000;

export type Api = FastifyInstance;

export async function buildApp(options: AppOptions): Promise<Api> {
  const app = Fastify({
    loggerInstance: options.log,
    // A line per request is noise: changes are logged where they are made, failures where they are answered.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: bodyBytesMax,
    requestTimeout: requestTimeoutMs,
    // By default a plugin that takes 10 s to load fails the start: on a slow disk or a busy machine, for no fault.
    pluginTimeout: 0,
    return503OnClosing: true,
    frameworkErrors: (error, request, reply) => void answerError(error, request, reply),
  }).withTypeProvider<TypeBoxTypeProvider>();

  await app.register(problems);
  await app.register(schemaValidation);
  await app.register(jsonBodies);
  await app.register(allowedHosts, { host: options.host });
  await app.register(bearerToken, { token: options.token });
  await app.register(apiDocument, { version: options.node.version });
  await app.register(healthRoutes, { catalog: options.catalog });
  await app.register(nodeRoutes, { catalog: options.catalog, node: options.node });
  await app.register(resourceRoutes, { catalog: options.catalog });
  await app.register(commandRoutes, { catalog: options.catalog });
  await app.register(eventRoutes, { catalog: options.catalog });
  await app.register(metricsRoutes, { catalog: options.catalog, node: options.node });
  await app.ready();
  return app;
}
