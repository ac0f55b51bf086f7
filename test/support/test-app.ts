/** The control API over a fake data plane, in a temporary data directory. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { LightMyRequestResponse } from 'fastify';
import { pino } from 'pino';
import { buildApp, type Api } from '../../server/app.ts';
import { openNodeStore, type NodeStore } from '../../server/node-store.ts';
import { ResourceCatalog } from '../../server/resource-catalog.ts';
import { FakeDataPlane } from './fake-data-plane.ts';

export const testToken = 'a-token-for-tests-only';

export const mirroredBody = {
  size: '1GiB',
  nbd: { listen: '127.0.0.1:10809' },
  replication: { listen: '127.0.0.1:7789', secret: 'the very secret' },
  peers: [{ name: 'beta', address: '127.0.0.1:7799' }],
};

export interface TestApp {
  readonly app: Api;
  readonly plane: FakeDataPlane;
  readonly catalog: ResourceCatalog;
  readonly store: NodeStore;
  readonly directory: string;
  /** What the app logged, a line each. */
  readonly logged: string[];
  /** A request with the token; `body` is sent as JSON. */
  readonly send: (
    method: 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE',
    url: string,
    body?: object,
  ) => Promise<LightMyRequestResponse>;
}

export async function testApp(t: ExecutionContext, options: { start?: boolean } = {}): Promise<TestApp> {
  const directory = temporaryDirectory(t);
  const plane = new FakeDataPlane();
  const store = openNodeStore(join(directory, 'node.db'), 'alpha');
  const logged: string[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) });
  const catalog = new ResourceCatalog({ nodeName: 'alpha', dataDirectory: directory, store, plane, log });
  const app = await buildApp({
    catalog,
    node: { name: 'alpha', version: '1.2.3' },
    token: testToken,
    host: '127.0.0.1',
    log,
  });
  if (options.start !== false) await catalog.startAll();
  t.teardown(async () => {
    await app.close();
    catalog.close();
    store.close();
  });
  return {
    app,
    plane,
    catalog,
    store,
    directory,
    logged,
    send: (method, url, body) =>
      app.inject({
        method,
        url,
        headers: { authorization: `Bearer ${testToken}` },
        ...(body === undefined ? {} : { payload: body }),
      }),
  };
}

export function temporaryDirectory(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-'));
  // Run in reverse order of registration: what uses the directory registers later and ends first.
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
