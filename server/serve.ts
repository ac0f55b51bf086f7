/** `lockstep serve`: one node. Puts the parts together, listens, and takes them down again in order. */
import { writeSync } from 'node:fs';
import closeWithGrace from 'close-with-grace';
import { destination, pino, type Logger } from 'pino';
import { buildApp } from './app.ts';
import { saveCompiled } from './compile-cache.ts';
import type { Config } from './config.ts';
import { UsageError } from './config.ts';
import { openDataDirectory } from './data-directory.ts';
import { Supervisor } from './data-plane/supervisor.ts';
import { formatEndpoint, isLoopback } from './endpoint.ts';
import { ApiError } from './errors.ts';
import { giveBackRegularly } from './malloc.ts';
import { endWithoutWaiting } from './end-without-waiting.ts';
import { registerNode } from './node-registry.ts';
import { ResourceCatalog } from './resource-catalog.ts';
import { StartError } from './start-error.ts';
import { onStopSignals, stopSignals } from './stop-signals.ts';
import { beginThreadsGrown } from './young-generation.ts';

/** SIGTERM is answered within 5 s (design, section 5); what is not done by then is as safe as a crash. */
const stopGraceMs = 4_800;
/** Of that, what requests of the API may take to end. */
const apiGraceMs = 1_000;

/** Resolves when the node answers; it then runs until a signal. Throws what keeps it from starting. */
export async function serve(config: Config, version: string): Promise<void> {
  // Everything made from here on is this user's alone: data, metadata, sockets, token.
  process.umask(0o077);
  endWithoutWaiting();
  const log = createLogger(config);
  const directory = openDataDirectory(config.dataDirectory, config.name);
  const plane = new Supervisor({
    nodeName: config.name,
    dataDirectory: directory.path,
    dataPlanesMax: config.dataPlanesMax,
    log,
    fatal: (message) => {
      log.fatal(message);
      process.exit(1);
    },
  });
  const catalog = new ResourceCatalog({
    nodeName: config.name,
    dataDirectory: directory.path,
    store: directory.store,
    plane,
    log,
  });
  adoptConfigured(catalog, config);
  const app = await buildApp({
    catalog,
    node: { name: config.name, version },
    token: directory.token,
    host: config.api.host,
    log,
  });
  const api = await listen(app, config);
  if (!isLoopback(config.api.host)) {
    log.warn({ api }, 'the control API is not on loopback: its token crosses the network in the clear');
  }
  const unregister = register(log, {
    name: config.name,
    api,
    pid: process.pid,
    tokenFile: directory.tokenFile,
    dataDirectory: directory.path,
  });

  const keepMemory = giveBackRegularly();

  const grace = closeWithGrace(
    // An error nobody caught is a bug: the process ends at once, as it would in a crash, and vouches for nothing more.
    {
      delay: stopGraceMs,
      logger: log,
      skip: [...stopSignals, 'uncaughtException', 'unhandledRejection', 'beforeExit'],
    },
    async () => {
      log.info('stopping');
      unregister();
      keepMemory();
      // A request that is being sent, or an answer that nobody reads, must not take the time that the data planes need.
      const force = setTimeout(() => app.server.closeAllConnections(), apiGraceMs);
      await app.close();
      clearTimeout(force);
      catalog.close();
      await plane.close();
      directory.store.close();
      log.info('stopped');
    },
  );
  onStopSignals(
    (signal) => {
      log.info({ signal }, 'asked to stop');
      grace.close();
    },
    () => {
      log.error('asked to stop once more: ending at once, as in a crash');
      process.exit(1);
    },
  );
  if (config.stopOnStdinEnd) {
    process.stdin.on('end', () => grace.close()).on('error', () => grace.close());
    process.stdin.resume();
  }

  beginThreadsGrown();
  await catalog.startAll();
  log.info({ api, pid: process.pid }, 'ready');
  // The one line of standard output: scripts and supervisors wait for it.
  writeSync(1, `${JSON.stringify({ ready: true, api, pid: process.pid, tokenFile: directory.tokenFile })}\n`);
  saveCompiled();
}

/** Lines kept while the log cannot be written, bytes; more are dropped. */
const logBacklogBytesMax = 256 * 1024;

function createLogger(config: Config): Logger {
  // Synchronous: the last line before an end is the one that tells why.
  const out = destination({ fd: 2, sync: true, maxLength: logBacklogBytesMax });
  // A log on a full disk, above all: unheard, the error would end the node, which serves as well without.
  out.on('error', () => undefined);
  return pino(
    {
      level: config.logLevel,
      base: { node: config.name },
      redact: {
        paths: ['secret', '*.secret', '*.*.secret', 'token', '*.token', 'req.headers.authorization'],
        censor: '(hidden)',
      },
    },
    out,
  );
}

function adoptConfigured(catalog: ResourceCatalog, config: Config): void {
  for (const [name, body] of Object.entries(config.resources)) {
    try {
      catalog.adopt(name, body);
    } catch (error) {
      if (error instanceof ApiError)
        throw new UsageError(`configuration, resource "${name}": ${error.message}`);
      throw error;
    }
  }
}

async function listen(app: Awaited<ReturnType<typeof buildApp>>, config: Config): Promise<string> {
  try {
    await app.listen({ host: config.api.host, port: config.api.port });
  } catch (error) {
    const wanted = formatEndpoint(config.api);
    if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') {
      throw new StartError(
        `the address ${wanted} of the control API is in use; free it or choose another --api`,
        {
          cause: error,
        },
      );
    }
    throw new StartError(`the control API cannot listen on ${wanted}: ${String(error)}`, { cause: error });
  }
  const address = app.server.address();
  if (address === null || typeof address === 'string') throw new Error('the control API listens on no port');
  return `http://${formatEndpoint({ host: config.api.host, port: address.port })}`;
}

/** A convenience for the CLI: a home that cannot be written must not keep a node from serving. */
function register(log: Logger, entry: Parameters<typeof registerNode>[0]): () => void {
  try {
    return registerNode(entry);
  } catch (error) {
    log.warn({ err: error }, 'the node could not be recorded for the command line; use --data-dir there');
    return () => undefined;
  }
}
