/** Prints the OpenAPI 3.1 document of the control API: `node scripts/openapi.ts > openapi.json`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { buildApp } from '../server/app.ts';
import { Supervisor } from '../server/data-plane/supervisor.ts';
import { openNodeStore } from '../server/node-store.ts';
import { ResourceCatalog } from '../server/resource-catalog.ts';

const directory = mkdtempSync(join(tmpdir(), 'lockstep-openapi-'));
try {
  const log = pino({ level: 'silent' });
  const store = openNodeStore(join(directory, 'node.db'), 'alpha');
  const plane = new Supervisor({
    nodeName: 'alpha',
    dataDirectory: directory,
    dataPlanesMax: 1,
    log,
    fatal: (message) => {
      throw new Error(message);
    },
  });
  const catalog = new ResourceCatalog({ nodeName: 'alpha', dataDirectory: directory, store, plane, log });
  const version = /"version": "([^"]+)"/.exec(
    readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
  )?.[1];
  const app = await buildApp({
    catalog,
    node: { name: 'alpha', version: version ?? 'unknown' },
    token: 'unused',
    host: '127.0.0.1',
    log,
  });
  process.stdout.write(`${JSON.stringify(app.swagger(), null, 2)}\n`);
  await app.close();
  store.close();
} finally {
  rmSync(directory, { recursive: true, force: true });
}
